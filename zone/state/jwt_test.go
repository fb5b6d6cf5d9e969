package state_test

import (
	"strings"
	"testing"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/state"
)

// TestFormerTokensStay changes what a gateway's route asks for: the filter keeps what it was asked for before, so that routes that
// are still those of before find it, until the next such change. Other changes leave it as it is.
func TestFormerTokensStay(t *testing.T) {
	s := world(t)
	filter := ""
	for _, c := range []struct{ audience, to, former string }{
		{"a", "echo", ""}, {"b", "echo", "a"}, {"b", "other", "a"}, {"", "echo", "b"}, {"", "other", "b"}, {"c", "echo", ""},
	} {
		route := gatewayRoute(c.to)
		if c.audience != "" {
			provider := &meshv1.JwtProvider{Audiences: []string{c.audience}, RemoteJwks: &meshv1.JwtRemoteJwks{HttpUri: &meshv1.HttpUri{Uri: "https://issuer.example.com/keys"}}}
			route.Conf.Http.Rules[0].Filters = []*meshv1.Filter{{Filter: &meshv1.Filter_Jwt{Jwt: &meshv1.Jwt{Providers: map[string]*meshv1.JwtProvider{"p": provider}}}}}
		}
		if rejected := s.Apply([]*kdsv1.Record{rec(t, "MeshGatewayRoute", "echo", route)}, nil, false); len(rejected) > 0 {
			t.Fatal(rejected)
		}
		built, err := s.BuildProxy(gateway().ID)
		if err != nil {
			t.Fatal(err)
		}
		var former []string
		for _, j := range state.FormerTokens(s, gateway().ID) {
			former = append(former, j.Providers[0].Audiences...)
		}
		if got := strings.Join(former, " "); got != c.former {
			t.Errorf("%+v: the filter keeps %q", c, got)
		}
		for r := range built.Resources.Each(xds.TypeExtension) {
			if r.Name == "envoy.filters.http.jwt_authn" && r.TypeURL == xds.TypeExtension {
				if same := r.Version == filter; same != (c.to == "other") {
					t.Errorf("%+v: whether the filter stays as it is: %v", c, same)
				}
				filter = r.Version
			}
		}
	}
}
