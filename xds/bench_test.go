package xds

import (
	"fmt"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/ir"
)

// sidecar is a proxy with an inbound listener and a number of outbounds, each with a route, timeouts, retries and mTLS.
func sidecar(outbounds int) *ir.Proxy {
	uri := func(service string) []ir.TextMatch {
		return []ir.TextMatch{{Kind: ir.TextRegex, Value: `spiffe://[^/.]+\.default\.zoneforge/` + service}}
	}
	anyPath := ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}}
	p := &ir.Proxy{Kind: ir.Sidecar, Mesh: "default", Name: "web-0", Zone: "east", Secrets: []string{"bundle", "svid:web"},
		Listeners: []ir.Listener{{Name: "inbound:8080", Address: "127.0.0.1", Port: 8080, Direction: ir.Inbound, Chains: []ir.FilterChain{{
			Name: "tls", Match: ir.ChainMatch{Transport: "tls"},
			TLS:  &ir.DownstreamTLS{Certificates: []string{"svid:web"}, ClientValidation: "bundle", ClientSANs: []ir.SANMatch{{SAN: ir.SANURI, TextMatch: uri("[a-z]+")[0]}}, ALPN: []string{"h2", "http/1.1"}},
			HTTP: &ir.HTTPConnection{StatPrefix: "inbound", RouteConfig: "inbound:8080", ForwardClientCertificate: true}}}}},
		Routes: []ir.RouteConfig{{Name: "inbound:8080", VirtualHosts: []ir.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []ir.Route{{
			Name: "all", Match: anyPath, Forward: &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: "local:8080", Weight: 1}}},
			Filters: ir.Filters{Authorization: &ir.Authorization{Rules: []ir.AuthorizationRule{{Name: "all", Allow: uri("[a-z]+")}}}}}}}}}},
		Clusters: []ir.Cluster{{Name: "local:8080", Protocol: ir.HTTP1, Static: &ir.Endpoint{Address: "127.0.0.1", Port: 9090}, ConnectTimeout: time.Second}},
	}
	for i := range outbounds {
		service, name := fmt.Sprintf("service-%03d", i), fmt.Sprintf("outbound:%d", 10000+i)
		p.Listeners = append(p.Listeners, ir.Listener{Name: name, Address: "127.0.0.1", Port: uint32(10000 + i), Direction: ir.Outbound,
			Chains: []ir.FilterChain{{Name: "http", HTTP: &ir.HTTPConnection{StatPrefix: service, RouteConfig: name}}}})
		p.Routes = append(p.Routes, ir.RouteConfig{Name: name, VirtualHosts: []ir.VirtualHost{{Name: service, Domains: []string{"*"},
			Routes: []ir.Route{{Name: service, Match: anyPath, Forward: &ir.Forward{
				Clusters: []ir.WeightedCluster{{Cluster: "default:" + service, Weight: 1}}, Timeout: 15 * time.Second,
				Retry: &ir.Retry{On: []string{"5xx", "connect-failure"}, Attempts: 3, PerTryTimeout: time.Second}}}}}}})
		p.Clusters = append(p.Clusters, ir.Cluster{Name: "default:" + service, Protocol: ir.HTTP2, EndpointsName: "default:" + service,
			ConnectTimeout: 5 * time.Second, TLS: &ir.UpstreamTLS{Certificate: "svid:web", Validation: "bundle", SANs: uri(service),
				SNI: service + ".default.zoneforge", ALPN: []string{"zoneforge"}}})
	}
	return p
}

// BenchmarkBuildSidecar translates a sidecar with 30 outbounds.
func BenchmarkBuildSidecar(b *testing.B) {
	p := sidecar(30)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIntern shares what is built of many such sidecars.
func BenchmarkIntern(b *testing.B) {
	var in Interner
	rs, err := Build(sidecar(30))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		in.InternAll(rs, nil)
	}
}

// BenchmarkBuildEndpoints translates a service with 100 endpoints in each of two zones.
func BenchmarkBuildEndpoints(b *testing.B) {
	e := &ir.Endpoints{Name: "default:web"}
	for zone := range 2 {
		l := ir.Locality{Zone: fmt.Sprint("zone-", zone), Priority: uint32(zone), Weight: 1}
		for i := range 100 {
			l.Endpoints = append(l.Endpoints, ir.Endpoint{Address: fmt.Sprintf("10.%d.0.%d", zone, i), Port: 8080, Weight: 1})
		}
		e.Localities = append(e.Localities, l)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := BuildEndpoints(e); err != nil {
			b.Fatal(err)
		}
	}
}
