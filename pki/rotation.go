package pki

import (
	"crypto/x509"
	"time"
)

// Window is the lifetime of what stands in a slot.
type Window struct {
	NotBefore time.Time
	NotAfter  time.Time
}

// WindowOf is the lifetime of a certificate.
func WindowOf(c *x509.Certificate) Window {
	return Window{NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

// Thresholds say how long before the end a rotation's steps come: a part of the lifetime, but no more than a bound, so
// that a root of ten years is not rotated after five.
type Thresholds struct {
	// PrepareDivisor and ActivateDivisor divide the lifetime; at least 1.
	PrepareDivisor  int
	ActivateDivisor int
	// PrepareMax and ActivateMax bound the result.
	PrepareMax  time.Duration
	ActivateMax time.Duration
	// Settle is how long the next slot must have been filled before it becomes the current one, while the current one
	// lives: a rotation that comes late must not sign with a root that nobody trusts yet.
	Settle time.Duration
}

// RootThresholds leave time to spread the next root to all zones before it signs, and switch while the current one still
// has the whole lifetime of an intermediate left.
func RootThresholds() Thresholds {
	return Thresholds{
		PrepareDivisor: 2, PrepareMax: 3 * IntermediateLifetime,
		ActivateDivisor: 3, ActivateMax: 2 * IntermediateLifetime,
		Settle: 24 * time.Hour,
	}
}

// IntermediateThresholds renew at half of the lifetime. The next one is used at once, because who verifies trusts the
// root and has nothing to learn first.
func IntermediateThresholds() Thresholds {
	return Thresholds{
		PrepareDivisor: 2, PrepareMax: IntermediateLifetime,
		ActivateDivisor: 2, ActivateMax: IntermediateLifetime,
	}
}

// PrepareAt is when the next slot is to be filled.
func (t Thresholds) PrepareAt(current Window) time.Time {
	return before(current, t.PrepareDivisor, t.PrepareMax)
}

// ActivateAt is when the next slot becomes the current one.
func (t Thresholds) ActivateAt(current Window) time.Time {
	return before(current, t.ActivateDivisor, t.ActivateMax)
}

func before(w Window, divisor int, limit time.Duration) time.Time {
	return w.NotAfter.Add(-min(w.NotAfter.Sub(w.NotBefore)/time.Duration(max(divisor, 1)), limit))
}

// Step is what a rotation needs now.
type Step int

const (
	// StepNone: nothing until the returned time.
	StepNone Step = iota
	// StepPrepare: fill the next slot. For a root, its certificate joins the trust bundle, behind the current one.
	StepPrepare
	// StepActivate: move next to current. For a root, the old one stays in the bundle until RetireAt.
	StepActivate
)

// String is the step's name.
func (s Step) String() string {
	switch s {
	case StepPrepare:
		return "prepare"
	case StepActivate:
		return "activate"
	}
	return "none"
}

// Slots are the two slots of a rotation; nil is empty.
type Slots struct {
	Current *Window
	Next    *Window
	// Prepared is when Next was filled.
	Prepared time.Time
}

// NextStep says what to do at now, and for StepNone when to ask again. A next slot that does not outlive the current one
// counts as empty: moving to it would gain nothing.
func (t Thresholds) NextStep(s Slots, now time.Time) (Step, time.Time) {
	usable := s.Next != nil && now.Before(s.Next.NotAfter)
	if s.Current == nil {
		if usable {
			return StepActivate, now
		}
		return StepPrepare, now
	}
	if usable && s.Next.NotAfter.After(s.Current.NotAfter) {
		at := t.ActivateAt(*s.Current)
		if settled := s.Prepared.Add(t.Settle); settled.After(at) {
			at = settled
		}
		if at.After(s.Current.NotAfter) { // waiting any longer would leave nothing that signs
			at = s.Current.NotAfter
		}
		if now.Before(at) {
			return StepNone, at
		}
		return StepActivate, now
	}
	at := t.PrepareAt(*s.Current)
	if now.Before(at) {
		return StepNone, at
	}
	return StepPrepare, now
}

// RetireAt is when a root that was replaced at activated may leave the trust bundle: when all that it signed has ended.
func RetireAt(old Window, activated time.Time, intermediateLifetime time.Duration) time.Time {
	if at := activated.Add(intermediateLifetime); at.Before(old.NotAfter) {
		return at
	}
	return old.NotAfter
}
