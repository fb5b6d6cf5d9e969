package server

import (
	"slices"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/xds"
)

// lingering is how long routes behind others stay, at least, after those that led to them went; at most twice as long.
const lingering = 15 * time.Second

// tail is what a table behind others holds beside its own routes: those that it lost of late, for requests that were on their way.
type tail struct {
	lost []lostRoute
	// whole is the table with them.
	whole *xds.Resource
}

type lostRoute struct {
	// match is the route's, encoded, by which it is known.
	match string
	route *routev3.Route
	// old says that it outlived a Release.
	old bool
}

// loseRoutes compares the tables behind others with those of the snapshot before, and keeps for a while what is no longer in them.
func (s *session) loseRoutes(old *snapshot) {
	for name := range s.tails {
		if table := s.want.get(xds.TypeRoute, name); table == nil || !table.Behind {
			delete(s.tails, name)
		}
	}
	for table := range s.want.each(xds.TypeRoute) {
		if !table.Behind {
			continue // nearly all, so nothing is looked up for them
		}
		before := old.get(xds.TypeRoute, table.Name)
		if before == nil || before == table {
			continue
		}
		var lost []lostRoute
		if t := s.tails[table.Name]; t != nil {
			lost = t.lost
		}
		for _, r := range routesOf(before) {
			lost = append(lost, lostRoute{match: matchOf(r), route: r})
		}
		s.setTail(table, lost)
	}
}

// setTail gives a table the lost routes that it doesn't have itself.
func (s *session) setTail(table *xds.Resource, lost []lostRoute) {
	has := map[string]bool{}
	for _, r := range routesOf(table) {
		has[matchOf(r)] = true
	}
	lost = slices.DeleteFunc(slices.Clone(lost), func(l lostRoute) bool {
		again := has[l.match]
		has[l.match] = true
		return again
	})
	delete(s.tails, table.Name)
	if len(lost) == 0 {
		return
	}
	var whole routev3.RouteConfiguration
	if table.Any().UnmarshalTo(&whole) != nil || len(whole.GetVirtualHosts()) == 0 {
		return
	}
	// Each is found by a header of its own, so that none can hide another; what takes all the rest is the last.
	host := whole.GetVirtualHosts()[0]
	routes := make([]*routev3.Route, 0, len(lost)+len(host.GetRoutes()))
	for _, l := range lost {
		routes = append(routes, l.route)
	}
	host.Routes = append(routes, host.GetRoutes()...)
	if r, err := xds.NewResource(xds.TypeRoute, table.Name, &whole); err == nil {
		r.Behind = true
		if s.tails == nil {
			s.tails = map[string]*tail{}
		}
		s.tails[table.Name] = &tail{lost, r}
	}
}

// Release drops the routes behind others that nothing leads to since the Release before.
func (s *session) Release() {
	for name, t := range s.tails {
		lost := slices.DeleteFunc(slices.Clone(t.lost), func(l lostRoute) bool { return l.old })
		for i := range lost {
			lost[i].old = true
		}
		s.setTail(s.want.get(xds.TypeRoute, name), lost)
		s.sub(xds.TypeRoute).reopen(name)
	}
	if s.want != nil {
		s.advance()
	}
}

// behindFirst leaves only the tables behind others where these and others are to be sent: what leads to a route comes after it.
func behindFirst(upserts []*xds.Resource) []*xds.Resource {
	behind := func(r *xds.Resource) bool { return r.Behind }
	if !slices.ContainsFunc(upserts, behind) {
		return upserts
	}
	return slices.DeleteFunc(upserts, func(r *xds.Resource) bool { return !r.Behind })
}

// routesOf are the routes of a table; none of one that does not decode, which is for Envoy to refuse.
func routesOf(table *xds.Resource) []*routev3.Route {
	var c routev3.RouteConfiguration
	if table.Any().UnmarshalTo(&c) != nil {
		return nil
	}
	var out []*routev3.Route
	for _, host := range c.GetVirtualHosts() {
		out = append(out, host.GetRoutes()...)
	}
	return out
}

func matchOf(r *routev3.Route) string {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.GetMatch())
	if err != nil {
		return "" // it was just decoded
	}
	return string(text)
}
