// Package e2e proves the data path with real Envoys and real requests. It owns no product code.
package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/zoneforge/zoneforge/dataplane"
	"github.com/zoneforge/zoneforge/e2e/loopback"
	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/policy"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/xds/server"
)

const (
	mesh   = "default"
	domain = "zoneforge"
	token  = "a-token-of-this-test"
	svid   = "svid"
	bundle = "bundle"
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// zone is the xDS side of one zone with its intermediate.
type zone struct {
	name    string
	issuer  pki.Authority
	bundle  pki.Bundle
	server  *server.Server
	address string
	caFile  string
	moved   chan struct{}

	mu      sync.Mutex
	refused []string
}

func (z *zone) Connect(_ context.Context, node *corev3.Node, got string) (server.ProxyID, error) {
	if got != token {
		z.mu.Lock()
		defer z.mu.Unlock()
		z.refused = append(z.refused, node.GetId())
		return "", status.Error(codes.Unauthenticated, "wrong token")
	}
	return server.ProxyID(node.GetId()), nil
}

func (z *zone) Disconnect(server.ProxyID) {}

func (z *zone) OnProgress(server.ProxyID, server.Progress) {
	select {
	case z.moved <- struct{}{}:
	default:
	}
}

// await blocks until a proxy acknowledged a revision.
func (z *zone) await(t *testing.T, id server.ProxyID, revision uint64) {
	t.Helper()
	deadline := time.After(awaitTime)
	for {
		st, _ := z.server.Status(id)
		if st.Acked >= revision {
			if len(st.Nacks) > 0 {
				t.Fatalf("%s rejected: %+v", id, st.Nacks)
			}
			return
		}
		select {
		case <-z.moved:
		case <-deadline:
			t.Fatalf("%s did not acknowledge revision %d: %+v", id, revision, st)
		}
	}
}

func newZone(t *testing.T, name string, root pki.Authority, roots pki.Bundle) *zone {
	t.Helper()
	now := time.Now()
	td := must(pki.NewTrustDomain(name, mesh, domain))(t)
	key := must(pki.NewKey(rand.Reader))(t)
	csr := must(pki.NewRequest(rand.Reader, key, td))(t)
	chain := must(pki.SignIntermediate(rand.Reader, now, root, td, csr, pki.Validity{}))(t)
	z := &zone{name: name, bundle: roots, moved: make(chan struct{}, 1)}
	z.issuer = must(pki.LoadIntermediate(pki.EncodeCertificates(chain...), key, td, roots, now))(t)

	ca := must(pki.NewServerAuthority(rand.Reader, now, "zone "+name, pki.Validity{}))(t)
	certificate := must(pki.NewServerCertificate(rand.Reader, now, ca, []string{"127.0.0.1", "localhost"}, pki.Validity{}))(t)
	pair := must(tls.X509KeyPair(pki.EncodeCertificates(certificate.Chain...), must(certificate.Key.PEM())(t)))(t)
	z.caFile = write(t, "ca.pem", pki.EncodeCertificates(ca.Certificate))

	z.server = must(server.New(server.Config{Authenticator: z, Observer: z}))(t)
	lis := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	z.address = lis.Addr().String()
	g := grpc.NewServer(server.Option(), grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})))
	z.server.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(lis) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return z
}

// issue makes the SVID of a service of the zone.
func (z *zone) issue(t *testing.T, service string) pki.SVID {
	t.Helper()
	id := pki.ID{TrustDomain: pki.TrustDomain{Zone: z.name, Mesh: mesh, Domain: domain}, Service: service}
	return must(pki.NewSVID(rand.Reader, time.Now(), z.issuer, id, pki.Validity{}))(t)
}

// configure gives a proxy its resources, with the SVID of a service where it has one.
func (z *zone) configure(t *testing.T, id server.ProxyID, revision uint64, p *ir.Proxy, identity *pki.SVID) {
	t.Helper()
	resources := must(xds.Build(p))(t)
	var secrets []*xds.Resource
	if identity != nil {
		key := must(identity.Key.PEM())(t)
		secrets = append(secrets,
			must(xds.BuildSecret(&ir.Secret{Name: bundle, Bundle: z.bundle.PEM()}))(t),
			must(xds.BuildSecret(&ir.Secret{Name: svid, Certificate: &ir.Certificate{Chain: identity.ChainPEM(), Key: key}}))(t))
	}
	z.server.SetProxy(id, revision, resources, secrets)
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a real Envoy from the product's own bootstrap and returns its identifier.
func (z *zone) start(t *testing.T, kind, name string) server.ProxyID {
	t.Helper()
	b := dataplane.Bootstrap{
		Kind: kind, Name: name, Service: name, Document: []byte(`{}`), ControlPlanes: []string{z.address}, CAFile: z.caFile,
		TokenFile: write(t, "token", []byte(token)), AdminSocket: filepath.Join(t.TempDir(), "admin.sock"),
	}
	if kind == "Dataplane" {
		b.Mesh = mesh
	}
	config := write(t, "bootstrap.json", must(b.JSON())(t))
	var log bytes.Buffer
	cmd := exec.Command(envoyBinary(t), "-c", config, "--disable-hot-restart", "--concurrency", "1", "-l", "warning")
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Dir(b.AdminSocket), &log, &log // pipes lie where it runs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(endTime, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", b.NodeID(), log.String())
		}
	})
	return server.ProxyID(b.NodeID())
}

func envoyBinary(t *testing.T) string {
	t.Helper()
	path := must(filepath.Abs("../.tools/bin/envoy"))(t)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Envoy: run `make tools`: %v", err)
	}
	return path
}

func freePort(t *testing.T) uint32 {
	t.Helper()
	return must(loopback.Port())(t)
}

func all(routes ...ir.Route) []ir.VirtualHost {
	return []ir.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}
}

var anyPath = ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}}

// sidecar is echo's proxy: it terminates mutual TLS and authorizes by SPIFFE ID.
func sidecar(port, workload uint32, authorization ir.Authorization) *ir.Proxy {
	return &ir.Proxy{
		Kind: ir.Sidecar, Mesh: mesh, Name: "echo-1", Zone: "west", Secrets: []string{bundle, svid},
		Listeners: []ir.Listener{{
			Name: "inbound", Address: "127.0.0.1", Port: port, Direction: ir.Inbound,
			Chains: []ir.FilterChain{{
				Name: "mtls",
				TLS:  &ir.DownstreamTLS{Certificates: []string{svid}, ClientValidation: bundle},
				HTTP: &ir.HTTPConnection{StatPrefix: "inbound", RouteConfig: "inbound", ForwardClientCertificate: true},
			}},
		}},
		Routes: []ir.RouteConfig{{Name: "inbound", VirtualHosts: all(ir.Route{
			Name: "workload", Match: anyPath, Filters: ir.Filters{Authorization: &authorization},
			Forward: &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: "workload", Weight: 1}}, Timeout: 15 * time.Second},
		})}},
		Clusters: []ir.Cluster{{
			Name: "workload", Protocol: ir.HTTP1, ConnectTimeout: 15 * time.Second,
			Static: &ir.Endpoint{Address: "127.0.0.1", Port: workload},
		}},
	}
}

// gateway forwards everything that enters its port to echo, wherever that is.
func gateway(port uint32, sni string) *ir.Proxy {
	return &ir.Proxy{
		Kind: ir.Gateway, Mesh: mesh, Name: "edge-1", Zone: "east", Secrets: []string{bundle, svid},
		Listeners: []ir.Listener{{
			Name: "edge", Address: "127.0.0.1", Port: port, Direction: ir.Edge,
			Chains: []ir.FilterChain{{Name: "http", HTTP: &ir.HTTPConnection{StatPrefix: "edge", RouteConfig: "edge", Edge: true}}},
		}},
		Routes: []ir.RouteConfig{{Name: "edge", VirtualHosts: all(ir.Route{
			Name: "echo", Match: anyPath,
			Forward: &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: "echo", Weight: 1}}, Timeout: 15 * time.Second},
		})}},
		Clusters: []ir.Cluster{{
			Name: "echo", Protocol: ir.HTTP1, ConnectTimeout: 15 * time.Second, EndpointsName: ingress.EndpointsName(sni, ingress.ClientView),
			TLS: &ir.UpstreamTLS{
				Certificate: svid, Validation: bundle, SNI: sni,
				SANs: []ir.TextMatch{{Kind: ir.TextRegex, Value: `spiffe://[^./]+\.default\.zoneforge/echo`}},
			},
		}},
	}
}

func permission(name string, action meshv1.TrafficPermission_Action, source map[string]string) *resource.Resource {
	return &resource.Resource{Key: resource.Key{Kind: "TrafficPermission", Mesh: mesh, Name: name}, Spec: &meshv1.TrafficPermission{
		Sources:      []*meshv1.Selector{{Match: source}},
		Destinations: []*meshv1.Selector{{Match: map[string]string{resource.TagService: "echo"}}},
		Conf:         &meshv1.TrafficPermission_Conf{Action: action},
	}}
}

// TestOneRequestCrossesTwoZones sends a request through the gateway of east, the zone ingress of west, which opens nothing,
// and the sidecar of west to a workload; all three are real Envoys. Then it breaks each promise on purpose: a permission
// that denies, and a client whose certificate for east was signed with the intermediate of west.
func TestOneRequestCrossesTwoZones(t *testing.T) {
	root := must(pki.NewRoot(rand.Reader, time.Now(), mesh, pki.Validity{}))(t)
	roots := must(pki.NewBundle(root.Certificate))(t)
	east, west := newZone(t, "east", root, roots), newZone(t, "west", root, roots)
	workload := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-Client-Cert"))
	}))
	t.Cleanup(workload.Close)

	tags := map[string]string{resource.TagService: "echo", resource.TagProtocol: "http"}
	echo := ingress.Destination{Mesh: mesh, Service: "echo"}
	sni := must(echo.SNI())(t)
	sidecarPort, ingressPort, gatewayPort := freePort(t), freePort(t), freePort(t)

	edge, echoSVID := east.issue(t, "edge"), west.issue(t, "echo")
	zi := &meshv1.ZoneIngress{Zone: "west", Networking: &meshv1.ZoneIngress_Networking{Address: "127.0.0.1", Port: ingressPort}}
	ingressProxy := must(ingress.Proxy("ingress-1", zi, []ingress.Destination{echo}))(t)

	local := ingress.Endpoints{Destination: echo, Zone: "west", MTLS: true, Local: []ingress.Local{{Address: "127.0.0.1", Port: sidecarPort, Tags: tags}}}
	remote := ingress.Endpoints{
		Destination: echo, Zone: "east", MTLS: true, Ingresses: []ingress.Remote{{Zone: "west", Address: "127.0.0.1", Port: ingressPort}},
		Available: []*federationv1.ServiceAvailability{{Zone: "west", Service: "echo", TagSets: []*federationv1.TagSet{{Tags: tags, Count: 1}}}},
	}
	for _, side := range []struct {
		zone *zone
		from ingress.Endpoints
		view ingress.View
	}{{west, local, ingress.IngressView}, {east, remote, ingress.ClientView}} {
		built := must(side.from.Build(side.view))(t)
		side.zone.server.SetEndpoints(1, map[string]*xds.Resource{built.Name: must(xds.BuildEndpoints(&built))(t)})
	}

	identities := policy.Identities{Mesh: mesh, Domain: domain}
	allow := permission("edge-to-echo", meshv1.TrafficPermission_ACTION_ALLOW, map[string]string{resource.TagService: "edge"})
	deny := permission("not-from-east", meshv1.TrafficPermission_ACTION_DENY, map[string]string{resource.TagService: "edge", resource.TagZone: "east"})
	workloadPort := uint32(workload.Listener.Addr().(*net.TCPAddr).Port)
	permit := func(revision uint64, permissions ...*resource.Resource) {
		t.Helper()
		west.configure(t, "Dataplane/default/echo-1", revision, sidecar(sidecarPort, workloadPort, policy.Authorize(permissions, identities, tags)), &echoSVID)
	}
	permit(1, allow)
	west.configure(t, "ZoneIngress/ingress-1", 1, &ingressProxy, nil)
	east.configure(t, "Dataplane/default/edge-1", 1, gateway(gatewayPort, sni), &edge)

	echoID, ingressID := west.start(t, "Dataplane", "echo-1"), west.start(t, "ZoneIngress", "ingress-1")
	edgeID := east.start(t, "Dataplane", "edge-1")
	west.await(t, echoID, 1)
	west.await(t, ingressID, 1)
	east.await(t, edgeID, 1)

	plain := &http.Client{Timeout: answerTime, Transport: &http.Transport{}}
	t.Cleanup(plain.CloseIdleConnections)
	target := fmt.Sprintf("http://127.0.0.1:%d/", gatewayPort)
	// A listener may wait for its routes when all was acknowledged.
	until(t, func() error {
		code, body, err := get(plain, target)
		if err == nil && (code != http.StatusOK || !strings.Contains(body, "URI=spiffe://east.default.zoneforge/edge")) {
			err = fmt.Errorf("across zones: %d %q", code, body)
		}
		return err
	})
	answers := func(want int) {
		t.Helper()
		until(t, func() error {
			code, _, err := get(plain, target)
			if err == nil && code != want {
				err = fmt.Errorf("%d, want %d", code, want)
			}
			return err
		})
	}
	permit(2, allow, deny)
	west.await(t, echoID, 2)
	answers(http.StatusForbidden)
	permit(3, allow)
	west.await(t, echoID, 3)
	answers(http.StatusOK)

	direct := func(chain [][]byte, key any) (int, error) {
		client := &http.Client{Timeout: answerTime, Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", ingressPort))
			},
			// The server is not what is tried here; its certificate names no host.
			TLSClientConfig: &tls.Config{ServerName: sni, InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}}},
		}}
		defer client.CloseIdleConnections()
		resp, err := client.Get("https://echo/")
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return resp.StatusCode, nil
	}
	if code, err := direct(raw(edge.Chain), edge.Key.Signer()); err != nil || code != http.StatusOK {
		t.Fatalf("the true certificate of east: %d %v", code, err)
	}
	// What a thief of west's intermediate could try: an identity of east as the URI, and beside a true URI of west as a DNS
	// name, with which Envoy's RBAC would compare principals too.
	const stolen = "spiffe://east.default.zoneforge/edge"
	for _, c := range []struct {
		name, uri string
		dns       []string
	}{
		{"another zone's URI", stolen, nil},
		{"another zone's URI as a DNS name", "spiffe://west.default.zoneforge/stranger", []string{stolen}},
	} {
		forged, key := forge(t, west, c.uri, c.dns)
		if code, err := direct(forged, key); err == nil {
			t.Fatalf("%s, forged with west's intermediate, was answered: %d", c.name, code)
		}
	}
	// In TLS 1.3 a client may see the connection end before the alert arrives, so the words of the refusal prove nothing; that
	// an honest certificate made the same way is answered does.
	honest, honestKey := forge(t, west, "spiffe://west.default.zoneforge/stranger", nil)
	if code, err := direct(honest, honestKey); err != nil || code != http.StatusForbidden {
		t.Fatalf("a service without permission: %d %v, want 403 after a handshake", code, err)
	}
}

// forge signs with a zone's intermediate whatever it is asked to, as pki would not.
func forge(t *testing.T, z *zone, id string, dns []string) ([][]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key := must(pki.NewKey(rand.Reader))(t).Signer().(*ecdsa.PrivateKey)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, URIs: []*url.URL{must(url.Parse(id))(t)}, DNSNames: dns,
	}
	leaf := must(x509.CreateCertificate(rand.Reader, template, z.issuer.Certificate, key.Public(), z.issuer.Key.Signer()))(t)
	return append([][]byte{leaf}, raw(z.issuer.Chain())...), key
}

func raw(chain []*x509.Certificate) [][]byte {
	var out [][]byte
	for _, c := range chain {
		out = append(out, c.Raw)
	}
	return out
}

func get(client *http.Client, url string) (int, string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func until(t *testing.T, ok func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(awaitTime); ; {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}
