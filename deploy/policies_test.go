// The tests of this file hold what people find under deploy: that examples and policies of the demo are valid, and that the
// demo's do what their comments say.
package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

const (
	policies = "demo/policies"
	domain   = "zoneforge"
)

// read decodes the files that match a pattern as apply would, and fails on any error in them and on a key that is there twice.
func read(t *testing.T, pattern string, opt resource.Options) []*resource.Resource {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no file matches %s: %v", pattern, err)
	}
	var out []*resource.Resource
	seen := map[resource.Key]string{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		batch := resource.Decode(path, data, opt)
		if err := batch.Err(); err != nil {
			t.Fatal(err)
		}
		if len(batch.Notes) > 0 || len(batch.Resources) == 0 {
			t.Errorf("%s: %d resources, notes %v", path, len(batch.Resources), batch.Notes)
		}
		for _, r := range batch.Resources {
			if seen[r.Key] != "" {
				t.Errorf("%s is in %s and %s", r.Key, seen[r.Key], path)
			}
			seen[r.Key] = path
		}
		out = append(out, batch.Resources...)
	}
	return out
}

func TestExamplesAreValid(t *testing.T) {
	read(t, "examples/*.yaml", resource.Options{})
	read(t, "by-hand/*.yaml", resource.Options{})
}

// gateway builds the gateway of a zone from the demo's policies, through to Envoy's resources.
func gateway(t *testing.T, zone string, resources []*resource.Resource) *ir.Proxy {
	t.Helper()
	in := proxyir.Input{
		MeshName: "default", Zone: zone, Domain: domain, Name: "edge-" + zone, Policies: policy.ByKind{},
		Dataplane: &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "127.0.0.1", Gateway: &meshv1.Dataplane_Gateway{
			Type: meshv1.Dataplane_Gateway_TYPE_BUILTIN, Tags: map[string]string{resource.TagService: "edge"}}}},
	}
	for _, r := range resources {
		if r.Kind == "Mesh" {
			in.Mesh = resource.Spec[*meshv1.Mesh](r)
			continue
		}
		in.Policies.Put(r)
	}
	if in.Mesh.GetMtls().GetEnabledBackend() == "" {
		t.Fatal("the demo's mesh has no mutual TLS")
	}
	built, err := proxyir.Gateway(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(built.Rejected) > 0 {
		t.Errorf("the gateway of %s leaves out %v", zone, built.Rejected)
	}
	if _, err := xds.Build(built.Proxy); err != nil {
		t.Fatal(err)
	}
	return built.Proxy
}

// backends gives the clusters with their weights by path prefix.
func backends(p *ir.Proxy) map[string][]ir.WeightedCluster {
	out := map[string][]ir.WeightedCluster{}
	for _, c := range p.Routes {
		for _, h := range c.VirtualHosts {
			for _, r := range h.Routes {
				if r.Forward != nil {
					out[r.Match.Path.Value] = r.Forward.Clusters
				}
			}
		}
	}
	return out
}

func TestDemoRoutes(t *testing.T) {
	resources := read(t, policies+"/*.yaml", resource.Options{RefuseProxy: true})
	for _, zone := range []string{"east", "west"} {
		p := gateway(t, zone, resources)
		var ports []uint32
		for _, l := range p.Listeners {
			if l.Pipe == "" { // the others are the gateway's ways to itself
				ports = append(ports, l.Port)
			}
		}
		if !slices.Equal(ports, []uint32{18080}) {
			t.Errorf("%s: listeners %v, want port 18080 alone", zone, ports)
		}
		got := backends(p)
		for path, services := range map[string][]string{
			"/echo": {"echo"}, "/cross": {"backend"}, "/split": {"echo", "echo"}, "/denied": {"private"},
		} {
			if len(got[path]) != len(services) {
				t.Errorf("%s: %s leads to %v, want %v", zone, path, got[path], services)
				continue
			}
			for i, service := range services {
				if !strings.HasPrefix(got[path][i].Cluster, service+".") {
					t.Errorf("%s: %s leads to %v, want %v", zone, path, got[path], services)
				}
			}
		}
		if split := got["/split"]; len(split) == 2 && (split[0].Weight != 4*split[1].Weight || split[0].Cluster == split[1].Cluster) {
			t.Errorf("%s: split is %v, want four to one of two subsets", zone, split)
		}
	}
}

func TestDemoPermissions(t *testing.T) {
	resources := read(t, policies+"/*.yaml", resource.Options{RefuseProxy: true})
	for _, c := range []struct {
		client, service string
		want            bool
	}{
		{"spiffe://east.default.zoneforge/edge", "echo", true},
		{"spiffe://east.default.zoneforge/edge", "backend", true},
		{"spiffe://west.default.zoneforge/edge", "backend", true},
		{"spiffe://east.default.zoneforge/edge", "private", false},
		{"spiffe://east.default.zoneforge/echo", "private", true},
		{"spiffe://east.default.zoneforge/echo", "backend", false},
		{"spiffe://east.other.zoneforge/edge", "echo", false},
	} {
		rules := policy.Authorize(resources, policy.Identities{Mesh: "default", Domain: domain},
			map[string]string{resource.TagService: c.service, resource.TagZone: "west"}).Rules
		matches := func(m ir.TextMatch) bool {
			if m.Kind == ir.TextExact {
				return m.Value == c.client
			}
			return regexp.MustCompile(m.Value).MatchString(c.client)
		}
		got := slices.ContainsFunc(rules, func(r ir.AuthorizationRule) bool {
			return slices.ContainsFunc(r.Allow, matches) && !slices.ContainsFunc(r.Except, matches)
		})
		if got != c.want {
			t.Errorf("%s to %s: allowed %v, want %v", c.client, c.service, got, c.want)
		}
	}
}

func TestDemoTimeoutAndRetry(t *testing.T) {
	found := 0
	for _, c := range gateway(t, "east", read(t, policies+"/*.yaml", resource.Options{RefuseProxy: true})).Routes {
		for _, h := range c.VirtualHosts {
			for _, r := range h.Routes {
				if r.Forward == nil {
					continue
				}
				found++
				if r.Forward.Timeout != 10*time.Second || r.Forward.Retry == nil || r.Forward.Retry.Attempts != 2 {
					t.Errorf("%s has timeout %s and retry %+v, want 10s and 2 attempts", r.Name, r.Forward.Timeout, r.Forward.Retry)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no route forwards")
	}
}
