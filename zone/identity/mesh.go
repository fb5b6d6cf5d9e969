package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/pki"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/zone/disk"
)

// mesh is one mesh with mutual TLS. Guarded by Identity.mu.
type mesh struct {
	domain   pki.TrustDomain
	lifetime time.Duration

	bundle    pki.Bundle
	bundlePEM []byte

	// current signs; nil while there is none.
	current *intermediate
	svids   map[string]*svid

	// pending is the request that global has not answered with a usable chain yet; nil when nothing is asked for.
	pending *request
	answer  *kdsv1.Certificate
	// content is until when it is no reason to ask that another root stands first, as global just signed with this one; zero
	// once the bundle changed.
	content time.Time
	// problem is the last thing that went wrong with getting an intermediate; logged when it changes.
	problem string
	// alarmAt is when it is told next that the intermediate ends, see alarmLocked.
	alarmAt time.Time
	// useless is set while that on disk is not taken; logged when it is set.
	useless bool
}

type request struct {
	key      pki.Key
	csr      []byte
	retryAt  time.Time
	failures int
}

// intermediate is an authority with the root that stands above it.
type intermediate struct {
	pki.Authority
	root *x509.Certificate
	// since is when its life began for the zone: certificates themselves are backdated.
	since time.Time
	// proven says that what it signs was seen to be trusted.
	proven bool
}

// end is when nothing that it signed is of use any more.
func (a *intermediate) end() time.Time {
	end := a.Certificate.NotAfter
	for _, c := range append([]*x509.Certificate{a.root}, a.Parents...) {
		if c != nil && c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// renewAt leaves a second at least, as what ends with its root can't be renewed ever faster.
func (a *intermediate) renewAt() time.Time {
	at := pki.IntermediateThresholds().PrepareAt(pki.Window{NotBefore: a.since, NotAfter: a.end()})
	if least := a.since.Add(time.Second); at.Before(least) {
		return least
	}
	return at
}

// svid is what a service has.
type svid struct {
	// certificate is nil until there is one.
	certificate *ir.Certificate
	notAfter    time.Time
	// issuer signed it.
	issuer *intermediate
	// due is when it is renewed; zero when only another intermediate can make a better one.
	due time.Time
	// problem is why the last attempt failed; logged when it changes.
	problem string
}

func newMesh(td pki.TrustDomain) *mesh {
	return &mesh{domain: td, svids: map[string]*svid{}}
}

// setBundleLocked reports whether the bundle is another one.
func (i *Identity) setBundleLocked(m *mesh, b pki.Bundle, now time.Time) bool {
	pem := b.PEM()
	if bytes.Equal(pem, m.bundlePEM) {
		return false
	}
	first := m.bundlePEM == nil
	m.bundle, m.bundlePEM = b, pem
	m.content = time.Time{}
	if first {
		i.restoreLocked(m, now)
	}
	if m.current != nil {
		if root := rootOf(m.current.Authority, b); root != nil {
			m.current.root = root
		} else {
			// Its SVIDs stay with their proxies until there are better ones; peers decide whether they still take them.
			i.log.Warn("the mesh does not trust the zone's intermediate any more; a new one is needed", zap.String("mesh", m.domain.Mesh))
			m.current = nil
			i.markLocked(Change{Mesh: m.domain.Mesh, Issuer: true})
		}
	}
	m.askAgain(now)
	return true
}

// restoreLocked takes the intermediate that is on disk, where it is of use. A clock that is wrong when the machine starts makes
// it useless for a while only, so it is tried again.
func (i *Identity) restoreLocked(m *mesh, now time.Time) {
	stored, ok := i.stored[m.domain.Mesh]
	if !ok {
		return
	}
	a, err := load(stored, m.domain, m.bundle, now)
	if err != nil {
		if !m.useless { // the reason may hold the time
			m.useless = true
			i.log.Warn("the intermediate on disk is of no use; a new one is needed", zap.String("mesh", m.domain.Mesh), zap.Error(err))
		}
		return
	}
	since := a.Certificate.NotBefore.Add(pki.Backdate)
	if !since.Before(a.Certificate.NotAfter) {
		since = a.Certificate.NotBefore
	}
	m.useless = false
	m.signWith(&intermediate{Authority: a, root: rootOf(a, m.bundle), since: since}, now)
}

func load(stored disk.Intermediate, td pki.TrustDomain, bundle pki.Bundle, now time.Time) (pki.Authority, error) {
	var chain []*x509.Certificate
	for _, der := range stored.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return pki.Authority{}, err
		}
		chain = append(chain, c)
	}
	key, err := pki.ParseKey(stored.Key)
	if err != nil {
		return pki.Authority{}, err
	}
	a, err := pki.LoadIntermediate(pki.EncodeCertificates(chain...), key, td, bundle, now)
	if err == nil && rootOf(a, bundle) == nil {
		err = fmt.Errorf("%w: the chain lacks what stands between the intermediate and the root", pki.ErrUntrusted)
	}
	return a, err
}

// signWith makes those SVIDs due that gain by another intermediate.
func (m *mesh) signWith(a *intermediate, now time.Time) {
	m.current = a
	for _, s := range m.svids {
		ends := s.issuer != nil && !s.notAfter.Before(s.issuer.end())
		if s.certificate == nil || ends || !s.issuer.root.Equal(a.root) {
			s.due = now
		}
	}
}

// rootOf is the root of the bundle that signed the last certificate of the chain.
func rootOf(a pki.Authority, b pki.Bundle) *x509.Certificate {
	last := a.Certificate
	if n := len(a.Parents); n > 0 {
		last = a.Parents[n-1]
	}
	for _, r := range b.Roots() {
		if last.CheckSignatureFrom(r) == nil {
			return r
		}
	}
	return nil
}

// wantedAt is when another intermediate is to be asked for: at once without one, else at half of its life, or earlier when the
// mesh signs with another root by now.
func (m *mesh) wantedAt(now time.Time) time.Time {
	if m.current == nil {
		return now
	}
	at := m.current.renewAt()
	if !m.current.root.Equal(m.bundle.Roots()[0]) && m.content.Before(at) {
		return m.content
	}
	return at
}

func (m *mesh) askAgain(now time.Time) {
	if m.pending != nil {
		m.pending.retryAt, m.pending.failures = now, 0
	}
}

// earliest is when something is due, from what a step left; at most limit.
func (m *mesh) earliest(limit time.Time) time.Time {
	at := limit
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if m.pending != nil {
		sooner(m.pending.retryAt)
	} else {
		sooner(m.wantedAt(limit))
	}
	for _, s := range m.svids {
		if !s.due.IsZero() {
			sooner(s.due)
		}
	}
	return at
}

// setLifetime renews early what would outlive a shorter lifetime.
func (m *mesh) setLifetime(d time.Duration, now time.Time) {
	m.lifetime = d
	for _, s := range m.svids {
		if s.due.After(now.Add(d / 2)) {
			s.due = now
		}
	}
}

// step does what is due, and reports whether there is more to do at once.
func (i *Identity) step(ctx context.Context) (more bool) {
	var saves []disk.Intermediate
	type ask struct {
		mesh string
		of   *request
	}
	var asks []ask
	i.mu.Lock()
	budget := batch
	for _, name := range slices.Sorted(maps.Keys(i.meshes)) {
		m, now := i.meshes[name], time.Now()
		if next := i.takeAnswerLocked(m, now); next != nil {
			if s, err := i.activateLocked(m, next, now); err != nil {
				i.log.Error("the intermediate can't be kept on disk", zap.String("mesh", name), zap.Error(err))
			} else {
				saves = append(saves, s)
			}
		}
		if now.Before(m.wantedAt(now)) {
			m.pending = nil
		} else {
			if m.pending == nil || m.pending.csr == nil && !now.Before(m.pending.retryAt) {
				i.prepareLocked(m, now)
			}
			if m.pending.csr != nil && !now.Before(m.pending.retryAt) {
				if m.current == nil {
					i.restoreLocked(m, now)
				}
				m.pending.retryAt = now.Add(answerWithin)
				asks = append(asks, ask{name, m.pending})
			}
		}
		for _, service := range slices.Sorted(maps.Keys(m.svids)) {
			s := m.svids[service]
			if s.due.IsZero() || now.Before(s.due) {
				continue
			}
			if budget--; budget < 0 {
				more = true
				break
			}
			if i.issueLocked(m, service, s, now) {
				i.markLocked(Change{Mesh: name, Service: service})
			}
		}
		i.alarmLocked(m, now)
	}
	i.mu.Unlock()

	for _, s := range saves {
		if err := i.store.SaveIntermediate(s); err != nil {
			// The zone goes on with it; after a restart it needs global.
			i.log.Error("the intermediate can't be kept on disk", zap.String("mesh", s.Mesh), zap.Error(err))
		}
	}
	for _, a := range asks {
		asking, cancel := context.WithTimeout(ctx, requestWithin)
		err := i.request(asking, a.mesh, a.of.csr)
		cancel()
		if err != nil && ctx.Err() == nil {
			i.mu.Lock()
			if m := i.meshes[a.mesh]; m != nil && m.pending == a.of {
				i.failedLocked(m, fmt.Errorf("ask global for the intermediate: %w", err), time.Now())
			}
			i.mu.Unlock()
		}
	}
	return more
}

// alarmLocked tells that the intermediate ends without a newer one: first when a quarter of its life is left, then whenever half of
// what was left has gone, and at last that it has ended. The certificates of workloads end with it.
func (i *Identity) alarmLocked(m *mesh, now time.Time) {
	if m.current == nil {
		return
	}
	end := m.current.end()
	left := end.Sub(now)
	switch {
	case left > end.Sub(m.current.since)/alarmShare:
		m.alarmAt = time.Time{}
		return
	case now.Before(m.alarmAt):
		return
	}
	m.alarmAt = now.Add(max(left/2, leastReminder))
	i.log.Error("the certificates of this zone end, as global does not renew its intermediate", zap.String("mesh", m.domain.Mesh), zap.Time("until", end),
		zap.String("reason", m.problem))
}

// prepareLocked makes a key and the request for it.
func (i *Identity) prepareLocked(m *mesh, now time.Time) {
	key, err := pki.NewKey(i.random)
	var csr []byte
	if err == nil {
		csr, err = pki.NewRequest(i.random, key, m.domain)
	}
	m.pending = &request{key: key, csr: csr, retryAt: now}
	if err != nil {
		i.failedLocked(m, err, now)
	}
}

// failedLocked puts the next attempt off, and says why when it is a new reason.
func (i *Identity) failedLocked(m *mesh, err error, now time.Time) {
	p := m.pending
	wait := min(minRetry<<min(p.failures, 20), maxRetry)
	p.failures++
	p.retryAt = now.Add(wait/2 + rand.N(wait/2+1))
	if m.problem != err.Error() {
		m.problem = err.Error()
		i.log.Warn("no new intermediate certificate", zap.String("mesh", m.domain.Mesh), zap.String("reason", m.problem))
	}
}

// takeAnswerLocked gives the intermediate that global has signed; nil where it has not, or where it is of no use.
func (i *Identity) takeAnswerLocked(m *mesh, now time.Time) *intermediate {
	answer := m.answer
	m.answer = nil
	if answer == nil || m.pending == nil {
		return nil
	}
	if text := answer.GetError(); text != "" {
		i.failedLocked(m, fmt.Errorf("global refused: %s", text), now)
		return nil
	}
	a, err := pki.LoadIntermediate([]byte(answer.GetChain()), m.pending.key, m.domain, m.bundle, now)
	if errors.Is(err, pki.ErrKeyMismatch) {
		return nil // it answers an earlier request; ours is still under way
	}
	var root *x509.Certificate
	if err == nil {
		if root = rootOf(a, m.bundle); root == nil {
			err = fmt.Errorf("%w: the chain lacks what stands between the intermediate and the root", pki.ErrUntrusted)
		}
	}
	if err != nil {
		// A root that isn't in the bundle yet is likely: the answer may outrun the bundle, which asks again when it comes.
		i.failedLocked(m, fmt.Errorf("global's answer is of no use: %w", err), now)
		return nil
	}
	m.pending, m.problem = nil, ""
	m.content = now.Add(maxRetry)
	return &intermediate{Authority: a, root: root, since: now}
}

// activateLocked lets next sign, and makes those SVIDs due that gain by it.
func (i *Identity) activateLocked(m *mesh, next *intermediate, now time.Time) (disk.Intermediate, error) {
	m.signWith(next, now)
	i.markLocked(Change{Mesh: m.domain.Mesh, Issuer: true})
	i.log.Info("intermediate certificate in use", zap.String("mesh", m.domain.Mesh), zap.Time("until", m.current.end()))
	key, err := m.current.Key.PEM()
	if err != nil {
		return disk.Intermediate{}, err
	}
	out := disk.Intermediate{Mesh: m.domain.Mesh, Key: key}
	for _, c := range append([]*x509.Certificate{m.current.Certificate}, m.current.Parents...) {
		out.Chain = append(out.Chain, c.Raw)
	}
	i.stored[out.Mesh] = out
	return out, nil
}

// issueLocked makes an SVID, and reports whether it did. Without an intermediate it waits for one; what fails otherwise, as it
// may by a clock that is set, is tried again.
func (i *Identity) issueLocked(m *mesh, service string, s *svid, now time.Time) bool {
	s.due = time.Time{}
	if m.current == nil {
		return false
	}
	if !now.Before(m.current.end()) { // only another one helps, or a clock that is mended
		s.due = now.Add(retryIssue)
		return false
	}
	made, err := pki.NewSVID(i.random, now, m.current.Authority, pki.ID{TrustDomain: m.domain, Service: service}, pki.Validity{Lifetime: m.lifetime})
	// What an intermediate signs first is looked at as its peers will.
	if err == nil && !m.current.proven {
		_, err = pki.Verify(made.Chain, m.bundle, now)
		m.current.proven = err == nil
	}
	var key []byte
	if err == nil {
		key, err = made.Key.PEM()
	}
	if err != nil {
		s.due = now.Add(retryIssue)
		if s.problem != err.Error() {
			s.problem = err.Error()
			i.log.Error("no certificate for a service", zap.String("mesh", m.domain.Mesh), zap.String("name", service), zap.Error(err))
		}
		return false
	}
	leaf := made.Chain[0]
	s.problem = ""
	s.certificate = &ir.Certificate{Chain: made.ChainPEM(), Key: key, Root: sha256.Sum256(m.current.root.Raw)}
	s.notAfter, s.issuer = leaf.NotAfter, m.current
	if leaf.NotAfter.Before(m.current.end()) {
		// At half of its life, counted from now as the certificate is backdated; a little earlier by chance, so that services
		// that came together are not renewed together.
		half := leaf.NotAfter.Sub(now) / 2
		s.due = now.Add(half - rand.N(half/5+1))
	}
	return true
}
