package resource

import (
	"maps"
	"slices"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func validateTrafficPermission(s scope, r *Resource) {
	p := Spec[*meshv1.TrafficPermission](r)
	checkSelectors(s, "sources", p.GetSources(), TagService, TagZone)
	checkSelectors(s, "destinations", p.GetDestinations())
}

func validateTrafficRoute(s scope, r *Resource) {
	t := Spec[*meshv1.TrafficRoute](r)
	checkSelectors(s, "sources", t.GetSources())
	checkSelectors(s, "destinations", t.GetDestinations())
	conf := s.at("conf")
	// One that balances load may leave the traffic where it goes.
	if c := t.GetConf(); c.GetLoadBalancer() == nil || len(c.GetDestination())+len(c.GetSplit()) > 0 {
		checkSplit(conf, c.GetDestination(), c.GetSplit())
	}
	checkLoadBalancer(conf.at("loadBalancer"), t.GetConf().GetLoadBalancer())
	for i, h := range t.GetConf().GetHttp() {
		at := conf.at("http").index(i)
		match := at.at("match")
		m := h.GetMatch()
		if m.GetPath() == nil && m.GetMethod() == nil && len(m.GetHeaders()) == 0 {
			at.errorf("put what all requests do under destination or split", "needs match with path, method or headers")
		}
		if p := m.GetPath(); p != nil {
			checkStringMatcher(match.at("path"), p)
			switch v := p.GetMatcher().(type) {
			case *meshv1.StringMatcher_Exact:
				checkPath(match.at("path", "exact"), v.Exact)
			case *meshv1.StringMatcher_Prefix:
				checkPath(match.at("path", "prefix"), v.Prefix)
			}
		}
		if m.GetMethod() != nil {
			checkStringMatcher(match.at("method"), m.GetMethod())
		}
		for _, k := range slices.Sorted(maps.Keys(m.GetHeaders())) {
			checkHeaderName(match.at("headers").key(k), k)
			checkStringMatcher(match.at("headers").key(k), m.GetHeaders()[k])
		}
		checkHeaderChange(at.at("modify", "requestHeaders"), h.GetModify().GetRequestHeaders())
		checkHeaderChange(at.at("modify", "responseHeaders"), h.GetModify().GetResponseHeaders())
		checkSplit(at, h.GetDestination(), h.GetSplit())
	}
}

// checkSplit wants exactly one of destination and split.
func checkSplit(s scope, destination map[string]string, split []*meshv1.TrafficRoute_Split) {
	switch {
	case len(destination) > 0 && len(split) > 0:
		s.errorf("keep one of them", "destination excludes split")
	case len(destination) == 0 && len(split) == 0:
		s.errorf("", "needs destination or split")
	}
	if len(destination) > 0 {
		checkAskedTags(s.at("destination"), destination)
	}
	var sum uint64
	for i, p := range split {
		checkAskedTags(s.at("split").index(i).at("destination"), p.GetDestination())
		sum += uint64(p.GetWeight())
	}
	checkWeights(s.at("split"), sum, len(split))
}

// checkAskedTags checks the tags of a destination whose service may be the one that was asked for, written *. Zones know the subsets
// of a service by one tag each; for more of them they must be told which service it is.
func checkAskedTags(s scope, tags map[string]string) {
	if tags[TagService] != AnyValue {
		checkOwnTags(s, tags)
		return
	}
	if len(tags) > 2 {
		s.errorf("name the service", "beside the service * there is at most one tag")
	}
	more := maps.Clone(tags)
	delete(more, TagService)
	checkTags(s, more, false)
}

func validateTimeout(s scope, r *Resource) {
	t := Spec[*meshv1.Timeout](r)
	checkSelectors(s, "sources", t.GetSources())
	checkSelectors(s, "destinations", t.GetDestinations())
	c, conf := t.GetConf(), s.at("conf")
	if c == nil {
		s.errorf("", "needs conf")
	}
	checkDuration(conf.at("connectTimeout"), c.GetConnectTimeout(), time.Nanosecond, 0)
	checkDuration(conf.at("tcp", "idleTimeout"), c.GetTcp().GetIdleTimeout(), 0, 0)
	http := conf.at("http")
	checkDuration(http.at("requestTimeout"), c.GetHttp().GetRequestTimeout(), 0, 0)
	checkDuration(http.at("idleTimeout"), c.GetHttp().GetIdleTimeout(), 0, 0)
	checkDuration(http.at("streamIdleTimeout"), c.GetHttp().GetStreamIdleTimeout(), 0, 0)
	checkDuration(http.at("maxStreamDuration"), c.GetHttp().GetMaxStreamDuration(), 0, 0)
	grpc := conf.at("grpc")
	checkDuration(grpc.at("streamIdleTimeout"), c.GetGrpc().GetStreamIdleTimeout(), 0, 0)
	checkDuration(grpc.at("maxStreamDuration"), c.GetGrpc().GetMaxStreamDuration(), 0, 0)
}
