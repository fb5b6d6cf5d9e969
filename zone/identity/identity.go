// Package identity owns the keys by which a zone's proxies prove who they are: the zone's intermediate of each mesh, the
// SVIDs that it signs for services, when each is renewed, and the trust bundles beside them.
//
// It never decides which proxy may have which identity (package admission does), never talks to global or to a proxy, and
// never logs or prints a key. Global may be away for as long as the intermediates last.
//
// A renewed SVID goes to its proxies by itself and drains nothing. While roots change, the zone signs below the root that its bundle has
// first: global puts one there once all proxies of all zones trust it.
package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/zone/disk"
)

// Names of secrets, as zone/proxyir uses them.
const (
	BundleName = "bundle"
	svidPrefix = "svid:"
)

// SVIDName is the name of a service's secret.
func SVIDName(service string) string { return svidPrefix + service }

// Services picks those services out of the names of secrets (ir.Proxy.Secrets) whose identity is among them, for Secrets.
func Services(names []string) []string {
	var out []string
	for _, n := range names {
		if s, ok := strings.CutPrefix(n, svidPrefix); ok {
			out = append(out, s)
		}
	}
	return out
}

const (
	// answerWithin is how long global has to answer a request before it is asked again: an answer is lost with its stream.
	answerWithin = 15 * time.Second
	// Bounds of the wait after a request failed or was refused.
	minRetry, maxRetry = time.Second, 5 * time.Minute
	// requestWithin bounds one call of Config.Request.
	requestWithin = 5 * time.Second
	// longestWait bounds the timer, which stands still while a machine is suspended, and knows nothing of a clock that is set.
	longestWait = 10 * time.Minute
	// retryIssue is the wait after an SVID could not be made.
	retryIssue = time.Minute
	// alarmShare of its life is what an intermediate has left when its end is told of, and leastReminder the time between two words.
	alarmShare    = 4
	leastReminder = 10 * time.Minute
	// batch is how many SVIDs are made while others wait for the lock; one takes 0.1 to 0.3 ms.
	batch = 16
)

// Store keeps intermediates; *disk.Store is one. It must be safe for concurrent use.
type Store interface {
	LoadIntermediates() ([]disk.Intermediate, error)
	SaveIntermediate(disk.Intermediate) error
}

// Config is what an Identity works with.
type Config struct {
	Zone  string
	Store Store
	// Request asks global for the intermediate of a mesh (csr is DER of PKCS#10); global's answer comes by Answer. An error
	// says that it couldn't be sent. It is called on Run's goroutine and must return when ctx ends, after 5 s.
	Request func(ctx context.Context, mesh string, csr []byte) error
	// SVIDLifetime is used where a mesh sets none; pki.SVIDLifetime when 0.
	SVIDLifetime time.Duration
	// Random makes serial numbers; crypto/rand when nil. Safe for concurrent use.
	Random io.Reader
	// Logger may be nil.
	Logger *zap.Logger
}

// Change says that the secret of a service is another one, or that it is there at last. With an empty Service it is the
// mesh's bundle, which concerns all proxies of the mesh, or, with Issuer, the intermediate, which concerns none.
type Change struct {
	Mesh    string
	Service string
	Issuer  bool
}

// Rotation is how the zone stands with a mesh that has several roots, named by their SHA-256 fingerprints.
type Rotation struct {
	Mesh string
	// Roots are those of the bundle.
	Roots [][32]byte
	// Issuer is the root above the intermediate; zero without one.
	Issuer [32]byte
}

// Status is what is known of a mesh's intermediate.
type Status struct {
	Mesh string
	// Ready says that the zone can sign.
	Ready bool
	// NotBefore and NotAfter are the life of the intermediate; zero without one.
	NotBefore, NotAfter time.Time
	// SVIDsEnd is when the first of the identities ends; zero without any.
	SVIDsEnd time.Time
	// SVIDs is how many identities are held, Waiting how many more are asked for.
	SVIDs, Waiting int
	// Problem is why there is no intermediate or no newer one; empty when nothing is wrong.
	Problem string
}

// Identity holds the zone's identities. Its methods are safe for concurrent use, and none waits for global or the disk.
type Identity struct {
	zone     string
	store    Store
	request  func(ctx context.Context, mesh string, csr []byte) error
	lifetime time.Duration
	random   io.Reader
	log      *zap.Logger

	// wake holds a token when Run has to look again; changed when dirty isn't empty.
	wake, changed chan struct{}

	mu sync.Mutex
	// All below is guarded by mu.
	meshes map[string]*mesh
	// stored is what is on disk, by mesh; also for meshes that are not there now.
	stored map[string]disk.Intermediate
	dirty  map[Change]bool
	// armed is when Run looks again by itself.
	armed time.Time
}

// New reads the intermediates that the zone has. It starts nothing.
func New(cfg Config) (*Identity, error) {
	if cfg.Zone == "" || cfg.Store == nil || cfg.Request == nil {
		return nil, errors.New("identity: zone, store and request are all needed")
	}
	all, err := cfg.Store.LoadIntermediates()
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	i := &Identity{
		zone: cfg.Zone, store: cfg.Store, request: cfg.Request, random: cfg.Random, log: cfg.Logger,
		lifetime: cmp.Or(cfg.SVIDLifetime, pki.SVIDLifetime),
		wake:     make(chan struct{}, 1), changed: make(chan struct{}, 1),
		meshes: map[string]*mesh{}, stored: map[string]disk.Intermediate{}, dirty: map[Change]bool{},
	}
	for _, s := range all {
		i.stored[s.Mesh] = s
	}
	if i.random == nil {
		i.random = rand.Reader
	}
	if i.log == nil {
		i.log = zap.NewNop()
	}
	return i, nil
}

// SetMesh says how a mesh is now; either part may be nil. Without mutual TLS the mesh is forgotten, and its intermediate
// stays on disk. The error says what of the bundle or the mesh can't be used; then what was said before stays in force.
func (i *Identity) SetMesh(name string, spec *meshv1.Mesh, bundle *federationv1.TrustBundle) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if spec.GetMtls().GetEnabledBackend() == "" {
		i.removeLocked(name)
		return nil
	}
	if bundle == nil {
		// Either it isn't here yet, or the whole mesh is about to go.
		return nil
	}
	parsed, err := pki.ParseBundle([]byte(strings.Join(bundle.GetRoots(), "\n")))
	if err != nil {
		return fmt.Errorf("trust bundle of mesh %s: %w", name, err)
	}
	td, err := pki.NewTrustDomain(i.zone, name, bundle.GetDomain())
	if err != nil {
		return fmt.Errorf("trust bundle of mesh %s: %w", name, err)
	}
	m := i.meshes[name]
	if m == nil || m.domain != td {
		m = newMesh(td)
		i.meshes[name] = m
	}
	m.setLifetime(lifetime(spec, i.lifetime), time.Now())
	if i.setBundleLocked(m, parsed, time.Now()) {
		i.markLocked(Change{Mesh: name})
	}
	i.signal()
	return nil
}

// lifetime is that which the backend in use sets.
func lifetime(spec *meshv1.Mesh, otherwise time.Duration) time.Duration {
	for _, b := range spec.GetMtls().GetBackends() {
		if b.GetName() == spec.GetMtls().GetEnabledBackend() {
			if d := b.GetDpCert().GetRotation().GetExpiration(); d.AsDuration() > 0 {
				return d.AsDuration()
			}
		}
	}
	return otherwise
}

// RemoveMesh forgets a mesh.
func (i *Identity) RemoveMesh(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.removeLocked(name)
}

func (i *Identity) removeLocked(name string) {
	delete(i.meshes, name)
	maps.DeleteFunc(i.dirty, func(c Change, _ bool) bool { return c.Mesh == name })
}

// Secrets are the mesh's bundle and the SVIDs of services, by name, bundle first. An SVID that isn't there is made, and kept
// up from then on, see Retain. While ready is false something of it is missing; when that comes, Changed tells. An SVID that
// has ended because global was away for too long is still given. The secrets must not be changed.
func (i *Identity) Secrets(mesh string, services []string) (secrets []ir.Secret, ready bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.meshes[mesh]
	if m == nil {
		return nil, len(services) == 0
	}
	secrets, ready = append(secrets, ir.Secret{Name: BundleName, Bundle: m.bundlePEM}), true
	wanted := slices.Sorted(slices.Values(services))
	for _, service := range slices.Compact(wanted) {
		s := m.svids[service]
		if s == nil {
			s = &svid{}
			m.svids[service] = s
			i.issueLocked(m, service, s, time.Now())
			if !s.due.IsZero() && (i.armed.IsZero() || s.due.Before(i.armed)) {
				i.signal()
			}
		}
		if s.certificate == nil {
			ready = false
			continue
		}
		secrets = append(secrets, ir.Secret{Name: SVIDName(service), Certificate: s.certificate})
	}
	return secrets, ready
}

// Retain forgets all SVIDs of a mesh but those of the services, which are those that proxies have now.
func (i *Identity) Retain(mesh string, services []string) {
	keep := make(map[string]bool, len(services))
	for _, s := range services {
		keep[s] = true
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if m := i.meshes[mesh]; m != nil {
		maps.DeleteFunc(m.svids, func(service string, _ *svid) bool { return !keep[service] })
	}
	maps.DeleteFunc(i.dirty, func(c Change, _ bool) bool { return c.Mesh == mesh && c.Service != "" && !keep[c.Service] })
}

// Changed holds a token when Take has something to give. It is for one reader.
func (i *Identity) Changed() <-chan struct{} { return i.changed }

// Take gives, ordered and each once, what changed since it was called before.
func (i *Identity) Take() []Change {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := slices.SortedFunc(maps.Keys(i.dirty), func(a, b Change) int {
		issuer := 0
		if a.Issuer != b.Issuer {
			issuer = 1
			if b.Issuer {
				issuer = -1
			}
		}
		return cmp.Or(cmp.Compare(a.Mesh, b.Mesh), cmp.Compare(a.Service, b.Service), issuer)
	})
	clear(i.dirty)
	return out
}

// Answer takes global's answer to a request.
func (i *Identity) Answer(c *kdsv1.Certificate) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if m := i.meshes[c.GetMesh()]; m != nil && m.pending != nil {
		m.answer = c
		i.signal()
	}
}

// Connected says that a stream to global is up, so that what is waiting is asked for at once.
func (i *Identity) Connected() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range i.meshes {
		m.askAgain(time.Now())
	}
	i.signal()
}

// Statuses are ordered by mesh.
func (i *Identity) Statuses() []Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	var out []Status
	for _, name := range slices.Sorted(maps.Keys(i.meshes)) {
		m := i.meshes[name]
		s := Status{Mesh: name, Problem: m.problem}
		if m.current != nil {
			s.NotBefore, s.NotAfter = m.current.Certificate.NotBefore, m.current.end()
			s.Ready = now.Before(s.NotAfter)
		}
		for _, v := range m.svids {
			if v.certificate != nil {
				if s.SVIDs++; s.SVIDsEnd.IsZero() || v.notAfter.Before(s.SVIDsEnd) {
					s.SVIDsEnd = v.notAfter
				}
			} else {
				s.Waiting++
			}
		}
		out = append(out, s)
	}
	return out
}

// Rotations are those of the meshes that have several roots, ordered by mesh.
func (i *Identity) Rotations() []Rotation {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []Rotation
	for name, m := range i.meshes {
		if m.bundle.Len() < 2 { // as a rule, and this is asked for often
			continue
		}
		r := Rotation{Mesh: name}
		for _, c := range m.bundle.Roots() {
			r.Roots = append(r.Roots, sha256.Sum256(c.Raw))
		}
		if m.current != nil {
			r.Issuer = sha256.Sum256(m.current.root.Raw)
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Rotation) int { return cmp.Compare(a.Mesh, b.Mesh) })
	return out
}

func (i *Identity) markLocked(c Change) {
	i.dirty[c] = true
	select {
	case i.changed <- struct{}{}:
	default:
	}
}

func (i *Identity) signal() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// Run renews what is due until ctx ends, and returns nil then.
func (i *Identity) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.wake:
		case <-timer.C:
		}
		for more := true; more && ctx.Err() == nil; {
			more = i.step(ctx)
		}
		timer.Reset(i.arm())
	}
}

// arm is how long Run may wait.
func (i *Identity) arm() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	i.armed = now.Add(longestWait)
	for _, m := range i.meshes {
		i.armed = m.earliest(i.armed)
	}
	return max(0, i.armed.Sub(now))
}
