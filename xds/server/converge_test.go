package server

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/zoneforge/zoneforge/xds"
)

// model is a deliberately simple Envoy: it takes what it is sent, refuses names that start with "bad", asks for the
// endpoints of its clusters and for the routes of its listeners (a listener's route has its name).
type model struct {
	held    map[string]map[string]string
	asked   map[string]map[string]bool
	routeTo map[string]string
	queue   []*discoveryv3.DeltaDiscoveryResponse
	// nonces are the newest answered of each type, where the variant is state-of-the-world; nil otherwise.
	nonces map[string]string
	// told are the names of the newest response of each wildcard type.
	told map[string]map[string]bool
	// version is that of the newest response taken of each type.
	version map[string]string
}

// asDelta says what a response changes. One of state-of-the-world removes what was told before and is left out.
func (m *model) asDelta(out *response) *discoveryv3.DeltaDiscoveryResponse {
	resp := out.delta()
	if out.world == nil {
		return resp
	}
	resp.Resources, resp.RemovedResources = nil, nil
	now := map[string]bool{}
	for _, r := range out.world.contents {
		now[r.Name] = true
		resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version})
	}
	for _, name := range sortedKeys(m.told[out.typeURL]) {
		if !now[name] {
			resp.RemovedResources = append(resp.RemovedResources, name)
		}
	}
	m.told[out.typeURL] = now
	resp.SystemVersionInfo = out.world.version
	return resp
}

// inState is a request that names all that the model subscribes to at that moment.
func (m *model) inState(req *discoveryv3.DeltaDiscoveryRequest) *discoveryv3.DiscoveryRequest {
	typeURL := req.GetTypeUrl()
	if req.GetResponseNonce() != "" {
		m.nonces[typeURL] = req.GetResponseNonce()
	}
	return &discoveryv3.DiscoveryRequest{TypeUrl: typeURL, VersionInfo: m.version[typeURL], ResponseNonce: m.nonces[typeURL], ErrorDetail: req.GetErrorDetail(),
		ResourceNames: sortedKeys(m.asked[typeURL])}
}

func newModel() *model {
	m := &model{held: map[string]map[string]string{}, asked: map[string]map[string]bool{}, routeTo: map[string]string{},
		told: map[string]map[string]bool{}, version: map[string]string{}}
	for _, t := range served {
		m.held[t], m.asked[t] = map[string]string{}, map[string]bool{}
	}
	return m
}

// take applies the oldest response and returns the requests that follow it.
func (m *model) take(routeCluster map[string]string) []*discoveryv3.DeltaDiscoveryRequest {
	resp := m.queue[0]
	m.queue = m.queue[1:]
	typeURL := resp.GetTypeUrl()
	var refused []string
	for _, r := range resp.GetResources() {
		if strings.HasPrefix(r.GetName(), "bad") {
			refused = append(refused, r.GetName())
			continue
		}
		if typeURL != xds.TypeCluster && typeURL != xds.TypeListener && !m.asked[typeURL][r.GetName()] {
			continue // it unsubscribed meanwhile
		}
		m.held[typeURL][r.GetName()] = r.GetVersion()
		if typeURL == xds.TypeRoute {
			m.routeTo[r.GetName()] = routeCluster[r.GetVersion()]
		}
	}
	for _, name := range resp.GetRemovedResources() {
		delete(m.held[typeURL], name)
		if typeURL == xds.TypeRoute {
			delete(m.routeTo, name)
		}
	}
	answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: resp.GetNonce()}
	if len(refused) == 0 {
		m.version[typeURL] = resp.GetSystemVersionInfo()
	} else {
		answer.ErrorDetail = &statuspb.Status{Message: "refused: " + strings.Join(refused, ", ")}
	}
	out := []*discoveryv3.DeltaDiscoveryRequest{answer}
	follow := map[string]string{xds.TypeCluster: xds.TypeEndpoint, xds.TypeListener: xds.TypeRoute}[typeURL]
	if follow == "" {
		return out
	}
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: follow}
	for _, name := range sortedKeys(m.held[typeURL]) {
		if !m.asked[follow][name] {
			m.asked[follow][name] = true
			req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, name)
		}
	}
	for _, name := range sortedKeys(m.asked[follow]) {
		if _, ok := m.held[typeURL][name]; !ok {
			delete(m.asked[follow], name)
			delete(m.held[follow], name)
			delete(m.routeTo, name)
			req.ResourceNamesUnsubscribe = append(req.ResourceNamesUnsubscribe, name)
		}
	}
	if len(req.ResourceNamesSubscribe)+len(req.ResourceNamesUnsubscribe) > 0 {
		out = append(out, req)
	}
	return out
}

// TestNeverDanglesAndConverges holds, for random snapshots and broken streams that come at any moment: no route of the proxy ever names a
// cluster that it lacks, and when the snapshots stop (the last without a bad cluster) the proxy has exactly the last.
func TestNeverDanglesAndConverges(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint("delta/seed=", seed), func(t *testing.T) { converge(t, rand.New(rand.NewPCG(seed, 1)), false) })
		t.Run(fmt.Sprint("state/seed=", seed), func(t *testing.T) { converge(t, rand.New(rand.NewPCG(seed, 1)), true) })
	}
}

func converge(t *testing.T, random *rand.Rand, state bool) {
	endpoints, routeCluster := map[string]*xds.Resource{}, map[string]string{}
	s := newSession(func(name string) *xds.Resource { return endpoints[name] })
	m := newModel()
	handle := s.Handle
	if state {
		s = newStateSession(func(name string) *xds.Resource { return endpoints[name] }, nil)
		m.nonces = map[string]string{}
		handle = func(req *discoveryv3.DeltaDiscoveryRequest) { s.HandleState(m.inState(req)) }
	}
	clusters := []string{"a", "b", "c", "d", "bad"}
	for _, name := range clusters {
		endpoints[name] = load(t, name, 0)
	}
	// Some of it is shared with others, and some is even on both sides, as it comes.
	build := func(last bool) *xds.Resources {
		rs := &xds.Resources{Shared: &xds.Resources{}}
		add := func(own, shared *[]*xds.Resource, r *xds.Resource) {
			side := random.IntN(5)
			if side != 0 {
				*shared = append(*shared, r)
			}
			if side < 2 {
				*own = append(*own, r)
			}
		}
		var names []string
		for _, name := range clusters {
			if random.IntN(2) == 0 && !(last && name == "bad") {
				names = append(names, name)
				add(&rs.Clusters, &rs.Shared.Clusters, edsCluster(t, name, fmt.Sprint(random.IntN(2))))
			}
		}
		for _, name := range []string{"l1", "l2", "l3"} {
			if len(names) > 0 && random.IntN(3) > 0 {
				route := routeTo(t, name, names[random.IntN(len(names))])
				routeCluster[route.Version] = clusterOf(route, names)
				add(&rs.Listeners, &rs.Shared.Listeners, plainListener(t, name, fmt.Sprint(random.IntN(2))))
				add(&rs.Routes, &rs.Shared.Routes, route)
			}
		}
		return rs
	}
	// reconnect breaks the stream: what is under way in either direction is lost, and the proxy says what it has.
	reconnect := func() []*discoveryv3.DeltaDiscoveryRequest {
		m.queue = nil
		for _, typeURL := range []string{xds.TypeCluster, xds.TypeListener} {
			m.told[typeURL] = map[string]bool{}
			for name := range m.held[typeURL] {
				m.told[typeURL][name] = true
			}
		}
		want, worlds := s.want, s.Worlds()
		lookup := func(name string) *xds.Resource { return endpoints[name] }
		if state {
			s = newStateSession(lookup, worlds)
			m.nonces = map[string]string{}
		} else {
			s = newSession(lookup)
		}
		handle = s.Handle
		if state {
			handle = func(req *discoveryv3.DeltaDiscoveryRequest) { s.HandleState(m.inState(req)) }
		}
		if want != nil {
			s.SetSnapshot(want)
		}
		var out []*discoveryv3.DeltaDiscoveryRequest
		for _, typeURL := range []string{xds.TypeCluster, xds.TypeEndpoint, xds.TypeListener, xds.TypeRoute} {
			names := sortedKeys(m.asked[typeURL])
			if len(names) == 0 && typeURL != xds.TypeCluster && typeURL != xds.TypeListener {
				continue
			}
			out = append(out, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names,
				InitialResourceVersions: maps.Clone(m.held[typeURL])})
		}
		return out
	}
	pending := []*discoveryv3.DeltaDiscoveryRequest{{TypeUrl: xds.TypeCluster}, {TypeUrl: xds.TypeListener}}
	var final *xds.Resources
	revision, snapshots := uint64(0), 1+random.IntN(6)
	for steps := 0; ; steps++ {
		if steps > 2000 {
			t.Fatalf("still not at rest: %+v", s.Progress())
		}
		if random.IntN(60) == 0 {
			pending = reconnect()
		}
		switch choice := random.IntN(3); {
		case choice == 0 && snapshots > 0:
			snapshots--
			revision++
			final = build(snapshots == 0)
			s.SetSnapshot(newSnapshot(revision, final, nil, s.want))
		case choice == 1 && len(pending) > 0:
			handle(pending[0])
			pending = pending[1:]
		case len(m.queue) > 0:
			pending = append(pending, m.take(routeCluster)...)
		case len(pending) > 0:
			handle(pending[0])
			pending = pending[1:]
		}
		for _, out := range s.Ready() {
			m.queue = append(m.queue, m.asDelta(out))
		}
		for _, route := range sortedKeys(m.routeTo) {
			if _, ok := m.held[xds.TypeCluster][m.routeTo[route]]; !ok {
				t.Fatalf("step %d: route %s names cluster %q, which the proxy lacks", steps, route, m.routeTo[route])
			}
		}
		if snapshots == 0 && len(pending)+len(m.queue) == 0 {
			break
		}
	}
	if p := s.Progress(); p.Acked != revision || len(p.Nacks) != 0 {
		t.Fatalf("at rest with %+v, want revision %d", p, revision)
	}
	for _, typeURL := range []string{xds.TypeCluster, xds.TypeListener, xds.TypeRoute} {
		list := slices.Collect(final.Each(typeURL))
		if len(m.held[typeURL]) != len(list) {
			t.Fatalf("%s: holds %v, want %v", typeURL, m.held[typeURL], list)
		}
		for _, r := range list {
			if m.held[typeURL][r.Name] != r.Version {
				t.Fatalf("%s: holds %v, want %v", typeURL, m.held[typeURL], list)
			}
		}
	}
}

func clusterOf(route *xds.Resource, names []string) string {
	for _, name := range names {
		if refersTo(route, name) {
			return name
		}
	}
	return ""
}
