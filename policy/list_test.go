package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// some are up to three sets of tags, of which many name a service.
func some(rnd *rand.Rand) (out []tags) {
	for range rnd.IntN(4) {
		one := tags{}
		for _, tag := range []string{resource.TagService, "version"} {
			if v := []string{"", "a", "b", "c", "*"}[rnd.IntN(5)]; v != "" {
				one[tag] = v
			}
		}
		out = append(out, one)
	}
	return out
}

// TestListFindsAllThatMatch changes lists at random and holds that what they find decides as all that they hold does.
func TestListFindsAllThatMatch(t *testing.T) {
	rnd := newRand(t)
	for range 100 {
		list, held := NewList(), map[string]*resource.Resource{}
		for range rnd.IntN(40) {
			name := fmt.Sprint("p", rnd.IntN(12))
			if rnd.IntN(4) == 0 {
				if _, is := held[name]; list.Delete(name) != is {
					t.Fatalf("deleting %s says %v", name, !is)
				}
				delete(held, name)
				continue
			}
			key := resource.Key{Mesh: "default", Name: name}
			held[name] = []*resource.Resource{
				{Key: key, Spec: &meshv1.TrafficPermission{Sources: selectors(some(rnd)...), Destinations: selectors(some(rnd)...)}},
				{Key: key, Spec: &meshv1.RateLimit{Selectors: selectors(some(rnd)...), Sources: selectors(some(rnd)...), Destinations: selectors(some(rnd)...)}},
				{Key: key, Spec: &meshv1.MeshGateway{Selectors: selectors(some(rnd)...)}},
				{Key: key, Spec: &meshv1.LocalityPolicy{Destinations: selectors(some(rnd)...)}},
			}[rnd.IntN(4)]
			list.Put(held[name])
		}
		all := slices.SortedFunc(maps.Values(held), byName)
		if !slices.Equal(list.All(), all) || list.Len() != len(all) {
			t.Fatalf("it holds %v, want %v", names(list.All()...), names(all...))
		}
		for range 20 {
			from, to := tags{}, tags{"version": "a"}
			for _, one := range []tags{from, to} {
				if v := []string{"", "a", "b", "d"}[rnd.IntN(4)]; v != "" {
					one[resource.TagService] = v
				}
			}
			same := func(what string, got, want []*resource.Resource) {
				t.Helper()
				if !slices.Equal(got, want) {
					t.Fatalf("%s: %v to %v: got %v, want %v of %v", what, from, to, names(got...), names(want...), all)
				}
			}
			one := func(r *resource.Resource) []*resource.Resource { return []*resource.Resource{r} }
			same("connection", one(MostSpecificForConnection(list.Between(from, to), "default", from, to)), one(MostSpecificForConnection(all, "default", from, to)))
			same("destination", one(LocalityPolicyFor(list.To(to), "default", to)), one(LocalityPolicyFor(all, "default", to)))
			same("proxy", AllMatching(list.Of(from), "default", from), AllMatching(all, "default", from))
			same("one of two", one(MostSpecificForAny(list.Of(from, to), "default", []map[string]string{from, to})), one(MostSpecificForAny(all, "default", []map[string]string{from, to})))
			if a, b := Permits(list.Between(from, to), "default", from, to), Permits(all, "default", from, to); a != b {
				t.Fatalf("%v to %v: permitted %v, want %v of %v", from, to, a, b, all)
			}
			if a, b := fmt.Sprintf("%+v", Authorize(list.To(to), here, to)), fmt.Sprintf("%+v", Authorize(all, here, to)); a != b {
				t.Fatalf("to %v: got %s, want %s of %v", to, a, b, all)
			}
			if a, b := fmt.Sprintf("%+v", Clients(list.To(to), here, to)), fmt.Sprintf("%+v", Clients(all, here, to)); a != b {
				t.Fatalf("to %v: got %s, want %s of %v", to, a, b, all)
			}
			matching := func(in []*resource.Resource) []*resource.Resource {
				return slices.DeleteFunc(slices.Clone(in), func(r *resource.Resource) bool {
					spec, ok := r.Spec.(ConnectionPolicy)
					if ok {
						_, ok = Best(spec.GetSources(), from)
					}
					return !ok
				})
			}
			found := matching(list.From(from))
			slices.SortFunc(found, byName)
			same("source", found, matching(all))
		}
	}
}

// TestListFindsFew counts what has to be looked at among many policies: as many as among few.
func TestListFindsFew(t *testing.T) {
	for _, n := range []int{10, 1000} {
		list := NewList(timeout("all", []tags{service("*")}, []tags{service("*")}, nil))
		for i := range n {
			s := service(fmt.Sprint("s", i))
			list.Put(timeout(fmt.Sprint("to-", i), []tags{service("*")}, []tags{s}, nil))
			list.Put(timeout(fmt.Sprint("from-", i), []tags{s}, []tags{service("*")}, nil))
			list.Put(timeout(fmt.Sprint("popular-", i), []tags{s}, []tags{service("popular")}, nil))
			list.Put(&resource.Resource{Key: resource.Key{Mesh: "default", Name: fmt.Sprint("gateway-", i)}, Spec: &meshv1.MeshGateway{Selectors: selectors(s)}})
		}
		for what, got := range map[string][]*resource.Resource{
			"between two":        list.Between(service("s1"), service("s2")),
			"to a popular one":   list.Between(service("s1"), service("popular")),
			"to one":             list.To(service("s3")),
			"of one":             list.Of(service("s4")),
			"of one of two":      list.Of(service("s4"), tags{}, service("s5")),
			"without a service":  list.Between(tags{}, tags{}),
			"from a popular one": list.Between(service("popular"), service("s1")),
		} {
			want := map[string][]string{
				"between two": {"all", "to-2", "from-1"}, "to a popular one": {"all", "from-1", "popular-1"},
				"of one": {"gateway-4"}, "of one of two": {"gateway-4", "gateway-5"}, "without a service": {"all"}, "from a popular one": {"all", "to-1"},
			}[what]
			if what == "to one" {
				if len(got) != n+2 { // those of each client that are for any destination may be for this one
					t.Errorf("%s: %d of %d", what, len(got), n)
				}
				continue
			}
			if !slices.Equal(names(got...), want) {
				t.Errorf("%s of %d: %v, want %v", what, n, names(got...), want)
			}
		}
	}
}

// TestListOfManyPairs holds that a policy of many services at both ends is kept at few places, and still found.
func TestListOfManyPairs(t *testing.T) {
	var many []tags
	for i := range 100 {
		many = append(many, service(fmt.Sprint("s", i)))
	}
	list := NewList(timeout("both", many, many, nil), timeout("clients", many, []tags{service("s7")}, nil))
	if n := len(list.between); n > 3*maxPairs {
		t.Errorf("they are kept at %d places", n)
	}
	if got := names(list.Between(service("s1"), service("s7"))...); !slices.Equal(got, []string{"both", "clients"}) {
		t.Errorf("found %v", got)
	}
	list.Delete("both")
	list.Delete("clients")
	if n := len(list.between) + len(list.to) + len(list.from) + len(list.of) + list.Len(); n > 0 {
		t.Errorf("%d places are left", n)
	}
}
