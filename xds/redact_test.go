package xds

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
)

// TestRedacted shows routes with every kind of credential: texts, lists of messages, maps and messages in messages of any type.
func TestRedacted(t *testing.T) {
	rs, err := Build(&ir.Proxy{
		Kind: ir.Gateway, Clusters: []ir.Cluster{{Name: "c", Protocol: ir.HTTP2, EndpointsName: "c"}},
		Routes: []ir.RouteConfig{{Name: "r", VirtualHosts: []ir.VirtualHost{{Name: "h", Domains: []string{"*"}, Routes: []ir.Route{{
			Name: "named", Direct: &ir.DirectResponse{Status: 200},
			Filters: ir.Filters{
				APIKey:    &ir.APIKey{Keys: []ir.ClientKey{{Client: "acme", Key: "hush-key"}}, Places: []ir.KeyPlace{{Header: "x-shown"}}},
				BasicAuth: &ir.BasicAuth{Users: "u:{SHA}hushhushhushhushhushhushhus=\n", UserHeader: "x-shown-too"},
				ExtAuth:   &ir.ExtAuth{Cluster: "c", Timeout: 1, GRPC: &ir.ExtAuthGRPC{Authority: "shown-service", Context: map[string]string{"k": "hush-context"}}},
				JWT:       &ir.JWT{Providers: []ir.JWTProvider{{Name: "p", Issuer: "shown-issuer", Local: []byte(`{"keys":[{"kty":"oct","k":"hush-sign"}]}`)}}},
			},
		}}}}}},
		Listeners: []ir.Listener{{Name: "l", Address: "127.0.0.1", Port: 80, Direction: ir.Edge, Chains: []ir.FilterChain{{Name: "c", HTTP: &ir.HTTPConnection{StatPrefix: "l", RouteConfig: "r"}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	before := rs.Routes[0].Version
	text, err := Redacted(rs.Routes[0])
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) || strings.Contains(string(text), "hush") {
		t.Errorf("it shows a credential, or is no JSON: %s", text)
	}
	for _, want := range []string{"named", "x-shown", "x-shown-too", "shown-service", redacted} {
		if !strings.Contains(string(text), want) {
			t.Errorf("it does not show %q: %s", want, text)
		}
	}
	again, err := Redacted(rs.Routes[0])
	if err != nil || rs.Routes[0].Version != before || len(again) == 0 {
		t.Errorf("the resource itself changed: %v", err)
	}
	if raw := rs.Routes[0].Any().String(); !strings.Contains(raw, "hush-key") {
		t.Error("the key is not in the resource, so the test shows nothing")
	}
	for _, r := range rs.Extensions {
		if r.Name != jwtFilter {
			continue
		}
		text, err := Redacted(r)
		if err != nil || strings.Contains(string(text), "hush") || !strings.Contains(string(text), "shown-issuer") {
			t.Errorf("it shows a key that signs, or too little: %s %v", text, err)
		}
		return
	}
	t.Error("there are no providers")
}
