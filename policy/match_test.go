package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

type tags = map[string]string

func selectors(all ...tags) []*meshv1.Selector {
	var out []*meshv1.Selector
	for _, t := range all {
		out = append(out, &meshv1.Selector{Match: t})
	}
	return out
}

func service(name string) tags { return tags{resource.TagService: name} }

func gateway(mesh, name string, sel ...tags) *resource.Resource {
	return &resource.Resource{
		Key:  resource.Key{Kind: "MeshGateway", Mesh: mesh, Name: name},
		Spec: &meshv1.MeshGateway{Selectors: selectors(sel...)},
	}
}

func timeout(name string, from, to []tags, conf *meshv1.Timeout_Conf) *resource.Resource {
	return &resource.Resource{
		Key:  resource.Key{Kind: "Timeout", Mesh: "default", Name: name},
		Spec: &meshv1.Timeout{Sources: selectors(from...), Destinations: selectors(to...), Conf: conf},
	}
}

func names(rs ...*resource.Resource) []string {
	out := []string{}
	for _, r := range rs {
		if r != nil {
			out = append(out, r.Name)
		}
	}
	return out
}

// newRand prints the seed, by which a failure can be repeated.
func newRand(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}

func TestMatches(t *testing.T) {
	proxy := tags{"kuma.io/service": "web", "version": "v1", "empty": ""}
	for _, c := range []struct {
		name string
		sel  *meshv1.Selector
		want bool
	}{
		{"no selector", nil, true},
		{"no tags", &meshv1.Selector{}, true},
		{"same value", &meshv1.Selector{Match: tags{"version": "v1"}}, true},
		{"other value", &meshv1.Selector{Match: tags{"version": "v2"}}, false},
		{"all must match", &meshv1.Selector{Match: tags{"version": "v1", "kuma.io/service": "api"}}, false},
		{"wildcard of a present tag", &meshv1.Selector{Match: tags{"version": "*"}}, true},
		{"wildcard of an empty tag", &meshv1.Selector{Match: tags{"empty": "*"}}, true},
		{"wildcard of an absent tag", &meshv1.Selector{Match: tags{"region": "*"}}, false},
		{"empty value is not absence", &meshv1.Selector{Match: tags{"region": ""}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Matches(c.sel, proxy); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestOrderForProxies(t *testing.T) {
	proxy := tags{"kuma.io/service": "edge", "kuma.io/zone": "east", "env": "prod"}
	for _, c := range []struct {
		name string
		in   []*resource.Resource
		want []string
	}{
		{"nothing", nil, []string{}},
		{"nothing matches", []*resource.Resource{gateway("default", "a", service("other"))}, []string{}},
		{"no selectors match nobody", []*resource.Resource{gateway("default", "a")}, []string{}},
		{"exact before wildcards", []*resource.Resource{
			gateway("default", "a", tags{"kuma.io/service": "*", "kuma.io/zone": "*", "env": "*"}),
			gateway("default", "b", service("edge")),
		}, []string{"b", "a"}},
		{"wildcards decide between as many exact", []*resource.Resource{
			gateway("default", "a", service("edge")),
			gateway("default", "b", tags{"kuma.io/service": "edge", "env": "*"}),
		}, []string{"b", "a"}},
		{"names decide at last", []*resource.Resource{
			gateway("default", "b", service("edge")), gateway("default", "a", tags{"env": "prod"}),
		}, []string{"a", "b"}},
		{"the best selector counts", []*resource.Resource{
			gateway("default", "a", service("edge")),
			gateway("default", "b", service("*"), tags{"env": "prod", "kuma.io/zone": "east"}, tags{"a": "1", "b": "2", "c": "3"}),
		}, []string{"b", "a"}},
		{"other meshes and kinds are passed over", []*resource.Resource{
			nil, gateway("other", "a", service("edge")), timeout("b", []tags{{}}, []tags{{}}, nil), gateway("default", "c", tags{}),
		}, []string{"c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 10 {
				if got := names(AllMatching(c.in, "default", proxy)...); !slices.Equal(got, c.want) {
					t.Fatalf("all: got %v, want %v", got, c.want)
				}
				first := c.want[:min(1, len(c.want))]
				if got := names(MostSpecific(c.in, "default", proxy)); !slices.Equal(got, first) {
					t.Fatalf("most specific: got %v, want %v", got, first)
				}
				rand.Shuffle(len(c.in), func(i, j int) { c.in[i], c.in[j] = c.in[j], c.in[i] })
			}
		})
	}
}

func TestMostSpecificForConnection(t *testing.T) {
	from := tags{"kuma.io/service": "web", "kuma.io/zone": "east"}
	to := tags{"kuma.io/service": "api", "version": "v2"}
	all := []tags{service("*")}
	for _, c := range []struct {
		name string
		in   []*resource.Resource
		want []string
	}{
		{"both ends must match", []*resource.Resource{
			timeout("a", []tags{service("web")}, []tags{service("db")}, nil),
			timeout("b", []tags{service("db")}, []tags{service("api")}, nil),
			timeout("c", nil, all, nil), timeout("d", all, nil, nil),
		}, []string{}},
		{"both ends add up", []*resource.Resource{
			timeout("a", all, []tags{service("api")}, nil),
			timeout("b", []tags{from}, all, nil),
		}, []string{"b"}},
		{"the destination decides between equal sums", []*resource.Resource{
			timeout("a", []tags{service("web")}, all, nil),
			timeout("b", all, []tags{service("api")}, nil),
		}, []string{"b"}},
		{"names decide at last", []*resource.Resource{
			timeout("z", all, all, nil), timeout("b", all, all, nil), timeout("c", all, all, nil),
		}, []string{"b"}},
		{"a tag fewer is less than a wildcard", []*resource.Resource{
			timeout("a", []tags{{}}, all, nil), timeout("b", all, all, nil),
		}, []string{"b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 10 {
				if got := names(MostSpecificForConnection(c.in, "default", from, to)); !slices.Equal(got, c.want) {
					t.Fatalf("got %v, want %v", got, c.want)
				}
				rand.Shuffle(len(c.in), func(i, j int) { c.in[i], c.in[j] = c.in[j], c.in[i] })
			}
		})
	}
	if got := MostSpecificForConnection([]*resource.Resource{timeout("a", all, all, nil)}, "other", from, to); got != nil {
		t.Errorf("a policy of another mesh holds: %v", got.Key)
	}
}

func TestMostSpecificForConnectionLikeOracle(t *testing.T) {
	rnd := newRand(t)
	random := func(values ...string) tags {
		out := tags{}
		for _, tag := range []string{"kuma.io/service", "kuma.io/zone", "version"} {
			if v := values[rnd.IntN(len(values))]; v != "" {
				out[tag] = v
			}
		}
		return out
	}
	some := func() (out []tags) {
		for range rnd.IntN(4) {
			out = append(out, random("", "", "a", "b", "*"))
		}
		return out
	}
	for round := range 5000 {
		var in []*resource.Resource
		for i := range rnd.IntN(8) {
			in = append(in, timeout(fmt.Sprintf("t%d", i), some(), some(), nil))
		}
		rnd.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		from, to := random("", "a", "b"), random("", "a", "b")
		if got, want := MostSpecificForConnection(in, "default", from, to), oracle(in, from, to); got != want {
			t.Fatalf("round %d: got %v, oracle says %v\nfrom %v to %v\npolicies %v", round, names(got), names(want), from, to, in)
		}
	}
}

func BenchmarkMostSpecificForConnection(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			var in []*resource.Resource
			for i := range n {
				in = append(in, timeout(fmt.Sprintf("t%d", i), []tags{service("*")}, []tags{service(fmt.Sprintf("s%d", i))}, nil))
			}
			from, to := service("web"), tags{"kuma.io/service": fmt.Sprintf("s%d", n/2), "version": "v1"}
			b.ReportAllocs()
			for b.Loop() {
				if MostSpecificForConnection(in, "default", from, to) == nil {
					b.Fatal("no match")
				}
			}
		})
	}
}

func BenchmarkAuthorize(b *testing.B) {
	var in []*resource.Resource
	for i := range 1000 {
		action := meshv1.TrafficPermission_ACTION_ALLOW
		if i%10 == 0 {
			action = meshv1.TrafficPermission_ACTION_DENY
		}
		to := service(fmt.Sprintf("s%d", i%20))
		in = append(in, permission(fmt.Sprintf("p%d", i), action, []tags{service(fmt.Sprintf("c%d", i))}, []tags{to}))
	}
	to := service("s10")
	b.ReportAllocs()
	for b.Loop() {
		Authorize(in, here, to)
	}
}
