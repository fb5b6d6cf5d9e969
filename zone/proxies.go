package zone

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/pki"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/identity"
	"github.com/zoneforge/zoneforge/zone/proxyir"
	"github.com/zoneforge/zoneforge/zone/state"
)

// proxy is one with a stream at this replica.
type proxy struct {
	id      string
	who     *admission.Proxy
	streams int
	since   time.Time

	// built is the last good build, err why there is no newer one.
	built *state.Built
	// envoy is the version of the proxy.
	envoy string
	err   error
	errAt moment
	// waiting says that a secret is missing, without which Envoy would be given nothing it could use.
	waiting bool
	// wanted is the revision given last, 0 before the first.
	wanted   uint64
	progress server.Progress
	nackedAt map[string]moment
	// refused are the modules that its Envoy can't run, sorted.
	refused []string
	debts   []debt
	settled bool
	// stamp is that of what other replicas were told of it last, 0 for nothing.
	stamp uint64
}

// moment is when something was first seen, and at which revision of global.
type moment struct {
	at       time.Time
	revision uint64
}

// refusal names what a proxy refused: the same resource in another version is another refusal.
func refusal(n server.Nack) string {
	return n.TypeURL + "\x00" + strings.Join(n.Versions, ",") + "\x00" + n.Message
}

func (p *proxy) mesh() string {
	if p.who == nil {
		return ""
	}
	return p.who.Mesh
}

type secretKey struct{ mesh, name string }

// sealed is a secret's resource with what it was made of.
type sealed struct {
	of       ir.Secret
	resource *xds.Resource
	// roots are the fingerprints of those in a bundle.
	roots [][32]byte
}

// door lets proxies in; its methods are called on the goroutines of streams.
type door struct {
	core      *core
	admission *admission.Admission
}

// Connect admits a proxy and tells the owner of the state.
func (d *door) Connect(ctx context.Context, node *server.Node, token string) (server.ProxyID, error) {
	p, err := d.admission.Admit(ctx, node, token)
	if err == nil {
		err = d.core.holdOff(p.ID)
	}
	if err == nil {
		version := ""
		if v := node.GetUserAgentBuildVersion().GetVersion(); v != nil {
			version = fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
		}
		err = d.core.inbox.admit(p, func() { d.core.connect(p, version) })
	}
	if err != nil {
		d.core.refusal(zap.String("proxy", shorten(node.GetId())), err)
		return "", err
	}
	return server.ProxyID(p.ID), nil
}

// stranger ends a stream without a good token before any of its requests is read, as they may be large.
func (c *core) stranger(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := c.admitted.Bearer(server.Bearer(stream.Context())); err != nil {
		from := ""
		if p, ok := peer.FromContext(stream.Context()); ok {
			from = p.Addr.String()
			if host, _, err := net.SplitHostPort(from); err == nil {
				from = host // the port tells nothing
			}
		}
		c.refusal(zap.String("address", from), err)
		return status.Errorf(codes.Unauthenticated, "the proxy was not accepted: %v", err)
	}
	return next(srv, stream)
}

// refusal counts a stream that is not let in, and tells of some: whoever comes in a loop must not fill the log.
func (c *core) refusal(who zap.Field, err error) {
	c.metrics.refused.Inc()
	say := c.log.Warn
	if !c.refusals.tells(who.String, err, time.Now()) {
		say = c.log.Debug
	}
	say("proxy refused", who, zap.Error(err))
}

// shorten bounds what a stranger puts into the log.
func shorten(id string) string { return strings.ToValidUTF8(id[:min(len(id), 400)], "") }

// Disconnect ends one stream.
func (d *door) Disconnect(id server.ProxyID) {
	d.core.inbox.post(event{run: func() { d.core.disconnect(string(id)) }})
}

// OnProgress keeps the newest progress of a proxy.
func (d *door) OnProgress(id server.ProxyID, p server.Progress) {
	d.core.inbox.postProgress(string(id), p)
}

func (c *core) connect(who *admission.Proxy, envoy string) {
	p := c.proxies[who.ID]
	kept := false // on the disk, as it is
	if p == nil {
		p = &proxy{id: who.ID, since: time.Now()}
		c.proxies[who.ID] = p
		if r := c.restored[who.ID]; r != nil {
			p.debts, kept = r.debts, who.Known
			delete(c.restored, who.ID)
			c.back = time.Now()
		}
		if newest := c.revisions.newest(); newest != nil {
			// It has to take what is on its way, too.
			p.debts = owe(p.debts, debt{to: newest, config: c.revision + 1})
		}
		for i := range p.debts {
			p.debts[i].config = max(p.debts[i].config, c.revision+1)
		}
		c.log.Info("proxy connected", zap.String("proxy", who.ID))
	}
	p.streams++
	again := p.who != nil && p.who.Hash == who.Hash && p.who.LogPipe == who.LogPipe && slices.Equal(p.who.Modules, who.Modules)
	if again {
		same := *who // and no second copy of its document
		same.Resource, same.Dataplane, same.ZoneIngress = p.who.Resource, p.who.Dataplane, p.who.ZoneIngress
		who = &same
	}
	p.who, p.envoy = who, envoy
	c.changed = true
	if again {
		if known, _ := c.state.Proxy(who.ID); c.siblings != nil && !known.Opening {
			c.keep(who) // it may have been elsewhere meanwhile
		}
		return
	}
	// It is an endpoint once it has taken what it listens by: whoever sent requests before would be refused.
	p.refused = nil
	c.register(p)
	if known, _ := c.state.Proxy(who.ID); !known.Opening && !(kept && c.siblings == nil) {
		c.keep(who)
	}
}

// keep notes a proxy that serves on disk, and tells other replicas of it.
func (c *core) keep(who *admission.Proxy) {
	if value := c.files.put(who); value != nil && c.siblings != nil {
		c.proxies[who.ID].stamp = c.siblings.claim(who.ID, value, time.Now())
	}
}

// register tells the state what a proxy presents.
func (c *core) register(p *proxy) {
	who := p.who
	c.state.Register(state.Proxy{ID: who.ID, Mesh: who.Mesh, Name: who.Name, Dataplane: who.Dataplane, ZoneIngress: who.ZoneIngress, LogPipe: who.LogPipe, Modules: who.Modules, Refused: p.refused, Opening: true}, true)
}

// maxRefused bounds how many modules of a proxy are known not to run.
const maxRefused = 1000

// leaveOut has a proxy built without the modules that its Envoy says it can't run: for one it refuses all routes of a table.
func (c *core) leaveOut(p *proxy, refusals []server.Nack) {
	found := slices.Clone(p.refused)
	for _, n := range refusals {
		found = append(found, proxyir.RefusedModules(n.Message)...)
	}
	slices.Sort(found)
	if found = slices.Compact(found); len(found) > len(p.refused) && len(found) <= maxRefused {
		p.refused = found
		c.register(p)
	}
}

// disconnect lets a proxy's endpoints go with its last stream.
func (c *core) disconnect(id string) {
	p := c.proxies[id]
	if p == nil {
		return
	}
	p.streams--
	c.changed = true
	// A new stream that began meanwhile takes over what is known of the proxy.
	if p.streams > 0 || c.coming[id] > 0 {
		return
	}
	c.inbox.unlessConnecting(id, func() {
		c.xds.RemoveProxy(server.ProxyID(id))
		delete(c.proxies, id)
		delete(c.troubled, id)
	})
	if c.proxies[id] != nil {
		return
	}
	forgive(p.debts)
	if p.settled {
		c.settled--
	}
	c.uses(p, nil)
	if c.park(p) {
		return
	}
	c.state.Unregister(id)
	if c.siblings != nil {
		c.siblings.gossip.Delete(proxyPart + id)
		c.siblings.outdate(id, p.stamp)
	}
	if !c.elsewhere(id) {
		c.files.remove(id)
	}
	c.log.Info("proxy disconnected", zap.String("proxy", id))
}

// dropRevoked ends the streams of proxies whose token was revoked.
func (c *core) dropRevoked() {
	for id, p := range c.proxies {
		if p.who != nil && c.admitted.Revoked(p.who) {
			c.log.Warn("proxy's token is revoked", zap.String("proxy", id))
			c.xds.RemoveProxy(server.ProxyID(id))
		}
	}
}

// build makes a proxy's configuration anew; where that fails it keeps what it has.
func (c *core) build(id string) {
	p := c.proxies[id]
	if p == nil {
		return
	}
	built, err := c.state.BuildProxy(id)
	c.metrics.builds.Inc()
	if err != nil {
		if p.err == nil || p.err.Error() != err.Error() {
			p.errAt = moment{time.Now(), c.revisions.taken}
			c.log.Warn("proxy can't be configured", zap.String("proxy", id), zap.Error(err))
		}
		p.err = err
		c.troubled[id] = true
		return
	}
	c.uses(p, built.Secrets)
	p.built, p.err = built, nil
	payable(p.debts, c.revision+1)
	c.look(p)
}

// uses notes which secrets a proxy has instead of those of its last build.
func (c *core) uses(p *proxy, names []string) {
	var before []string
	if p.built != nil {
		before = p.built.Secrets
	}
	if slices.Equal(names, before) {
		return
	}
	for _, name := range before {
		delete(c.usersOf[secretKey{p.mesh(), name}], p.id)
	}
	for _, name := range names {
		key := secretKey{p.mesh(), name}
		if c.usersOf[key] == nil {
			c.usersOf[key] = map[string]bool{}
		}
		c.usersOf[key][p.id] = true
	}
}

// give sends a proxy what was built, once all of its secrets are there.
func (c *core) give(id string) {
	p := c.proxies[id]
	if p == nil {
		return
	}
	c.unsettle(p)
	// Where the newest build failed, the last good one still gets its new secrets.
	if p.built == nil {
		return
	}
	secrets, ready := c.secretsOf(p)
	if p.waiting = !ready; p.waiting {
		return
	}
	p.wanted = c.revision
	c.xds.SetProxy(server.ProxyID(id), c.revision, p.built.Resources, secrets)
}

func (c *core) unsettle(p *proxy) {
	if p.settled {
		p.settled = false
		c.settled--
	}
}

func (c *core) secretsOf(p *proxy) ([]*xds.Resource, bool) {
	names := p.built.Secrets
	if len(names) == 0 {
		return nil, true
	}
	var all []ir.Secret
	if slices.Contains(names, identity.BundleName) {
		own, ready := c.identity.Secrets(p.mesh(), identity.Services(names))
		if !ready {
			return nil, false
		}
		all = append(all, own...)
	}
	for _, name := range names {
		if name != identity.BundleName && len(identity.Services([]string{name})) == 0 {
			s, ok := c.state.Secret(p.mesh(), name)
			if !ok {
				return nil, false
			}
			all = append(all, *s)
		}
	}
	out := make([]*xds.Resource, 0, len(all))
	for _, s := range all {
		key := secretKey{p.mesh(), s.Name}
		have := c.secrets[key]
		if have == nil || have.of.Certificate != s.Certificate || !bytes.Equal(have.of.Bundle, s.Bundle) || !bytes.Equal(have.of.Text, s.Text) {
			r, err := xds.BuildSecret(&s)
			if err != nil {
				c.log.Error("secret can't be built", zap.String("mesh", p.mesh()), zap.String("name", s.Name), zap.Error(err))
				return nil, false
			}
			have = &sealed{of: s, resource: r, roots: pki.Fingerprints(s.Bundle)}
			c.secrets[key] = have
		}
		out = append(out, have.resource)
	}
	return out, true
}

// secretChanged marks the proxies that have the secret.
func (c *core) secretChanged(change identity.Change) {
	if c.changed = true; change.Issuer {
		return
	}
	name := identity.BundleName
	if change.Service != "" {
		name = identity.SVIDName(change.Service)
	}
	for id := range c.usersOf[secretKey{change.Mesh, name}] {
		c.renew[id] = true
	}
}

// progressed takes what a proxy acknowledged or refused.
func (c *core) progressed(id string, progress server.Progress) {
	p := c.proxies[id]
	if p == nil {
		return
	}
	var seen map[string]moment
	if len(progress.Nacks) > 0 {
		seen = map[string]moment{}
	}
	for _, n := range progress.Nacks {
		key := refusal(n)
		at, ok := p.nackedAt[key]
		if !ok {
			at = moment{time.Now(), c.revisions.taken}
			c.metrics.nacks.Inc()
		}
		seen[key] = at
	}
	p.nackedAt, p.progress = seen, progress
	c.leaveOut(p, progress.Nacks)
	if listens(progress) && c.state.Serve(id) {
		c.keep(p.who)
		c.log.Info("proxy serves", zap.String("proxy", id))
	}
	c.look(p)
	p.debts = pay(p.debts, progress.Acked, progress.EndpointsAcked)
	settled := p.wanted > 0 && !p.waiting && p.err == nil && progress.Acked >= p.wanted && len(progress.Nacks) == 0 && len(p.debts) == 0
	if settled != p.settled {
		if p.settled = settled; settled {
			c.settled++
		} else {
			c.settled--
		}
	}
	c.changed = true
}

// listens tells whether a proxy takes what comes for its endpoints: it has all that it was given, or refused something
// else than what it listens by.
func listens(p server.Progress) bool {
	if p.Acked > 0 {
		return true
	}
	for _, n := range p.Nacks {
		if n.TypeURL == xds.TypeCluster || n.TypeURL == xds.TypeListener && !slices.ContainsFunc(n.Names, isOutbound) {
			return false
		}
	}
	return len(p.Nacks) > 0
}

func isOutbound(listener string) bool { return strings.HasPrefix(listener, "outbound:") }

// look notes whether there is something to tell of a proxy.
func (c *core) look(p *proxy) {
	if p.err != nil || len(p.progress.Nacks) > 0 {
		c.troubled[p.id] = true
	} else {
		delete(c.troubled, p.id)
	}
}

// refusals are what Envoy refused, and what this zone could not build for it.
func (p *proxy) refusals() []*kdsv1.Status_ProxyNack {
	var out []*kdsv1.Status_ProxyNack
	name, mesh := p.id, p.mesh()
	if p.who != nil {
		name = p.who.Name
	}
	if p.err != nil {
		out = append(out, &kdsv1.Status_ProxyNack{Mesh: mesh, Proxy: name, Revision: p.errAt.revision, Error: p.err.Error(), Time: timestamppb.New(p.errAt.at)})
	}
	for _, n := range p.progress.Nacks {
		seen := p.nackedAt[refusal(n)]
		out = append(out, &kdsv1.Status_ProxyNack{Mesh: mesh, Proxy: name, TypeUrl: n.TypeURL, Revision: seen.revision,
			Error: fmt.Sprintf("%s: %s", strings.Join(n.Names, ", "), n.Message), Time: timestamppb.New(seen.at)})
	}
	return out
}

// onRevision is the newest revision of global that a proxy has all of.
func (c *core) onRevision(p *proxy) uint64 {
	if len(p.debts) > 0 {
		return max(p.debts[0].to.revision, 1) - 1
	}
	return c.revisions.taken
}

// proxyID is the node's.
func proxyID(kind, mesh, name string) string {
	if mesh == "" {
		return kind + "/" + name
	}
	return kind + "/" + mesh + "/" + name
}

// find looks a proxy up by mesh, "" or "-" for a zone ingress, and name.
func (c *core) find(mesh, name string) *proxy {
	if mesh == "" || mesh == "-" {
		return c.proxies[proxyID("ZoneIngress", "", name)]
	}
	return c.proxies[proxyID("Dataplane", mesh, name)]
}

// present is what a proxy shows of itself.
func (p *proxy) present() *resource.Resource {
	if p.who == nil {
		return nil
	}
	return p.who.Resource
}
