// Package zones owns what global knows of its zones: who may connect under which name, what each offers to the others, and how far
// it has come with the changes.
//
// What a zone offers goes into the store; all else is kept in memory by the replica of global that has the zone's stream, told to the others
// (peers.go), and ends with it. The package never decides
// what a zone should hold (global/view), never signs anything itself, and speaks to zones through sync/stream alone.
package zones

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/view"
	"github.com/zoneforge/zoneforge/overload"
	"github.com/zoneforge/zoneforge/pki/token"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Store is what zones need of the store; *store.Store is one. Its Run must be running.
type Store interface {
	Snapshot() *store.Snapshot
	Commit(ctx context.Context, c store.Change) (store.Committed, error)
	Wait(ctx context.Context, revision int64) (*store.Snapshot, error)
	Confirm(ctx context.Context) (*store.Snapshot, error)
	Claim(ctx context.Context, name string) (store.Claim, error)
	Release(ctx context.Context, c store.Claim) error
	Away() bool
}

// Signer signs the intermediates of zones: PEM of the intermediate, then of what stands between it and the root. *ca.Authorities
// is one.
type Signer interface {
	SignIntermediate(ctx context.Context, zone, mesh string, csr []byte) ([]byte, error)
}

// Config of a registry. Store, Views and Verify are needed.
type Config struct {
	Store Store
	Views *view.Views
	// Verify gives the zone that a token is for, by the newest keys and revocations in Store; its error is told to the zone. One that
	// wraps token.ErrRevoked or token.ErrUnknownKey ends streams that the token let in before. Safe for concurrent use.
	Verify func(token string) (zone string, err error)
	// StreamRate is how many streams a minute a zone may begin, and half as many at once; 0 sets no bound.
	StreamRate int
	// Signer may be nil; then no certificates are signed.
	Signer Signer
	// Machine has what the Welcome says, and the times of streams.
	Machine kds.GlobalConfig
	// Now is the time of day; time.Now when nil.
	Now func() time.Time
	// Logger may be nil.
	Logger *zap.Logger
}

const (
	// storeTimeout bounds what one call from a stream waits for the store.
	storeTimeout = 30 * time.Second
	// confirmTimeout bounds the question whether a zone that is ahead is right.
	confirmTimeout = 3 * time.Second
	// releaseTimeout bounds what the end of a stream waits for the store, and maxReleases how many ends do.
	releaseTimeout = time.Second
	maxReleases    = 1024
	// askAgain is after how long a zone comes back that somebody must help first.
	askAgain = 5 * time.Second
	// forgetAfter is how long a replica that has gone is listed beside others.
	forgetAfter = 10 * time.Minute
	// maxReplicas bounds the replicas of a zone, those that have gone included, and maxName what one says of itself, in bytes.
	maxReplicas = 64
	maxName     = 256
)

// Registry holds the zones. It is safe for concurrent use.
type Registry struct {
	cfg     Config
	server  *stream.Server
	commits *commits
	begins  *overload.Clients

	mu      sync.Mutex
	zones   map[string]*zone
	changed chan struct{} // closed and replaced when anything below changes
	enabled enabled
	touched uint64 // grows with each change of a replica that is connected here
	// away has the zones that were sent to another replica of global, and sentAway counts them. See SendAway.
	away     map[string]bool
	sentAway uint64

	// unsure has the replicas of global that went without a word, with when.
	unsure map[string]time.Time
	began  time.Time

	releases chan store.Claim // of streams that ended
	moves    chan struct{}    // holds one token when a stream began or ended
}

// zone is what is known of one zone besides the store. Guarded by the registry's mu.
type zone struct {
	replicas map[string]*replica
	repairs  uint64
	// elsewhere counts the repairs by other replicas of global.
	elsewhere map[string]uint64
	// turn admits one report at a time.
	turn chan struct{}
	// unseen are replicas whose reports are stored that were not connected since this replica of global looked first; nil at first.
	unseen map[string]time.Time
	// moved says that its replicas are to be told which of them are connected.
	moved bool
}

func newZone() *zone {
	return &zone{replicas: map[string]*replica{}, elsewhere: map[string]uint64{}, turn: make(chan struct{}, 1)}
}

// New makes a registry and its server of streams; it starts nothing.
func New(cfg Config) (*Registry, error) {
	if cfg.Store == nil || cfg.Views == nil || cfg.Verify == nil {
		return nil, errors.New("zones: store, views and a verifier of tokens are all needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	begins := overload.NewClients(0, 1)
	if cfg.StreamRate > 0 {
		begins = overload.NewClients(time.Minute/time.Duration(cfg.StreamRate), (cfg.StreamRate+1)/2)
	}
	r := &Registry{cfg: cfg, begins: begins, commits: newCommits(cfg.Store, cfg.Now), zones: map[string]*zone{}, changed: make(chan struct{}), away: map[string]bool{},
		unsure: map[string]time.Time{}, began: cfg.Now(), releases: make(chan store.Claim, maxReleases), moves: make(chan struct{}, 1)}
	var err error
	r.server, err = stream.NewServer(stream.ServerConfig{Machine: cfg.Machine, Admission: r, Views: cfg.Views, Zones: r, Log: cfg.Logger})
	return r, err
}

// Server is to be registered with kdsv1.RegisterKDSServer, on a gRPC server made with stream.ServerOptions. To
// stop: its Shutdown, the gRPC server's Stop, then its Wait.
func (r *Registry) Server() *stream.Server { return r.server }

// Changed closes when a status or a receipt may have changed. Take it before reading them.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *Registry) notifyLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Run cuts off zones that are disabled or deleted, or whose tokens are withdrawn, while they are connected, and clears away what deleted ones offered, until ctx
// ends; then it returns nil.
func (r *Registry) Run(ctx context.Context) error {
	snap := r.cfg.Store.Snapshot()
	tick := time.NewTicker(grace / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.age()
			r.retire(ctx)
			r.tellSiblings(true)
			continue
		case <-r.moves:
			r.tellSiblings(false)
			continue
		case c := <-r.releases:
			r.release(ctx, c)
			continue
		case <-snap.Stale():
		}
		seen := snap.Revision()
		snap = r.cfg.Store.Snapshot()
		// Whether or not a zone is connected to ask for it: what is left behind for long must be made from scratch.
		r.cfg.Views.Stable()
		r.mu.Lock()
		r.notifyLocked()
		r.mu.Unlock()
		keys, ok := snap.Since(seen)
		if !ok {
			keys = r.keys()
		}
		if !ok || slices.ContainsFunc(keys, func(k resource.Key) bool {
			return k.Kind == kindSigningKey || k.Kind == kindRevokedToken || k.Kind == kindRemovedZone
		}) {
			r.server.Recheck()
		}
		for _, k := range keys {
			if k.Kind != kindZone || view.Enabled(snap, k.Name) {
				continue
			}
			if _, exists := snap.Get(k); exists {
				r.server.Refuse(k.Name, disabled(k.Name))
				continue
			}
			r.server.Refuse(k.Name, kds.Verdict{Code: kdsv1.Refusal_CODE_UNAVAILABLE, RetryAfter: askAgain, Reason: fmt.Sprintf(
				"Zone %s was deleted: `zoneforge token zone` makes a token that lets it in again; to keep it out for a while, disable it instead", k.Name)})
			r.clear(ctx, snap, k.Name)
		}
	}
}

// age wakes those who follow receipts when a rejection stands, which weighs more as time passes.
func (r *Registry) age() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, z := range r.zones {
		for _, rep := range z.replicas {
			if rep.connected() && len(rep.status.GetNacks()) > 0 {
				r.notifyLocked()
				return
			}
		}
	}
}

// keys of the Zones that are known here.
func (r *Registry) keys() (out []resource.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.zones {
		out = append(out, zoneKey(name))
	}
	slices.SortFunc(out, resource.Key.Compare)
	return out
}

// clear deletes what a deleted zone offered. Should the zone be back meanwhile, all of it stays.
func (r *Registry) clear(ctx context.Context, snap *store.Snapshot, name string) {
	keys, _ := r.cfg.Views.Offers(name)
	if len(keys) == 0 {
		return
	}
	never := int64(0)
	ops := []store.Op{{Key: zoneKey(name), Delete: true, IfRevision: &never}}
	for _, k := range keys {
		if e, ok := snap.Get(k); ok {
			ops = append(ops, store.Op{Key: k, Delete: true, IfRevision: &e.Revision})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	_, err := r.cfg.Store.Commit(ctx, store.Change{Author: author(name), Message: "the zone was deleted", Time: r.cfg.Now(), Ops: ops, Internal: true})
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrConflict) {
		r.cfg.Logger.Warn("offers of a deleted zone are still stored", zap.String("zone", name), zap.Error(err))
	}
}

const (
	kindZone         = "Zone"
	kindSigningKey   = "SigningKey"
	kindRevokedToken = "RevokedToken"
	kindRemovedZone  = "RemovedZone"
)

func zoneKey(name string) resource.Key { return resource.Key{Kind: kindZone, Name: name} }

func author(zone string) string { return "zone " + zone }

func disabled(zone string) kds.Verdict {
	return kds.Verdict{Code: kdsv1.Refusal_CODE_DISABLED, RetryAfter: askAgain, Reason: fmt.Sprintf(
		"Zone %s is disabled: apply it with enabled: true to let the zone in", zone)}
}

// Authenticate finds the zone of a token.
func (r *Registry) Authenticate(_ context.Context, bearer string) (string, kds.Verdict) {
	if bearer == "" {
		return "", kds.Verdict{Code: kdsv1.Refusal_CODE_UNAUTHENTICATED,
			Reason: "no zone token was sent: make one with zoneforge token zone and give its file to the zone"}
	}
	name, err := r.cfg.Verify(bearer)
	if err != nil {
		return "", invalid(err)
	}
	if v := resource.Validate(&resource.Resource{Key: zoneKey(name), Spec: &meshv1.Zone{}}); len(v) > 0 {
		return name, kds.Verdict{Code: kdsv1.Refusal_CODE_WRONG_ZONE, Reason: fmt.Sprintf("the token's zone: %s; %s", v[0].Message, v[0].Hint)}
	}
	return name, kds.Verdict{}
}

// Withdrawn is stream.Admission's.
func (r *Registry) Withdrawn(bearer string) kds.Verdict {
	if _, err := r.cfg.Verify(bearer); errors.Is(err, token.ErrRevoked) || errors.Is(err, token.ErrUnknownKey) {
		return invalid(err)
	}
	return kds.Verdict{}
}

func invalid(err error) kds.Verdict {
	return kds.Verdict{Code: kdsv1.Refusal_CODE_UNAUTHENTICATED,
		Reason: fmt.Sprintf("the zone token is not valid: %v: make another with zoneforge token zone", err)}
}

// Open admits a stream. The first one of a zone makes its Zone.
func (r *Registry) Open(ctx context.Context, name string, h *kdsv1.Hello) (stream.Session, kds.Verdict) {
	// A stream costs writes to the store.
	if wait := r.begins.Ask(name, r.cfg.Now()); wait > 0 {
		return nil, kds.Verdict{Code: kdsv1.Refusal_CODE_UNAVAILABLE, RetryAfter: wait, Reason: fmt.Sprintf(
			"zone %s begins streams too often: find out what ends them, or set a larger stream-rate of global", name)}
	}
	if v := r.enter(ctx, name); v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		return nil, v
	}
	held, err := kds.PositionFrom(h.GetPosition())
	if len(h.GetReplica()) > maxName || len(h.GetIdentity()) > maxName || len(h.GetVersion()) > maxName {
		err = fmt.Errorf("replica, identity and version have at most %d bytes", maxName)
	}
	if err != nil {
		return nil, kds.Verdict{Code: kdsv1.Refusal_CODE_BAD_FRAME, Reason: err.Error()}
	}
	problem, v := r.current(ctx, name, held)
	if v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		return nil, v
	}
	// Before the claim too, which would disturb the other cluster.
	if v := r.taken(name, h); v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		return nil, v
	}
	claim, offered := r.claim(ctx, name, h.GetReplica())
	now := r.cfg.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	z := r.zones[name]
	if z == nil {
		z = newZone()
		r.zones[name] = z
	}
	if v := z.taken(name, h); v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		return nil, v
	}
	rep := z.replicas[h.GetReplica()]
	if rep == nil || rep.identity != h.GetIdentity() || rep.held.Epoch != held.Epoch {
		rep = &replica{name: h.GetReplica(), identity: h.GetIdentity()}
	}
	if !z.forget(rep, now) {
		return nil, kds.Verdict{Code: kdsv1.Refusal_CODE_UNAVAILABLE, RetryAfter: askAgain, Reason: fmt.Sprintf(
			"%d replicas of zone %s are connected already: stop one", maxReplicas, name)}
	}
	s := &session{r: r, zone: name, z: z, rep: rep, claim: claim}
	s.seen.Store(now.UnixNano())
	z.replicas[rep.name] = rep
	rep.session, rep.peer, rep.stream, rep.since, rep.version, rep.held = s, "", h.GetStream(), now, h.GetVersion(), held
	rep.rejected, rep.problem = nil, problem
	r.touched++
	rep.touched = r.touched
	r.notifyLocked()
	r.movedLocked(z)
	r.cfg.Logger.Info("zone connected", zap.String("zone", name), zap.String("replica", rep.name), zap.Uint64("revision", held.Revision))
	return s, kds.Verdict{Offered: offered}
}

// HeldOff counts the streams that were refused because their zone began too many.
func (r *Registry) HeldOff() uint64 { return r.begins.Refused() }

func (r *Registry) taken(name string, h *kdsv1.Hello) kds.Verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	if z := r.zones[name]; z != nil {
		return z.taken(name, h)
	}
	return kds.Verdict{}
}

// taken refuses a second cluster under one name, and a stream that was waiting for the store while its replica gave it up and began a newer
// one, which it must not displace.
func (z *zone) taken(name string, h *kdsv1.Hello) kds.Verdict {
	for _, other := range z.sorted() {
		if other.connected() && other.identity != h.GetIdentity() {
			return kds.Verdict{Code: kdsv1.Refusal_CODE_DUPLICATE_ZONE, RetryAfter: askAgain, Reason: fmt.Sprintf(
				"another cluster (replica %q, connected since %s) is zone %s already: give this one a name and a token of its own, or stop the other",
				other.name, other.since.UTC().Format(time.RFC3339), name)}
		}
	}
	if rep := z.replicas[h.GetReplica()]; rep != nil && rep.session != nil && h.GetStream() > 0 && h.GetStream() < rep.stream {
		return kds.Verdict{Code: kdsv1.Refusal_CODE_UNAVAILABLE, Reason: fmt.Sprintf("replica %q of zone %s has a newer stream", rep.name, name)}
	}
	return kds.Verdict{}
}

// claim takes over what the zone's replica offers, so that no stream from before writes over it, and says what of the zone's offers
// is stored. While the store is away neither can be said: the zone reports all then, which is claimed and stored when it is back.
func (r *Registry) claim(ctx context.Context, name, replica string) (store.Claim, *resource.Digest) {
	if r.cfg.Store.Away() {
		return store.Claim{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	claim, err := r.cfg.Store.Claim(ctx, claimOf(name, replica))
	if err != nil {
		return store.Claim{}, nil
	}
	offered := r.cfg.Views.Offered(name, replica)
	return claim, &offered
}

func claimOf(zone, replica string) string {
	return "zone/" + url.PathEscape(zone) + "/" + url.PathEscape(replica)
}

func (r *Registry) release(ctx context.Context, c store.Claim) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	if err := r.cfg.Store.Release(ctx, c); err != nil {
		r.cfg.Logger.Debug("claim of an ended stream stays", zap.Error(err))
	}
}

// current refuses a zone that holds what this replica has not heard of, unless etcd confirms that there is nothing newer: a replica that
// was paused, or is cut off from etcd, must not send a zone back. What etcd never had, or lost, is the zone's problem until the store
// has something newer.
func (r *Registry) current(ctx context.Context, name string, held kds.Position) (problem string, v kds.Verdict) {
	ahead := func(snap *store.Snapshot) bool {
		return held.Epoch != "" && (!snap.Follows(held.Epoch) || held.Epoch == snap.Epoch() && held.Revision > uint64(snap.Revision()))
	}
	if !ahead(r.cfg.Store.Snapshot()) {
		return "", kds.Verdict{}
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	snap, err := r.cfg.Store.Confirm(ctx)
	if err != nil {
		return "", kds.Verdict{Code: kdsv1.Refusal_CODE_UNAVAILABLE, Reason: "this replica of global is behind the zone, and its store does not answer: " +
			"the zone goes to another replica by itself"}
	}
	if !ahead(snap) {
		return "", kds.Verdict{}
	}
	r.cfg.Logger.Warn("zone holds what the store never had, or lost", zap.String("zone", name), zap.String("epoch", held.Epoch),
		zap.Uint64("revision", held.Revision), zap.Int64("store", snap.Revision()))
	return fmt.Sprintf("it holds revision %d of epoch %s, which the store, at revision %d of epoch %s, never had or lost: it is given what the store has "+
		"once that is newer", held.Revision, held.Epoch, snap.Revision(), snap.Epoch()), kds.Verdict{}
}

// forget drops replicas that went long ago, and if need be those that went first, and reports whether there is room for one.
func (z *zone) forget(one *replica, now time.Time) bool {
	var gone []*replica
	room := maxReplicas
	for _, rep := range z.sorted() {
		if rep.name == one.name {
			continue
		}
		room--
		if !rep.connected() {
			gone = append(gone, rep)
		}
	}
	slices.SortStableFunc(gone, func(a, b *replica) int { return a.since.Compare(b.since) })
	for _, rep := range gone {
		if room <= 0 || now.Sub(rep.since) > forgetAfter {
			delete(z.replicas, rep.name)
			room++
		}
	}
	return room > 0
}

// enter makes sure that there is a Zone of the name that is not disabled.
func (r *Registry) enter(ctx context.Context, name string) kds.Verdict {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	key, never := zoneKey(name), int64(0)
	for {
		snap := r.cfg.Store.Snapshot()
		if _, ok := snap.Get(key); ok {
			if !view.Enabled(snap, name) {
				return disabled(name)
			}
			return kds.Verdict{}
		}
		done, err := r.cfg.Store.Commit(ctx, store.Change{
			Author: author(name), Message: "the zone connected for the first time", Time: r.cfg.Now(),
			Ops: []store.Op{{Key: key, Put: &resource.Resource{Key: key, Spec: &meshv1.Zone{}}, IfRevision: &never}},
		})
		if err == nil {
			_, err = r.cfg.Store.Wait(ctx, done.Revision)
		} else if errors.Is(err, store.ErrConflict) {
			// Another replica made it, which the next snapshot shows.
			err = newer(ctx, snap)
		}
		if err != nil {
			if ctx.Err() == nil {
				r.cfg.Logger.Warn("zone could not be made", zap.String("zone", name), zap.Error(err))
			}
			return kds.Verdict{Code: kdsv1.Refusal_CODE_UNAVAILABLE, Reason: "global's store does not answer: the zone tries again by itself"}
		}
	}
}

// newer waits for a state after snap.
func newer(ctx context.Context, snap *store.Snapshot) error {
	select {
	case <-snap.Stale():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no newer state of the store came: %w", ctx.Err())
	}
}
