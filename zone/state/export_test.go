package state

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/xds"
)

// FormerTokens are those that a proxy's routes asked for before the last change of that.
func FormerTokens(s *State, id string) []*ir.JWT { return s.proxies[id].formerJWT }

// sent is what a proxy is told, whatever of it is kept apart.
func sent(r *xds.Resources) string {
	var out strings.Builder
	for _, typeURL := range []string{xds.TypeListener, xds.TypeRoute, xds.TypeCluster, xds.TypeExtension} {
		for r := range r.Each(typeURL) {
			out.WriteString(r.String() + " ")
			out.Write(r.Any().GetValue())
		}
	}
	return out.String()
}

// AsIfBuiltWhole compares what was built of live proxies, in halves and only where something changed, with one build of all of it. It
// returns what differs.
func AsIfBuiltWhole(s *State) []string {
	var wrong []string
	defer func(memo xds.Memo) { s.memo = memo }(s.memo)
	for _, id := range slices.Sorted(maps.Keys(s.proxies)) {
		s.memo = xds.Memo{} // what was built before must not be what it is compared with
		p := s.proxies[id]
		if !p.live || p.ZoneIngress != nil || len(p.halves) == 0 {
			continue
		}
		got, err := joined(p.halves)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", id, err))
			continue
		}
		h, err := s.whole(s.mesh(p.Mesh), p)
		if err != nil {
			continue // what was built last stays
		}
		all := []*half{h}
		want, err := joined(all)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", id, err))
			continue
		}
		one := &proxy{halves: all}
		uses, wanted := fmt.Sprint(p.uses()), fmt.Sprint(one.uses())
		if len(one.rejected()) > 0 {
			uses, wanted = "", "" // what a policy that was left out would have led to is still among them
		}
		for what, pair := range map[string][2]any{
			"resources": {sent(got.Resources), sent(want.Resources)}, "secrets": {got.Secrets, want.Secrets}, "needs": {s.Needs(id), names(h.needs)},
			"rejected": {fmt.Sprint(p.rejected()), fmt.Sprint(one.rejected())}, "uses": {uses, wanted},
		} {
			if !reflect.DeepEqual(pair[0], pair[1]) {
				wrong = append(wrong, fmt.Sprintf("%s: %s: got %v, want %v", id, what, pair[0], pair[1]))
			}
		}
	}
	return wrong
}

func names(needs []*endpoints) []string {
	var out []string
	for _, e := range needs {
		out = append(out, e.name)
	}
	return out
}

// Entries counts what indexes hold, and endpoints of their users.
func Entries(s *State) int {
	n := 0
	for _, m := range s.meshes {
		n += len(m.live) + len(m.gateways)
		for _, x := range []index{m.byInbound, m.bySource, m.byDestination, m.bySecret} {
			for _, groups := range x {
				n += len(groups)
			}
		}
	}
	for _, e := range s.endpoints {
		n += len(e.users)
	}
	return n
}
