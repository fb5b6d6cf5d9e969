package server

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zoneforge/zoneforge/xds"
)

// world is all that a state-of-the-world response says of a wildcard type. What it leaves out, the proxy removes, so it
// also holds what should go but may not go yet. Immutable.
type world struct {
	// version is the hash of the names and versions, so that a proxy which connects again says with it what it has.
	version  string
	contents []*xds.Resource
}

// newStateSession makes a session of the state-of-the-world variant. worlds are what the proxy may
// have of its earlier stream; nil where there is none.
func newStateSession(endpoints func(name string) *xds.Resource, worlds map[string][]*world) *session {
	s := newSession(endpoints)
	s.state, s.worlds = true, worlds
	return s
}

// HandleState takes one request of the state-of-the-world variant: it names all that the proxy subscribes to. A request
// for a response that is not the newest is ignored, as one for the newest follows it.
func (s *session) HandleState(req *discoveryv3.DiscoveryRequest) {
	sub := s.sub(req.GetTypeUrl())
	if sub == nil || sub.requested && req.GetResponseNonce() != sub.nonce {
		return
	}
	s.answer(sub, req.GetResponseNonce(), req.GetErrorDetail() != nil, req.GetErrorDetail().GetMessage())
	first := !sub.requested
	names := req.GetResourceNames()
	change := &discoveryv3.DeltaDiscoveryRequest{}
	asked := make(map[string]bool, len(names))
	for _, name := range names {
		asked[name] = true
		if name == wildcard && !sub.all || name != wildcard && !sub.table.asksFor(name) {
			change.ResourceNamesSubscribe = append(change.ResourceNamesSubscribe, name)
		}
	}
	for _, name := range sub.table.asks() {
		if !asked[name] {
			change.ResourceNamesUnsubscribe = append(change.ResourceNamesUnsubscribe, name)
		}
	}
	if sub.all && len(names) > 0 && !asked[wildcard] {
		change.ResourceNamesUnsubscribe = append(change.ResourceNamesUnsubscribe, wildcard)
	}
	s.subscribe(sub, change)
	if first && req.GetVersionInfo() != "" {
		s.inherit(sub, req.GetVersionInfo())
	}
	s.advance()
}

// inherit takes over what the proxy has from an earlier stream: of wildcard types what it acknowledged there, if it is
// still that; of others some version of each name.
func (s *session) inherit(sub *subscription, version string) {
	s.settled = false
	if !sub.wildcards() {
		for _, name := range sub.table.asks() {
			sub.table.confirm(name, ofVersion(name, unknown))
			delete(sub.due, name)
		}
		return
	}
	for _, w := range s.worlds[sub.typeURL()] {
		if w.version != version {
			continue
		}
		for _, r := range w.contents {
			if sub.wants(r.Name) {
				sub.table.confirm(r.Name, r)
				sub.open.add(r.Name)
				if sub.typeURL() == xds.TypeCluster {
					s.keepEndpoints(r)
				}
			}
		}
		sub.world = w
		return
	}
}

// keepEndpoints lets a cluster of an earlier stream keep its endpoints while it may not go.
func (s *session) keepEndpoints(cluster *xds.Resource) {
	if s.desired(xds.TypeCluster, cluster.Name) != nil {
		return
	}
	if name := cluster.EndpointsName(); name != "" {
		s.keep(cluster.Name, name)
	}
}

// Worlds returns what the proxy may have of the wildcard types, for its next stream: what it acknowledged, and what is in
// flight, as an ACK can be lost with its stream.
func (s *session) Worlds() map[string][]*world {
	out := map[string][]*world{}
	for _, t := range []string{xds.TypeCluster, xds.TypeListener} {
		sub := s.sub(t)
		if !sub.requested && len(s.worlds[t]) > 0 {
			out[t] = s.worlds[t]
		}
		if sub.world != nil {
			out[t] = append(out[t], sub.world)
		}
		if sub.inflight != nil && sub.inflight.world != nil {
			out[t] = append(out[t], sub.inflight.world)
		}
	}
	return out
}

// worldWith is what the proxy confirmed, with what is sent over it.
func (s *subscription) worldWith(sent cargo) *world {
	w := &world{contents: make([]*xds.Resource, 0, s.table.len()+len(sent.upserts))}
	for r := range s.table.rows {
		if _, replaced := sent.get(r.name()); !replaced && contentOf(r.has()) != nil {
			w.contents = append(w.contents, r.is)
		}
	}
	w.contents = append(w.contents, sent.upserts...)
	slices.SortFunc(w.contents, func(a, b *xds.Resource) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	w.version = versionOfAll(w.contents)
	return w
}

func versionOfAll(contents []*xds.Resource) string {
	h := sha256.New()
	for _, r := range contents {
		_, _ = io.WriteString(h, r.Name+"\x00"+r.Version+"\x00")
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// concludeAbsent takes names that don't exist, or exist no more, as told: this variant has no words for it, and a proxy
// unsubscribes from what it doesn't need. A cluster would wait for endpoints that don't exist until its fetch timeout,
// so these are answered by empty ones, if the proxy has none.
func (s *session) concludeAbsent(sub *subscription, names []string) []*xds.Resource {
	var fillers []*xds.Resource
	for _, name := range names {
		if sub.typeURL() == xds.TypeEndpoint && !sub.holds(name) {
			if empty, err := xds.NewResource(xds.TypeEndpoint, name, &endpointv3.ClusterLoadAssignment{ClusterName: name}); err == nil {
				fillers = append(fillers, empty)
			}
		}
		sub.table.confirm(name, ofVersion(name, absent))
		delete(sub.due, name)
	}
	return fillers
}

// state is the response of state-of-the-world ADS. It refers to the resources' bytes and copies none.
func (r *response) state() *discoveryv3.DiscoveryResponse {
	contents := r.upserts
	version := ""
	if r.world != nil {
		contents, version = r.world.contents, r.world.version
	} else {
		version = versionOfAll(contents)
	}
	out := &discoveryv3.DiscoveryResponse{
		TypeUrl: r.typeURL, Nonce: r.nonce, VersionInfo: version, Resources: make([]*anypb.Any, len(contents)),
	}
	for i, c := range contents {
		out.Resources[i] = c.Any()
	}
	return out
}
