package pki

import (
	"crypto/x509"
	"time"
)

// Window is a lifetime.
type Window struct {
	NotBefore time.Time
	NotAfter  time.Time
}

// WindowOf is the lifetime of a certificate.
func WindowOf(c *x509.Certificate) Window {
	return Window{NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

// Thresholds say how long before its end a certificate is to be replaced: a part of the lifetime, but no more than a bound, so that a
// root of ten years is not replaced after five.
type Thresholds struct {
	// PrepareDivisor divides the lifetime; at least 1.
	PrepareDivisor int
	// PrepareMax bounds the result.
	PrepareMax time.Duration
}

// RootThresholds leave time to replace a root while it still has the lifetime of several intermediates left, as none of these outlives it.
func RootThresholds() Thresholds {
	return Thresholds{PrepareDivisor: 2, PrepareMax: 3 * IntermediateLifetime}
}

// IntermediateThresholds renew at half of the lifetime.
func IntermediateThresholds() Thresholds {
	return Thresholds{PrepareDivisor: 2, PrepareMax: IntermediateLifetime}
}

// PrepareAt is when the next one is to be made.
func (t Thresholds) PrepareAt(current Window) time.Time {
	lifetime := current.NotAfter.Sub(current.NotBefore)
	return current.NotAfter.Add(-min(lifetime/time.Duration(max(t.PrepareDivisor, 1)), t.PrepareMax))
}
