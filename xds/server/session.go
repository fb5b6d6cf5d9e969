package server

import (
	"slices"
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// Nack is one refusal by Envoy.
type Nack struct {
	TypeURL string
	// Names and Versions are parallel, in the order of names; version "" is a removal.
	Names    []string
	Versions []string
	// Message is what Envoy said.
	Message string
}

// Progress is how far a proxy came.
type Progress struct {
	// Sent is the newest revision of which something, or nothing because nothing differed, was sent.
	Sent uint64
	// Acked is the newest revision that the proxy acknowledged completely.
	Acked uint64
	// EndpointsAcked is the newest endpoint revision with nothing outstanding for this proxy.
	EndpointsAcked uint64
	// Nacks are the refusals that still stand, by type, then in the order they came.
	Nacks []Nack
}

// served are the types in the order of sending: what is referred to comes before what refers.
var served = []string{
	xds.TypeCluster, xds.TypeEndpoint, xds.TypeSecret, xds.TypeListener, xds.TypeExtension, xds.TypeRoute,
}

// session is the protocol state of one stream: requests and snapshots go in, ordered responses come out of Ready. It is
// pure (no goroutine, clock or I/O) and not safe for concurrent use.
//
// Order of sending, each step only when the one before it was acknowledged:
//  1. clusters added or changed, and their endpoints and secrets;
//  2. listeners, extensions and routes added or changed;
//  3. listeners, extensions and routes removed;
//  4. clusters removed, then endpoints and secrets.
type session struct {
	want      *snapshot
	endpoints func(name string) *xds.Resource
	endpRev   uint64
	subs      map[string]*subscription
	nonce     uint64
	nacks     []Nack
	sent      uint64
	acked     uint64
	endpAcked uint64
	ready     []*discoveryv3.DeltaDiscoveryResponse
}

// newSession makes a session. endpoints looks an EDS resource up among those shared by all proxies.
func newSession(endpoints func(name string) *xds.Resource) *session {
	s := &session{endpoints: endpoints, subs: map[string]*subscription{}}
	for _, t := range served {
		s.subs[t] = newSubscription(t)
	}
	return s
}

// Handle takes one request. Types that are not served are ignored rather than refused: a proxy whose bootstrap asks for
// one more type must still get the others.
func (s *session) Handle(req *discoveryv3.DeltaDiscoveryRequest) {
	sub := s.subs[req.GetTypeUrl()]
	if sub == nil {
		return
	}
	// Only the nonce in flight confirms or rejects anything; subscriptions count in every request.
	if f := sub.inflight; f != nil && f.nonce == req.GetResponseNonce() {
		if detail := req.GetErrorDetail(); detail != nil {
			s.recordNack(sub, detail.GetMessage())
		} else {
			sub.acknowledge()
		}
	}
	sub.subscribe(req, sub.typeURL == xds.TypeCluster || sub.typeURL == xds.TypeListener)
	s.advance()
}

// SetSnapshot replaces what the proxy should hold. Snapshots between two responses coalesce into the newest.
func (s *session) SetSnapshot(snap *snapshot) {
	s.want = snap
	s.advance()
}

// EndpointsChanged says that the shared endpoints are now at the revision and that the names changed.
func (s *session) EndpointsChanged(revision uint64, names []string) {
	s.endpRev = revision
	if slices.ContainsFunc(names, s.subs[xds.TypeEndpoint].wants) {
		s.advance()
		return
	}
	s.updateProgress()
}

// Ready returns the responses to send, in order, and forgets them.
func (s *session) Ready() []*discoveryv3.DeltaDiscoveryResponse {
	out := s.ready
	s.ready = nil
	return out
}

// Progress returns how far the proxy came.
func (s *session) Progress() Progress {
	return Progress{Sent: s.sent, Acked: s.acked, EndpointsAcked: s.endpAcked, Nacks: slices.Clone(s.nacks)}
}

func (s *session) recordNack(sub *subscription, message string) {
	names := sub.reject(message)
	nack := Nack{TypeURL: sub.typeURL, Names: names, Message: message}
	for _, name := range names {
		nack.Versions = append(nack.Versions, sub.inflight.versions[name])
	}
	sub.inflight = nil
	if len(names) > 0 {
		s.nacks = append(s.nacks, nack)
	}
}

// desired is what the proxy may hold of a type under a name. A name that its snapshot does not permit does not exist.
func (s *session) desired(typeURL string) func(string) *xds.Resource {
	if typeURL == xds.TypeEndpoint {
		return func(name string) *xds.Resource {
			if !s.want.permitted[name] {
				return nil
			}
			return s.endpoints(name)
		}
	}
	m := s.want.byType[typeURL]
	return func(name string) *xds.Resource { return m[name] }
}

func (s *session) diff(typeURL string) change {
	return s.subs[typeURL].diff(s.desired(typeURL), s.want.names[typeURL])
}

// advance sends whatever the order allows now.
func (s *session) advance() {
	// Without a snapshot nothing is known of the proxy, and an empty answer would empty it.
	if s.want == nil {
		return
	}
	clusters := s.diff(xds.TypeCluster)
	s.send(xds.TypeCluster, clusters.upserts, nil)
	for _, t := range []string{xds.TypeEndpoint, xds.TypeSecret} {
		c := s.diff(t)
		s.send(t, c.upserts, c.answers)
	}
	firstSettled := s.firstStageSettled()
	second := []string{xds.TypeListener, xds.TypeExtension, xds.TypeRoute}
	dangling := s.missingClusters()
	for _, t := range second {
		c := s.diff(t)
		var upserts []*xds.Resource
		if firstSettled {
			upserts = slices.DeleteFunc(c.upserts, func(r *xds.Resource) bool {
				return len(dangling) > 0 && refersTo(r, dangling)
			})
		}
		if firstSettled || len(c.answers) > 0 {
			s.send(t, upserts, c.answers)
		}
	}
	if firstSettled && s.idle(second...) {
		// Removals of listeners first, so that no route goes from under one that still takes requests.
		for _, t := range second {
			if c := s.diff(t); len(c.removals) > 0 {
				s.send(t, nil, c.removals)
				break
			}
		}
	}
	if firstSettled && s.idle(second...) && s.holdsExactly(second...) {
		s.send(xds.TypeCluster, nil, s.diff(xds.TypeCluster).removals)
		if s.idle(xds.TypeCluster) {
			for _, t := range []string{xds.TypeEndpoint, xds.TypeSecret} {
				s.send(t, nil, s.diff(t).removals)
			}
		}
	}
	s.updateProgress()
}

// send puts one response in flight unless one of the type is, or there is nothing to say.
func (s *session) send(typeURL string, upserts []*xds.Resource, removed []string) {
	sub := s.subs[typeURL]
	if !sub.requested || sub.inflight != nil || len(upserts)+len(removed) == 0 && !sub.firstDue {
		return
	}
	upserts, removed = sub.limit(upserts, removed)
	s.nonce++
	f := &inflight{nonce: strconv.FormatUint(s.nonce, 10), versions: map[string]string{}}
	resp := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: typeURL, Nonce: f.nonce, RemovedResources: removed,
		SystemVersionInfo: strconv.FormatUint(s.want.revision, 10),
	}
	for _, r := range upserts {
		f.versions[r.Name] = r.Version
		delete(sub.due, r.Name)
		resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version, Resource: r.Any})
		// A changed cluster is warmed anew and waits for endpoints, but Envoy doesn't ask again for a name that the old
		// cluster already watches: without this it would wait for its fetch timeout.
		if name := s.want.endpointOf[r.Name]; typeURL == xds.TypeCluster && s.subs[xds.TypeEndpoint].names[name] {
			s.subs[xds.TypeEndpoint].due[name] = true
		}
	}
	for _, name := range removed {
		f.versions[name] = absent
		delete(sub.due, name)
	}
	sub.firstDue = false
	sub.inflight = f
	s.sent = s.want.revision
	s.ready = append(s.ready, resp)
}

// firstStageSettled says whether the proxy has all clusters that it is going to take, with their endpoints and secrets.
// Envoy asks for endpoints only after it has the cluster, and for listeners only after its clusters are initialised, so
// waiting for these questions can't hold up its start.
func (s *session) firstStageSettled() bool {
	clusters, endpoints, secrets := s.subs[xds.TypeCluster], s.subs[xds.TypeEndpoint], s.subs[xds.TypeSecret]
	if !clusters.requested {
		return len(s.want.names[xds.TypeCluster]) == 0
	}
	if clusters.inflight != nil || clusters.firstDue || len(s.diff(xds.TypeCluster).upserts) > 0 {
		return false
	}
	for cluster, name := range s.want.endpointOf {
		if clusters.holds(cluster) && !endpoints.answered(name) {
			return false
		}
	}
	for name := range secrets.names {
		if !secrets.answered(name) {
			return false
		}
	}
	return true
}

// missingClusters are the wanted clusters of which the proxy has no version at all: it refused them.
func (s *session) missingClusters() map[string]bool {
	var missing map[string]bool
	for _, name := range s.want.names[xds.TypeCluster] {
		if !s.subs[xds.TypeCluster].holds(name) {
			if missing == nil {
				missing = map[string]bool{}
			}
			missing[name] = true
		}
	}
	return missing
}

func (s *session) idle(typeURLs ...string) bool {
	for _, t := range typeURLs {
		if s.subs[t].inflight != nil {
			return false
		}
	}
	return true
}

// holdsExactly says whether the proxy confirmed exactly the wanted resources of the types: nothing refused, withheld or
// left over. Clusters are removed only then, as an older route or listener may still name them.
func (s *session) holdsExactly(typeURLs ...string) bool {
	for _, t := range typeURLs {
		desired, sub := s.desired(t), s.subs[t]
		for _, name := range s.want.names[t] {
			if sub.confirmed[name] != desired(name).Version {
				return false
			}
		}
		for name, version := range sub.confirmed {
			if version != absent && desired(name) == nil {
				return false
			}
		}
		// What is due again after a refusal may be held in another version than the confirmed one.
		if len(sub.due) > 0 {
			return false
		}
	}
	return true
}

// updateProgress drops refusals whose content changed and raises the acknowledged revisions.
func (s *session) updateProgress() {
	if s.want == nil {
		return
	}
	s.nacks = slices.DeleteFunc(s.nacks, func(n Nack) bool {
		for i, name := range n.Names {
			if v, ok := s.subs[n.TypeURL].rejected[name]; ok && v == n.Versions[i] {
				return false
			}
		}
		return true
	})
	endpoints := s.diff(xds.TypeEndpoint)
	if s.idle(xds.TypeEndpoint) && len(endpoints.upserts)+len(endpoints.removals)+len(endpoints.answers) == 0 &&
		len(s.subs[xds.TypeEndpoint].rejected) == 0 {
		s.endpAcked = s.endpRev
	}
	if !s.subs[xds.TypeCluster].requested || !s.subs[xds.TypeListener].requested || len(s.nacks) > 0 || !s.firstStageSettled() {
		return
	}
	// Endpoints move all the time and don't hold the revision up, but the other types must be quiet.
	if !s.idle(xds.TypeCluster, xds.TypeSecret, xds.TypeListener, xds.TypeExtension, xds.TypeRoute) ||
		s.subs[xds.TypeListener].firstDue {
		return
	}
	secrets := s.diff(xds.TypeSecret)
	if len(secrets.upserts)+len(secrets.removals)+len(secrets.answers) > 0 ||
		!s.holdsExactly(xds.TypeCluster, xds.TypeListener, xds.TypeExtension, xds.TypeRoute) {
		return
	}
	s.sent, s.acked = s.want.revision, s.want.revision
}
