package zone

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/overload"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/identity"
	"github.com/zoneforge/zoneforge/zone/state"
)

const (
	// minHold and maxHold bound how long changes are gathered after work was done; the first change after a rest waits for
	// nothing.
	minHold, maxHold = time.Millisecond, 8 * time.Millisecond
	// statusHold spaces what is reported upward.
	statusHold = 3 * time.Millisecond
	// tidyEvery is how often what nobody uses is forgotten.
	tidyEvery = time.Minute
	// restAfter is how long nothing has to happen until memory that is free is given back.
	restAfter = 15 * time.Second
)

// core is the one owner of the zone's state. All but inbox, keys and metrics is for run's goroutine alone.
type core struct {
	zone     string
	version  string
	log      *zap.Logger
	inbox    *inbox
	state    *state.State
	xds      *server.Server
	identity *identity.Identity
	admitted *admission.Admission
	begins   *overload.Clients
	refusals *refusals
	keys     *keys
	files    *registrar
	report   *reporter
	checkups *checkups
	siblings *siblings // nil for a zone that runs in one replica
	metrics  *metrics

	proxies  map[string]*proxy
	restored map[string]*proxy
	// coming counts the streams that began and are not taken yet.
	coming map[string]int
	// revision counts what was given to proxies, endpointRevision what was given of endpoints.
	revision, endpointRevision uint64
	revisions                  revisions
	// applied is the revision of a delta that isn't configuration yet.
	applied *uint64
	// secrets holds resources by mesh and name, and usersOf the proxies that have them.
	secrets map[secretKey]*sealed
	usersOf map[secretKey]map[string]bool
	// renew are proxies of which only secrets changed.
	renew map[string]bool
	// meshErrors say which TrustBundle can't be used.
	meshErrors map[string]string
	// troubled are the proxies that refused something, or that could not be configured.
	troubled map[string]bool
	// settled counts the proxies that have everything.
	settled   int
	changed   bool // since the last status
	graceEnds <-chan time.Time
	grace     time.Duration
	// back is when the last of the proxies known from disk came back.
	back time.Time
	// returned is called when those are back, or not waited for any more; nil when nobody wants to know, or was told.
	returned func()
	// blank is not nil after the state was lost, until the grace ends: see there.
	blank       *blank
	heldRecords int
	// rests holds a token when nothing has happened for restAfter.
	rests chan struct{}
}

// keys hands the newest keys of tokens to admission, on any goroutine.
type keys struct {
	current atomic.Pointer[federationv1.VerificationKeys]
}

// VerificationKeys is nil while none are known.
func (k *keys) VerificationKeys() *federationv1.VerificationKeys { return k.current.Load() }

// mergeKeys joins the records, of which there is one as a rule.
func mergeKeys(all []*federationv1.VerificationKeys) *federationv1.VerificationKeys {
	if len(all) == 0 {
		return nil
	}
	out := &federationv1.VerificationKeys{}
	for _, k := range all {
		out.Keys = append(out.Keys, k.GetKeys()...)
		out.Revoked = append(out.Revoked, k.GetRevoked()...)
	}
	return out
}

// load takes what the disk holds, before anything is served. good are the last versions that could be used of records that can't.
func (c *core) load(set *kds.Set, good []*kdsv1.Record, at kds.Position, registrations []disk.Registration) {
	var all []*kdsv1.Record
	set.Each("", func(_ resource.Key, r *kdsv1.Record) bool {
		all = append(all, r)
		return true
	})
	c.state.Apply(good, nil, false)
	for _, r := range c.state.ApplyRead(readAll(all, state.Read), nil, true) {
		c.warnRejected(at.Revision, r)
	}
	var first *pending
	if at.Epoch != "" {
		c.revisions.begin(at.Epoch)
		first = c.revisions.take(at.Revision)
		first.known = true
	}
	type reading struct {
		restored
		err error
	}
	read := func(r disk.Registration) reading { in, err := c.files.read(r); return reading{in, err} }
	for i, in := range readAll(registrations, read) {
		r := registrations[i]
		if in.err != nil {
			c.log.Warn("known endpoint is not used", zap.String("proxy", r.Key), zap.Error(in.err))
			c.files.remove(r.Key)
			continue
		}
		if in.document != nil {
			c.admitted.Know(*in.document, in.resource)
		}
		c.state.Register(in.Proxy, false)
		p := &proxy{id: in.ID, since: r.Seen}
		// What the zone held before it stopped is live again when those proxies are back.
		if first != nil {
			p.debts = owe(p.debts, debt{to: first, config: 1})
		}
		c.restored[in.ID] = p
	}
	c.flush()
}

// readAll reads what is on the disk on all processors: a zone that starts has nothing else to do.
func readAll[From, To any](all []From, read func(From) To) []To {
	readings := make([]To, len(all))
	var reading sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		reading.Go(func() {
			for i := w; i < len(all); i += workers {
				readings[i] = read(all[i])
			}
		})
	}
	reading.Wait()
	return readings
}

// run owns the state until ctx ends.
func (c *core) run(ctx context.Context, grace time.Duration) {
	graceTimer, tidy := time.NewTimer(grace), time.NewTicker(tidyEvery)
	defer graceTimer.Stop()
	defer tidy.Stop()
	c.graceEnds, c.grace = graceTimer.C, grace
	longest := time.Now().Add(mostGraces * grace)
	hold, status, rest := time.NewTimer(0), time.NewTimer(0), time.NewTimer(restAfter)
	defer hold.Stop()
	defer status.Stop()
	defer rest.Stop()
	var holding, statusDue bool
	<-hold.C
	<-status.C
	// Also an empty offer is said: global may hold what this zone offered in an earlier life.
	c.offer()
	c.inbox.signal()
	for {
		wake, secrets := c.inbox.wake, c.identity.Changed()
		if holding {
			wake, secrets = nil, nil
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-secrets:
		case <-hold.C:
			holding = false
			continue
		case <-rest.C:
			select {
			case c.rests <- struct{}{}:
			default: // it was not noticed yet that it rested before
			}
			continue
		case <-c.graceEnds:
			now := time.Now()
			if more := max(c.blank.more(grace, now), c.returning(now, longest)); more > 0 {
				graceTimer.Reset(more)
				c.graceEnds = graceTimer.C // it may have been the end after a pause
				continue
			}
			if c.siblings.parted(now) {
				c.endBlank()
				graceTimer.Reset(partedEvery)
				c.graceEnds = graceTimer.C
				continue
			}
			c.endGrace()
		case <-tidy.C:
			c.tidy()
			continue
		case <-status.C:
			statusDue = false
			if c.changed {
				c.changed = false
				c.report.setStatus(c.status())
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		began := time.Now()
		events, progress := c.inbox.take()
		for _, e := range events {
			if e.connects != "" {
				c.coming[e.connects]++
			}
		}
		for _, e := range events {
			if e.connects != "" {
				c.coming[e.connects]--
			}
			e.run()
		}
		clear(c.coming)
		for id, p := range progress {
			c.progressed(id, p)
		}
		for _, change := range c.identity.Take() {
			c.secretChanged(change)
		}
		c.flush()
		if len(c.restored) == 0 {
			c.allReturned()
		}
		took := time.Since(began)
		c.metrics.flush.Observe(took.Seconds())
		rest.Reset(restAfter)
		holding = true
		hold.Reset(min(max(took, minHold), maxHold))
		if c.changed && !statusDue {
			statusDue = true
			status.Reset(statusHold)
		}
	}
}

// rest calls each time that nothing has happened for a while, until ctx ends.
func (c *core) rest(ctx context.Context, each func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.rests:
			if each != nil {
				each()
			}
		}
	}
}

// apply takes a delta that is on the disk; it is configuration after the next flush.
func (c *core) apply(a *kds.Apply) []*kdsv1.Rejection {
	rejected := c.state.Apply(a.Upserts, a.Deletes, a.Snapshot)
	for _, r := range rejected {
		c.warnRejected(a.Position.Revision, r)
	}
	c.revisions.begin(a.Position.Epoch)
	if c.siblings != nil {
		c.siblings.at.Store(&a.Position)
	}
	c.applied, c.changed = &a.Position.Revision, true
	c.heldRecords = int(a.Position.Digest.Count())
	return rejected
}

func (c *core) warnRejected(revision uint64, r *kdsv1.Rejection) {
	k := r.GetKey()
	c.log.Warn("record is not used", zap.String("kind", k.GetKind()), zap.String("mesh", k.GetMesh()), zap.String("name", k.GetName()),
		zap.Uint64("revision", revision), zap.String("reason", r.GetReason()))
}

// flush turns all that changed into configuration: endpoints before the clusters that name them, and proxies before endpoints
// that nobody needs any more.
func (c *core) flush() {
	d := c.state.Take()
	var revision *pending
	if c.applied != nil {
		revision, c.applied = c.revisions.take(*c.applied), nil
	}
	for _, name := range d.Meshes {
		c.setMesh(name)
	}
	if len(d.Meshes) > 0 {
		// A new trust bundle is part of the revision that brought it.
		for _, change := range c.identity.Take() {
			c.secretChanged(change)
		}
	}
	if d.Keys {
		c.keys.current.Store(mergeKeys(c.state.VerificationKeys()))
		c.blank.heardOfKeys(time.Now())
		c.dropRevoked()
	}
	send := c.renew
	c.renew = map[string]bool{}
	for _, id := range d.Proxies {
		c.build(id)
		send[id] = true
	}
	for id := range send {
		p := c.proxies[id]
		if p == nil || revision == nil {
			continue
		}
		d := debt{to: revision, config: c.revision + 1}
		if p.err != nil {
			d.config = unpayable
		}
		p.debts = owe(p.debts, d)
	}
	work := c.state.TakeWork()
	// What proxies that were built need for the first time may be by the revision, too.
	more := c.state.TakeEndpoints()
	gone := c.endpoints(append(d.Endpoints, more...), append(d.Applied, more...), revision, &work)
	c.metrics.work(work)
	ids := make([]string, 0, len(send))
	for id := range send {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	// One revision for all that goes out together: every debt of this flush is to it.
	if len(ids) > 0 {
		c.revision++
	}
	for _, id := range ids {
		c.give(id)
	}
	if len(gone) > 0 {
		c.xds.SetEndpoints(c.endpointRevision, gone)
	}
	if len(d.Proxies)+len(d.Endpoints)+len(ids) > 0 {
		c.changed = true
	}
	if c.revisions.settle(time.Now()) {
		c.changed = true
	}
	if d.Offer {
		c.offer()
	}
}

func (c *core) setMesh(name string) {
	spec, bundle := c.state.Mesh(name)
	if spec == nil {
		c.identity.RemoveMesh(name)
		delete(c.meshErrors, name)
		return
	}
	if err := c.identity.SetMesh(name, spec, bundle); err != nil {
		c.meshErrors[name] = err.Error()
		c.log.Warn("record is not used", zap.String("kind", "TrustBundle"), zap.String("mesh", name), zap.String("reason", err.Error()))
		return
	}
	delete(c.meshErrors, name)
}

// endpoints builds and sets those of the names that are wanted, and returns the others for removal. Proxies that have any of those that
// the revision changed owe an acknowledgement for it. For those that changed by themselves nobody does: what this zone offers comes back
// from global as a revision soon after, so while endpoints come and go there is one in nearly each flush.
func (c *core) endpoints(names, by []string, revision *pending, work *state.Work) (gone map[string]*xds.Resource) {
	slices.Sort(names)
	changed := map[string]*xds.Resource{}
	gone = map[string]*xds.Resource{}
	for _, name := range slices.Compact(names) {
		e, err := c.state.BuildEndpoints(name)
		if err == nil && e == nil {
			gone[name] = nil
			continue
		}
		var r *xds.Resource
		if err == nil {
			r, err = xds.BuildEndpoints(e)
		}
		if err == nil && c.blank.keeps(e) {
			continue
		}
		if err != nil {
			// The last good ones stay: an emptied cluster would be worse.
			c.log.Error("endpoints can't be built", zap.String("name", name), zap.Error(err))
			continue
		}
		changed[name] = r
		work.Add(r)
	}
	if len(changed) == 0 {
		return gone
	}
	c.endpointRevision++
	c.metrics.endpoints.Add(float64(len(changed)))
	if revision == nil {
		by = nil
	}
	owed := map[string]bool{}
	for _, name := range by {
		if changed[name] != nil {
			owed[name] = true
		}
	}
	if len(owed) > 0 {
		c.xds.Heed(c.endpointRevision) // debts to it are paid by acknowledgements
	}
	differ := c.xds.SetEndpoints(c.endpointRevision, changed)
	if len(owed) > 0 {
		for _, name := range differ {
			if !owed[name] {
				continue
			}
			for _, id := range c.state.Users(name) {
				if p := c.proxies[id]; p != nil {
					p.debts = owe(p.debts, debt{to: revision, endpoints: c.endpointRevision})
				}
			}
		}
	}
	return gone
}

const (
	// lull is for how long no proxy comes back when those that will are back; mostGraces bounds how much longer the grace is for that.
	lull, mostGraces = 5 * time.Second, 5
)

// returning is by how much the grace is longer, as proxies still come back one after another: when ten thousand do at once, those that are
// last must not lose their endpoints to how long the others took. Each of them makes it longer once.
func (c *core) returning(now, longest time.Time) time.Duration {
	if len(c.restored) == 0 || now.After(longest) {
		return 0
	}
	return c.back.Add(lull).Sub(now)
}

// allReturned tells, once, that no more proxies of those known from disk are waited for.
func (c *core) allReturned() {
	if c.returned != nil {
		c.returned()
		c.returned = nil
	}
}

// endGrace lets go of the endpoints whose proxies did not come back.
func (c *core) endGrace() {
	c.graceEnds = nil
	for id, p := range c.restored {
		if !c.state.Live(id) {
			c.state.Unregister(id)
			c.files.remove(id)
			if c.siblings != nil {
				c.siblings.gossip.Delete(proxyPart + id)
			}
			c.log.Info("proxy did not come back", zap.String("proxy", id))
		}
		forgive(p.debts)
	}
	clear(c.restored)
	c.allReturned()
	c.admitted.Forget()
	c.changed = true
	c.endBlank()
}

// tidy forgets resources and identities that no proxy has.
func (c *core) tidy() {
	services := map[string][]string{}
	for _, name := range c.state.Meshes() {
		services[name] = nil
	}
	for _, p := range c.proxies {
		if p.built == nil {
			continue
		}
		services[p.mesh()] = append(services[p.mesh()], identity.Services(p.built.Secrets)...)
	}
	c.state.Tidy()
	for name, list := range services {
		if name != "" {
			slices.Sort(list)
			c.identity.Retain(name, slices.Compact(list))
		}
	}
	for key := range c.secrets {
		if len(c.usersOf[key]) == 0 {
			delete(c.secrets, key)
		}
	}
}

// status is what global is told of this zone's proxies.
func (c *core) status() *kdsv1.Status {
	s := &kdsv1.Status{Revision: c.revisions.taken, Proxies: uint32(len(c.proxies)), Acked: uint32(c.settled)}
	for id := range c.troubled {
		s.Nacks = append(s.Nacks, c.proxies[id].refusals()...)
	}
	slices.SortFunc(s.Nacks, func(a, b *kdsv1.Status_ProxyNack) int {
		return cmp.Or(b.GetTime().AsTime().Compare(a.GetTime().AsTime()), cmp.Compare(a.GetMesh(), b.GetMesh()), cmp.Compare(a.GetProxy(), b.GetProxy()),
			cmp.Compare(a.GetTypeUrl(), b.GetTypeUrl()), cmp.Compare(a.GetError(), b.GetError()))
	})
	s.Nacks = s.Nacks[:min(len(s.Nacks), maxNacks)]
	s.Rejected = c.state.Rejected()
	for _, mesh := range c.state.Meshes() {
		if reason := c.meshErrors[mesh]; reason != "" {
			s.Rejected = append(s.Rejected, &kdsv1.Rejection{Key: &kdsv1.Key{Kind: "TrustBundle", Mesh: mesh, Name: mesh}, Reason: reason})
		}
	}
	s.Rejected = s.Rejected[:min(len(s.Rejected), maxRejected)]
	s.Times = kds.TimesOf(c.revisions.live)
	s.Trust = c.trust()
	c.metrics.observe(c, len(s.Nacks), len(s.Rejected))
	return s
}

// Bounds of what a status holds.
const (
	maxNacks    = 100
	maxRejected = 100
)
