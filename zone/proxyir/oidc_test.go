package proxyir_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// Of different logins that would share a path of a host, the first keeps it and the others are closed; equal ones share it.
func TestLoginsOfOneHost(t *testing.T) {
	login := func(client, redirect, logout string) *meshv1.Filter {
		return &meshv1.Filter{Filter: &meshv1.Filter_Oidc{Oidc: &meshv1.Oidc{AuthorizationEndpoint: "https://login.example.com/a", TokenEndpoint: &meshv1.HttpUri{Uri: "https://login.example.com/t"},
			ClientId: client, ClientSecret: &meshv1.SecretReference{Secret: "s"}, RedirectPath: redirect, LogoutPath: logout}}}
	}
	with := func(name, host string, f *meshv1.Filter) *resource.Resource {
		r := route(name, []string{host}, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/"+name))
		resource.Spec[*meshv1.MeshGatewayRoute](r).Conf.Http.Rules[0].Filters = []*meshv1.Filter{f}
		return r
	}
	for _, c := range []struct {
		name   string
		routes []*resource.Resource
		closed []string
		blame  string
	}{
		{"one for both", []*resource.Resource{with("a", "x.org", login("c", "", "")), with("b", "x.org", login("c", "", ""))}, nil, ""},
		{"paths of their own", []*resource.Resource{with("a", "x.org", login("c", "/c", "/bye-c")), with("b", "x.org", login("d", "/d", "/bye-d"))}, nil, ""},
		{"hosts of their own", []*resource.Resource{with("a", "x.org", login("c", "", "")), with("b", "y.org", login("d", "", ""))}, nil, ""},
		{"one path", []*resource.Resource{with("b", "x.org", login("d", "", "")), with("a", "x.org", login("c", "", ""))}, []string{"b/0/0"}, "MeshGatewayRoute default/b"},
		{"one path to log out", []*resource.Resource{with("a", "x.org", login("c", "/c", "")), with("b", "x.org", login("d", "/d", ""))}, []string{"b/0/0"}, "MeshGatewayRoute default/b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := gatewayInput()
			in.SecretData = func(string) ([]byte, bool) { return []byte("secret"), true }
			in.Policies["MeshGatewayRoute"] = policy.NewList(append(c.routes, route("open", nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/")))...)
			r, err := proxyir.Gateway(in)
			p, _ := accepted(t, r, err)
			var shut []string
			for _, host := range p.Routes[0].VirtualHosts {
				for _, route := range host.Routes {
					if route.Direct != nil && route.Direct.Status == 503 {
						shut = append(shut, route.Name)
					}
				}
			}
			if !reflect.DeepEqual(shut, c.closed) {
				t.Errorf("closed are %v, want %v", shut, c.closed)
			}
			blame := fmt.Sprint(r.Rejected)
			if (len(r.Rejected) > 0) != (c.blame != "") || !strings.Contains(blame, c.blame) || c.blame != "" && !strings.Contains(blame, "is that of the login of MeshGatewayRoute/a/0, which differs: give each") {
				t.Errorf("rejected %v, want %q", r.Rejected, c.blame)
			}
		})
	}
}
