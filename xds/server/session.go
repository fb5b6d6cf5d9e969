package server

import (
	"slices"
	"strconv"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// Nack is one refusal by Envoy.
type Nack struct {
	TypeURL string
	// Names and Versions are parallel, in the order of names; version "" is a removal.
	Names    []string
	Versions []string
	// Message is what Envoy said, cut where it is very long.
	Message string
}

// Bounds of what one stream may make this process keep: bytes of a NACK's message, and names of one type that it subscribes
// to, or says that it has.
const (
	maxMessage = 4 << 10
	maxNames   = 100_000
)

// served are the types in the order of sending: what is referred to comes before what refers.
var served = [types]string{
	xds.TypeCluster, xds.TypeEndpoint, xds.TypeSecret, xds.TypeListener, xds.TypeExtension, xds.TypeRoute,
}

// types is how many there are.
const types = 6

// indexOf is the place of a type in served, -1 for others.
func indexOf(typeURL string) int {
	switch typeURL {
	case xds.TypeCluster:
		return 0
	case xds.TypeEndpoint:
		return 1
	case xds.TypeSecret:
		return 2
	case xds.TypeListener:
		return 3
	case xds.TypeExtension:
		return 4
	case xds.TypeRoute:
		return 5
	}
	return -1
}

// second are the types that refer to clusters, and wait for them.
var second = []string{xds.TypeListener, xds.TypeExtension, xds.TypeRoute}

// session is the protocol state of one stream: requests and snapshots go in, ordered responses come out of Ready. It is
// pure (no goroutine, clock or I/O) and not safe for concurrent use. Both variants of ADS share it; delta.go and
// state.go hold what differs.
//
// Order of sending, each step only when the one before it was acknowledged:
//  1. clusters added or changed, and their endpoints and secrets;
//  2. listeners, extensions and routes added or changed, routes behind others before those;
//  3. listeners removed;
//  4. clusters removed, then endpoints and secrets; each of them only once nothing that the proxy holds, or may hold,
//     refers to it any more.
//
// Routes behind others keep for a while what they lose, as requests may be between the two.
//
// Routes and extensions are never removed: a listener that drains, or an older one that stays because its successor was
// refused, still takes requests by them. The proxy unsubscribes when it is done with them, and then their clusters go.
type session struct {
	// state says that responses carry the state of the world and not what changed.
	state     bool
	want      *snapshot
	endpoints func(name string) *xds.Resource
	endpRev   uint64
	// subs are in the order of served.
	subs [types]subscription
	// kept maps clusters that should go but may still be held to the endpoints that they take, which stay current till then.
	kept map[string]string
	// tails are what tables behind others lost of late.
	tails map[string]*tail
	// worlds are what the proxy may have of its earlier stream, by type; only for state-of-the-world.
	worlds map[string][]*world
	// settled remembers that firstStageSettled said yes and nothing happened since that could make it a no.
	settled bool
	// calm says that the proxy has all that it should but for endpoints, and that nothing of the other types is on its way or wanted: then
	// nothing but endpoints has to be looked at for a change of these.
	calm      bool
	nonce     uint64
	nacks     []Nack
	sent      uint64
	acked     uint64
	endpAcked uint64
	ready     []*response
}

// response is one message to the proxy, in neither variant's form yet.
type response struct {
	typeURL  string
	nonce    string
	revision uint64
	upserts  []*xds.Resource
	removed  []string
	// world is set for the wildcard types of state-of-the-world.
	world *world
}

// size is about that of the message, in bytes, and not less.
func (r *response) size() int {
	bytes := 256 // for all that every message has
	for _, c := range r.contents() {
		bytes += c.Size() + 2*len(c.Name) + 256
	}
	for _, name := range r.removed {
		bytes += len(name) + 16
	}
	return bytes
}

// contents are the resources that it carries.
func (r *response) contents() []*xds.Resource {
	if r.world != nil {
		return r.world.contents
	}
	return r.upserts
}

// newSession makes a session. endpoints looks an EDS resource up among those shared by all proxies.
func newSession(endpoints func(name string) *xds.Resource) *session {
	s := &session{endpoints: endpoints}
	for i := range s.subs {
		s.subs[i].table.kind = uint8(i)
	}
	return s
}

// sub is nil for types that are not served.
func (s *session) sub(typeURL string) *subscription {
	if i := indexOf(typeURL); i >= 0 {
		return &s.subs[i]
	}
	return nil
}

// Handle takes one request of the delta variant. Types that are not served are ignored rather than refused: a proxy whose
// bootstrap asks for one more type must still get the others.
func (s *session) Handle(req *discoveryv3.DeltaDiscoveryRequest) {
	sub := s.sub(req.GetTypeUrl())
	if sub == nil {
		return
	}
	s.calm = s.calm && acknowledgesEndpoints(req)
	s.answer(sub, req.GetResponseNonce(), req.GetErrorDetail() != nil, req.GetErrorDetail().GetMessage())
	s.subscribe(sub, req)
	s.advance()
}

// Acknowledge takes a request of the delta variant that acknowledges endpoints, and nothing else.
func (s *session) Acknowledge(nonce string) {
	s.answer(s.sub(xds.TypeEndpoint), nonce, false, "")
	s.advance()
}

// acknowledgesEndpoints says whether a request is no more than that.
func acknowledgesEndpoints(r *discoveryv3.DeltaDiscoveryRequest) bool {
	return r.GetTypeUrl() == xds.TypeEndpoint && r.GetErrorDetail() == nil && len(r.GetResourceNamesSubscribe())+len(r.GetResourceNamesUnsubscribe())+len(r.GetInitialResourceVersions()) == 0
}

// answer takes an ACK or NACK. Only the nonce in flight confirms or rejects anything.
func (s *session) answer(sub *subscription, nonce string, refused bool, message string) {
	f := sub.inflight
	if f == nil || f.nonce != nonce {
		return
	}
	if !refused {
		sub.acknowledge()
		return
	}
	s.settled = false
	names := sub.reject(message)
	nack := Nack{TypeURL: sub.typeURL(), Names: names, Message: shorten(message, maxMessage)}
	for _, name := range names {
		sent, _ := f.sent.get(name)
		nack.Versions = append(nack.Versions, versionOf(sent))
	}
	sub.inflight = nil
	if len(names) > 0 {
		// A retry that was refused, too, replaces what was known of it.
		s.nacks = slices.DeleteFunc(s.nacks, func(n Nack) bool {
			return n.TypeURL == nack.TypeURL && slices.Equal(n.Names, nack.Names) && slices.Equal(n.Versions, nack.Versions)
		})
		s.nacks = append(s.nacks, nack)
	}
}

// shorten bounds what a proxy says, which goes into logs and up to global.
func shorten(text string, most int) string {
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strings.ToValidUTF8(text, "")
}

// Retry sends the listeners once more that the proxy refused: whether a port is free is nothing that a change of their
// content would tell. Other types depend on their content alone.
func (s *session) Retry() {
	if s.want != nil && s.sub(xds.TypeListener).retry(s.desired) {
		s.advance()
	}
}

// Retriable says whether there is something for Retry, and pending whether the outcome of the last one is still to come.
func (s *session) Retriable() (retriable, pending bool) {
	sub := s.sub(xds.TypeListener)
	return len(sub.rejected) > 0, len(sub.retrying) > 0
}

// SetSnapshot replaces what the proxy should hold. Snapshots between two responses coalesce into the newest.
func (s *session) SetSnapshot(snap *snapshot) {
	old := s.want
	s.want, s.calm = snap, false
	for _, t := range served {
		sub := s.sub(t)
		snap.changed(t, old, func(name string) { sub.reopen(name) })
		if old == nil {
			for r := range sub.table.rows {
				sub.reopen(r.name())
			}
		}
	}
	if old == nil || !snap.same(xds.TypeCluster, old) {
		s.settled = false
	}
	if old != nil {
		s.loseRoutes(old)
		snap.changed(xds.TypeCluster, old, func(cluster string) {
			if name := old.endpointsOf(cluster); name != "" && snap.get(xds.TypeCluster, cluster) == nil {
				s.keep(cluster, name)
			}
		})
	}
	s.advance()
}

// EndpointsChanged says that the shared endpoints are now at the revision and that the names changed.
func (s *session) EndpointsChanged(revision uint64, names []string) {
	s.endpRev = revision
	sub := s.sub(xds.TypeEndpoint)
	sub.open = slices.Grow(sub.open, len(names))
	wanted := false
	for _, name := range names {
		wanted = sub.reopen(name) || wanted
	}
	if !wanted {
		s.updateEndpointProgress()
		return
	}
	if s.calm && sub.inflight != nil {
		return // the acknowledgement has them looked at
	}
	s.advance()
}

// AllEndpointsChanged is EndpointsChanged where too much changed to say what.
func (s *session) AllEndpointsChanged(revision uint64) {
	s.EndpointsChanged(revision, s.sub(xds.TypeEndpoint).table.asks())
}

// onTheirWay is how many bytes of responses are not acknowledged, at most.
func (s *session) onTheirWay() int {
	bytes := 0
	for i := range s.subs {
		sub := &s.subs[i]
		if sub.inflight != nil {
			bytes += sub.inflight.bytes
		}
	}
	return bytes
}

// Ready returns the responses to send, in order, and forgets them.
func (s *session) Ready() []*response {
	out := s.ready
	s.ready = nil
	return out
}

// Names is the largest number of names that the proxy has of one type.
func (s *session) Names() int {
	most := 0
	for i := range s.subs {
		sub := &s.subs[i]
		most = max(most, sub.table.len(), len(sub.open))
	}
	return most
}

// desired is what the proxy may hold of a type under a name. A name that its snapshot does not permit does not exist.
func (s *session) desired(typeURL, name string) *xds.Resource {
	if s.want == nil {
		return nil
	}
	if typeURL != xds.TypeEndpoint {
		if t := s.tails[name]; t != nil && typeURL == xds.TypeRoute {
			return t.whole
		}
		return s.want.get(typeURL, name)
	}
	if !s.want.permits(name) && !s.keeps(name) {
		return nil
	}
	return s.endpoints(name)
}

// keeps says whether a cluster that should go but is still held takes these endpoints.
func (s *session) keeps(name string) bool {
	for _, kept := range s.kept {
		if kept == name {
			return true
		}
	}
	return false
}

// subscribe takes the subscription part of a request, of which most have none.
func (s *session) subscribe(sub *subscription, req *discoveryv3.DeltaDiscoveryRequest) {
	if sub.requested && len(req.GetResourceNamesSubscribe())+len(req.GetResourceNamesUnsubscribe()) == 0 {
		return
	}
	s.settled = false
	if sub.subscribe(req) && s.want != nil {
		for r := range s.want.each(sub.typeURL()) {
			sub.reopen(r.Name)
		}
	}
}

func (s *session) diff(typeURL string) change { return s.sub(typeURL).diff(s.desired) }

// advance sends whatever the order allows now.
func (s *session) advance() {
	// Without a snapshot nothing is known of the proxy, and an empty answer would empty it.
	if s.want == nil {
		return
	}
	if s.calm {
		c := s.diff(xds.TypeEndpoint)
		s.send(xds.TypeEndpoint, c.upserts, c.answers)
		if len(c.removals) == 0 {
			s.updateEndpointProgress()
			return
		}
	}
	clusters := s.diff(xds.TypeCluster)
	s.releaseKept()
	s.send(xds.TypeCluster, clusters.upserts, nil)
	for _, t := range []string{xds.TypeEndpoint, xds.TypeSecret} {
		c := s.diff(t)
		s.send(t, c.upserts, c.answers)
	}
	if s.firstStageSettled() {
		s.sendSecond()
		if s.idle(second...) {
			s.sendRemovals()
		}
	} else {
		for _, t := range second {
			if c := s.diff(t); len(c.answers) > 0 {
				s.send(t, nil, c.answers)
			}
		}
	}
	s.updateProgress()
	if s.calm = s.rests(); s.calm {
		for i := range s.subs {
			if sub := &s.subs[i]; sub.typeURL() != xds.TypeEndpoint {
				sub.table.rest(s.want)
			}
		}
	}
}

// keep has a cluster that should go keep its endpoints.
func (s *session) keep(cluster, endpoints string) {
	if s.kept == nil {
		s.kept = map[string]string{}
	}
	s.kept[cluster] = endpoints
}

// releaseKept forgets the clusters that the proxy gave up, or that are wanted again.
func (s *session) releaseKept() {
	for cluster, name := range s.kept {
		sub := s.sub(xds.TypeCluster)
		if s.desired(xds.TypeCluster, cluster) != nil || !sub.open.has(cluster) {
			delete(s.kept, cluster)
			s.sub(xds.TypeEndpoint).reopen(name)
		}
	}
}

// sendSecond sends what refers to clusters, but nothing that names a cluster which the proxy refused.
func (s *session) sendSecond() {
	dangling := s.missingClusters()
	for _, t := range second {
		c := s.diff(t)
		upserts, removed := c.upserts, c.answers
		if len(dangling) > 0 {
			upserts = slices.DeleteFunc(upserts, func(r *xds.Resource) bool { return refersToAny(r, dangling) })
		}
		upserts = behindFirst(upserts)
		if t == xds.TypeListener {
			var moved []string
			upserts, moved = s.freeAddresses(upserts)
			removed = append(removed, moved...)
		}
		s.send(t, upserts, removed)
	}
}

// sendRemovals sends the removals that break nothing.
func (s *session) sendRemovals() {
	if c := s.diff(xds.TypeListener); len(c.removals) > 0 {
		s.send(xds.TypeListener, nil, c.removals)
		return
	}
	// A proxy that connected again says one type after the other what it has: all that may refer must have been heard.
	for _, t := range second {
		if !s.sub(t).requested && (t == xds.TypeListener || s.want.has(t)) {
			return
		}
	}
	for _, t := range []string{xds.TypeCluster, xds.TypeEndpoint, xds.TypeSecret} {
		s.send(t, nil, s.removable(t))
	}
}

// holders are the types that may refer to a resource of the type.
var holders = map[string][]string{
	xds.TypeCluster:  {xds.TypeListener, xds.TypeExtension, xds.TypeRoute},
	xds.TypeEndpoint: {xds.TypeCluster},
	xds.TypeSecret:   {xds.TypeCluster, xds.TypeListener, xds.TypeRoute},
}

// removable are the removals of a type to which nothing refers that the proxy holds beside what is wanted. What is wanted
// refers to nothing that is not.
func (s *session) removable(typeURL string) []string {
	removals := s.diff(typeURL).removals
	if len(removals) == 0 {
		return nil
	}
	var stale []*xds.Resource
	for _, t := range holders[typeURL] {
		var known bool
		if stale, known = s.sub(t).stale(stale, s.desired); !known {
			return nil
		}
	}
	for _, t := range s.tails {
		stale = append(stale, t.whole)
	}
	if len(stale) == 0 {
		return removals
	}
	return slices.DeleteFunc(removals, func(name string) bool {
		return slices.ContainsFunc(stale, func(r *xds.Resource) bool { return refersTo(r, name) })
	})
}

// send puts one response in flight unless one of the type is, or there is nothing to say.
func (s *session) send(typeURL string, upserts []*xds.Resource, removed []string) {
	sub := s.sub(typeURL)
	if !sub.requested || sub.inflight != nil || len(upserts)+len(removed) == 0 && !sub.firstDue {
		return
	}
	upserts, removed = sub.limit(upserts, removed)
	var fillers []*xds.Resource
	if s.state && !sub.wildcards() {
		fillers = s.concludeAbsent(sub, removed)
		if removed = nil; len(upserts)+len(fillers) == 0 {
			return
		}
	}
	if typeURL == xds.TypeCluster {
		s.settled = false
	}
	f := &inflight{sent: newCargo(upserts, removed)}
	resp := &response{typeURL: typeURL, revision: s.want.revision, upserts: append(upserts, fillers...), removed: removed}
	if typeURL == xds.TypeEndpoint && !s.state && len(upserts) == 1 && len(removed) == 0 {
		f.nonce = upserts[0].Version // see alone
	} else {
		s.nonce++
		f.nonce = strconv.FormatUint(s.nonce, 10)
	}
	for _, r := range upserts {
		delete(sub.due, r.Name)
		// A changed cluster is warmed anew and waits for endpoints, but Envoy doesn't ask again for a name that the old
		// cluster already watches: without this it would wait for its fetch timeout.
		if typeURL == xds.TypeCluster {
			if name := s.want.endpointsOf(r.Name); name != "" && s.sub(xds.TypeEndpoint).table.asksFor(name) {
				mark(&s.sub(xds.TypeEndpoint).due, name)
				s.sub(xds.TypeEndpoint).open.add(name)
			}
		}
	}
	for _, name := range removed {
		delete(sub.due, name)
	}
	if s.state && sub.wildcards() {
		f.world = sub.worldWith(f.sent)
	}
	sub.firstDue = false
	sub.inflight, sub.nonce = f, f.nonce
	s.sent = s.want.revision
	resp.nonce, resp.world = f.nonce, f.world
	f.bytes = resp.size()
	s.ready = append(s.ready, resp)
}

// firstStageSettled says whether the proxy has all clusters that it is going to take, with their endpoints and secrets.
// Envoy asks for endpoints only after it has the cluster, and for listeners only after its clusters are initialised, so
// waiting for these questions can't hold up its start.
func (s *session) firstStageSettled() bool {
	if s.settled {
		return true
	}
	clusters, endpoints, secrets := s.sub(xds.TypeCluster), s.sub(xds.TypeEndpoint), s.sub(xds.TypeSecret)
	if !clusters.requested {
		return !s.want.has(xds.TypeCluster)
	}
	if clusters.inflight != nil || clusters.firstDue || len(s.diff(xds.TypeCluster).upserts) > 0 {
		return false
	}
	for cluster := range s.want.each(xds.TypeCluster) {
		if name := cluster.EndpointsName(); name != "" && !endpoints.answered(name) && clusters.holds(cluster.Name) {
			return false
		}
	}
	for r := range secrets.table.rows {
		if r.asked && !secrets.answered(r.name()) {
			return false
		}
	}
	s.settled = true
	return true
}

// missingClusters are the wanted clusters of which the proxy has no version at all: it refused them.
func (s *session) missingClusters() []string {
	sub := s.sub(xds.TypeCluster)
	if sub.all && len(sub.rejected) == 0 {
		return nil
	}
	var missing []string
	for r := range s.want.each(xds.TypeCluster) {
		if !sub.holds(r.Name) {
			missing = append(missing, r.Name)
		}
	}
	return missing
}

func (s *session) idle(typeURLs ...string) bool {
	for _, t := range typeURLs {
		if s.sub(t).inflight != nil {
			return false
		}
	}
	return true
}
