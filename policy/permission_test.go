package policy

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

const (
	allow = meshv1.TrafficPermission_ACTION_ALLOW
	deny  = meshv1.TrafficPermission_ACTION_DENY
)

var here = Identities{Mesh: "default", Domain: "fed.example.com"}

func permission(name string, a meshv1.TrafficPermission_Action, from, to []tags) *resource.Resource {
	return &resource.Resource{
		Key: resource.Key{Kind: "TrafficPermission", Mesh: "default", Name: name},
		Spec: &meshv1.TrafficPermission{
			Sources: selectors(from...), Destinations: selectors(to...), Conf: &meshv1.TrafficPermission_Conf{Action: a},
		},
	}
}

func exact(v string) ir.TextMatch { return ir.TextMatch{Kind: ir.TextExact, Value: v} }
func regex(v string) ir.TextMatch { return ir.TextMatch{Kind: ir.TextRegex, Value: v} }

func TestAuthorize(t *testing.T) {
	api := tags{"kuma.io/service": "api", "version": "v2"}
	anyone := []tags{service("*")}
	eastWeb := tags{"kuma.io/service": "web", "kuma.io/zone": "east"}
	everyone := regex(`^spiffe://[^./]+\.default\.fed\.example\.com/[^/]+$`)
	for _, c := range []struct {
		name string
		in   []*resource.Resource
		want []ir.AuthorizationRule
	}{
		{"nothing allows nobody", nil, nil},
		{"service and zone are exact", []*resource.Resource{permission("p", allow, []tags{eastWeb}, anyone)},
			[]ir.AuthorizationRule{{Name: "p", Allow: []ir.TextMatch{exact("spiffe://east.default.fed.example.com/web")}}}},
		{"names are quoted", []*resource.Resource{permission("p", allow, []tags{service("a.b+")}, anyone)},
			[]ir.AuthorizationRule{{Name: "p", Allow: []ir.TextMatch{regex(`^spiffe://[^./]+\.default\.fed\.example\.com/a\.b\+$`)}}}},
		{"a zone alone", []*resource.Resource{permission("p", allow, []tags{{"kuma.io/zone": "east", "kuma.io/service": "*"}}, anyone)},
			[]ir.AuthorizationRule{{Name: "p", Allow: []ir.TextMatch{regex(`^spiffe://east\.default\.fed\.example\.com/[^/]+$`)}}}},
		{"no action allows", []*resource.Resource{permission("p", 0, []tags{{}}, anyone)},
			[]ir.AuthorizationRule{{Name: "p", Allow: []ir.TextMatch{everyone}}}},
		{"an action not known denies", []*resource.Resource{permission("p", 99, anyone, []tags{service("api")}), permission("q", allow, anyone, anyone)},
			[]ir.AuthorizationRule{{Name: "q", Allow: []ir.TextMatch{everyone}, Except: []ir.TextMatch{everyone}}}},
		{"a deny wins a tie whatever its name", []*resource.Resource{permission("a", allow, []tags{service("web")}, anyone), permission("z", deny, []tags{service("web")}, anyone)},
			[]ir.AuthorizationRule{{Name: "a", Allow: []ir.TextMatch{regex(`^spiffe://[^./]+\.default\.fed\.example\.com/web$`)}, Except: []ir.TextMatch{regex(`^spiffe://[^./]+\.default\.fed\.example\.com/web$`)}}}},
		{"other destinations don't count", []*resource.Resource{permission("p", allow, anyone, []tags{service("db")})}, nil},
		{"a specific deny excepts from a general allow", []*resource.Resource{
			permission("all", allow, anyone, anyone), permission("not-web", deny, []tags{service("web")}, anyone),
		}, []ir.AuthorizationRule{{Name: "all", Allow: []ir.TextMatch{everyone},
			Except: []ir.TextMatch{regex(`^spiffe://[^./]+\.default\.fed\.example\.com/web$`)}}}},
		{"a general deny leaves a specific allow", []*resource.Resource{
			permission("none", deny, anyone, anyone), permission("web", allow, []tags{eastWeb}, anyone),
		}, []ir.AuthorizationRule{{Name: "web", Allow: []ir.TextMatch{exact("spiffe://east.default.fed.example.com/web")}}}},
		{"a deny of others is not carried", []*resource.Resource{
			permission("not-db", deny, []tags{{"kuma.io/service": "db", "kuma.io/zone": "east"}}, anyone),
			permission("web", allow, []tags{service("web")}, anyone),
		}, []ir.AuthorizationRule{{Name: "web", Allow: []ir.TextMatch{regex(`^spiffe://[^./]+\.default\.fed\.example\.com/web$`)}}}},
		{"nor one of another zone", []*resource.Resource{
			permission("not-east", deny, []tags{eastWeb}, anyone), permission("west", allow, []tags{{"kuma.io/zone": "west"}}, anyone),
		}, []ir.AuthorizationRule{{Name: "west", Allow: []ir.TextMatch{regex(`^spiffe://west\.default\.fed\.example\.com/[^/]+$`)}}}},
		{"zones are quoted", []*resource.Resource{permission("p", allow, []tags{{"kuma.io/zone": "e+"}}, anyone)},
			[]ir.AuthorizationRule{{Name: "p", Allow: []ir.TextMatch{regex(`^spiffe://e\+\.default\.fed\.example\.com/[^/]+$`)}}}},
		{"rules of one permission have names of their own", []*resource.Resource{
			permission("p", allow, []tags{eastWeb, service("*")}, anyone), permission("not-web", deny, []tags{service("web")}, anyone),
		}, []ir.AuthorizationRule{
			{Name: "p", Allow: []ir.TextMatch{exact("spiffe://east.default.fed.example.com/web")}},
			{Name: "p#2", Allow: []ir.TextMatch{everyone}, Except: []ir.TextMatch{regex(`^spiffe://[^./]+\.default\.fed\.example\.com/web$`)}},
		}},
		{"what can't be proven is not allowed", []*resource.Resource{
			permission("p", allow, []tags{{"kuma.io/service": "web", "version": "v1"}}, anyone),
		}, nil},
		{"what can't be proven is denied", []*resource.Resource{
			permission("all", allow, anyone, anyone), permission("p", deny, []tags{{"kuma.io/service": "web", "version": "v1"}}, anyone),
		}, []ir.AuthorizationRule{{Name: "all", Allow: []ir.TextMatch{everyone},
			Except: []ir.TextMatch{regex(`^spiffe://[^./]+\.default\.fed\.example\.com/web$`)}}}},
		{"a zone doesn't reach into the mesh", []*resource.Resource{
			permission("p", allow, []tags{{"kuma.io/service": "web", "kuma.io/zone": "east.other"}}, anyone),
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Authorize(c.in, here, api); !reflect.DeepEqual(got.Rules, c.want) {
				t.Errorf("got  %+v\nwant %+v", got.Rules, c.want)
			}
		})
	}
}

func TestAuthorizePassesOverOtherMeshesAndKinds(t *testing.T) {
	foreign := permission("p", allow, []tags{{}}, []tags{{}})
	foreign.Mesh = "other"
	in := []*resource.Resource{nil, foreign, timeout("t", []tags{{}}, []tags{{}}, nil)}
	if got := Authorize(in, here, service("api")); len(got.Rules) != 0 {
		t.Errorf("got %+v, want no rule", got.Rules)
	}
}

// allows does what a proxy does with an authorization.
func allows(t *testing.T, a ir.Authorization, id string) bool {
	t.Helper()
	matches := func(ms []ir.TextMatch) bool {
		for _, m := range ms {
			switch m.Kind {
			case ir.TextExact:
				if m.Value == id {
					return true
				}
			case ir.TextRegex:
				if regexp.MustCompile(`\A(?:` + m.Value + `)\z`).MatchString(id) {
					return true
				}
			default:
				t.Fatalf("unexpected kind %q", m.Kind)
			}
		}
		return false
	}
	for _, r := range a.Rules {
		if matches(r.Allow) && !matches(r.Except) {
			return true
		}
	}
	return false
}

// oracle finds the policy that wins as the documentation says, pair by pair of selectors, without any of the package's
// functions; nil when none matches.
func oracle(in []*resource.Resource, source, inbound tags) (winner *resource.Resource) {
	match := func(sel, have tags) (exact, wildcard int, ok bool) {
		for k, v := range sel {
			h, present := have[k]
			if !present {
				return 0, 0, false
			}
			if v == "*" {
				wildcard++
			} else if v == h {
				exact++
			} else {
				return 0, 0, false
			}
		}
		return exact, wildcard, true
	}
	var best []int
	for _, r := range in {
		p := r.Spec.(ConnectionPolicy)
		for _, s := range p.GetSources() {
			for _, d := range p.GetDestinations() {
				se, sw, ok := match(s.Match, source)
				de, dw, ok2 := match(d.Match, inbound)
				if !ok || !ok2 {
					continue
				}
				score := []int{se + de, sw + dw, de, dw}
				better := best == nil
				for i := range best {
					if score[i] != best[i] {
						better = score[i] > best[i]
						break
					}
					if i == len(best)-1 {
						better = r.Name < winner.Name
						// Of equally specific permissions one that denies wins, whatever its name.
						if d, w := oracleDenies(r), oracleDenies(winner); d != w {
							better = d
						}
					}
				}
				if better {
					best, winner = score, r
				}
			}
		}
	}
	return winner
}

func oracleDenies(r *resource.Resource) bool {
	tp, ok := r.Spec.(*meshv1.TrafficPermission)
	return ok && tp.GetConf().GetAction() == meshv1.TrafficPermission_ACTION_DENY
}

func TestAuthorizeLikeOracle(t *testing.T) {
	rnd := newRand(t)
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	services := []string{"web", "api", "w.b", "web_ns_svc_80"}
	zones := []string{"east", "west", "e-st"}
	selector := func(withVersion bool) tags {
		s := tags{}
		if rnd.IntN(4) > 0 {
			s["kuma.io/service"] = pick(append(services, "*")...)
		}
		if rnd.IntN(2) > 0 {
			s["kuma.io/zone"] = pick(append(zones, "*")...)
		}
		if withVersion && rnd.IntN(3) == 0 {
			s["version"] = pick("v1", "v2", "*")
		}
		return s
	}
	for round := range 1500 {
		var in []*resource.Resource
		for i := range rnd.IntN(7) {
			var from, to []tags
			for range 1 + rnd.IntN(3) {
				from = append(from, selector(false))
			}
			for range 1 + rnd.IntN(2) {
				to = append(to, selector(true))
			}
			action := []meshv1.TrafficPermission_Action{0, allow, deny, deny}[rnd.IntN(4)]
			in = append(in, permission(fmt.Sprintf("p%d", i), action, from, to))
		}
		inbound := tags{"kuma.io/service": pick(services...), "kuma.io/zone": pick(zones...)}
		if rnd.IntN(2) == 0 {
			inbound["version"] = pick("v1", "v2")
		}
		got := Authorize(in, here, inbound)

		seen := map[string]bool{}
		for _, r := range got.Rules {
			if seen[r.Name] {
				t.Fatalf("round %d: two rules have the name %s", round, r.Name)
			}
			seen[r.Name] = true
		}
		for _, s := range append(services, "wxb", "unheard-of") {
			for _, z := range append(zones, "eXst", "north") {
				id := "spiffe://" + z + ".default.fed.example.com/" + s
				winner := oracle(in, tags{"kuma.io/service": s, "kuma.io/zone": z}, inbound)
				want := winner != nil && winner.Spec.(*meshv1.TrafficPermission).Conf.Action != deny
				if allows(t, got, id) != want {
					t.Fatalf("round %d: %s: oracle says %v\npermissions %v\ninbound %v\nrules %+v", round, id, want, in, inbound, got.Rules)
				}
			}
			for _, id := range []string{
				"spiffe://east.other.fed.example.com/" + s,
				"spiffe://east.default.other.fed.example.com/" + s,
				"spiffe://east.west.default.fed.example.com/" + s,
				"spiffe://east.default.fedXexample.com/" + s,
				"spiffe://east.default.fed.example.com.evil.com/" + s,
				"spiffe://x/east.default.fed.example.com/" + s,
				"spiffe://default.fed.example.com/" + s,
				"spiffe://east.default.fed.example.com/" + s + "/more",
				"spiffe://east.default.fed.example.com/",
				"https://east.default.fed.example.com/" + s,
				"",
			} {
				if allows(t, got, id) {
					t.Fatalf("round %d: foreign peer %q is allowed by %+v", round, id, got.Rules)
				}
			}
		}

		shuffled := append([]*resource.Resource(nil), in...)
		rand.New(rnd).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := Authorize(shuffled, here, inbound); !reflect.DeepEqual(got, again) {
			t.Fatalf("round %d: the order of permissions matters:\n%+v\n%+v", round, got, again)
		}
	}
}

// TestPermits compares with what the destination's own proxy would be told.
func TestPermits(t *testing.T) {
	permission := func(name, from, to string, action meshv1.TrafficPermission_Action) *resource.Resource {
		select1 := func(service string) []*meshv1.Selector {
			return []*meshv1.Selector{{Match: map[string]string{resource.TagService: service}}}
		}
		return &resource.Resource{Key: resource.Key{Kind: "TrafficPermission", Mesh: "m", Name: name},
			Spec: &meshv1.TrafficPermission{Sources: select1(from), Destinations: select1(to), Conf: &meshv1.TrafficPermission_Conf{Action: action}}}
	}
	for _, c := range []struct {
		name        string
		permissions []*resource.Resource
		want        bool
	}{
		{"none", nil, false},
		{"all", []*resource.Resource{permission("a", "*", "*", allow)}, true},
		{"of another", []*resource.Resource{permission("a", "c", "*", allow)}, false},
		{"more specific denies", []*resource.Resource{permission("b", "*", "b", deny), permission("a", "*", "*", allow)}, false},
		{"more specific allows", []*resource.Resource{permission("b", "a", "b", allow), permission("a", "*", "b", deny)}, true},
		{"equals", []*resource.Resource{permission("b", "a", "b", allow), permission("c", "a", "b", deny), permission("d", "a", "b", allow)}, false},
	} {
		if got := Permits(c.permissions, "m", map[string]string{resource.TagService: "a"}, map[string]string{resource.TagService: "b"}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if Permits(c.permissions, "other", map[string]string{resource.TagService: "a"}, map[string]string{resource.TagService: "b"}) {
			t.Errorf("%s: permissions of another mesh count", c.name)
		}
	}
}
