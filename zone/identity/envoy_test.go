package identity_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/zoneforge/zoneforge/dataplane"
	"github.com/zoneforge/zoneforge/e2e/loopback"
	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/pki/token"
	"github.com/zoneforge/zoneforge/policy"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/identity"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

const (
	meshName   = "default"
	federation = "zoneforge"
	// Short lives, so that a test sees many; each leaves a proxy three seconds to take the next one over, as a busy machine may stand still.
	svidLifetime         = 8 * time.Second
	intermediateLifetime = 16 * time.Second
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

// east is a zone that consists of identity, admission and xDS.
type east struct {
	t         *testing.T
	identity  *identity.Identity
	admission *admission.Admission
	server    *server.Server
	address   string
	caFile    string
	signing   token.SigningKey
	moved     chan struct{}

	mu       sync.Mutex
	signs    pki.Authority // the root that global signs with
	proxies  map[string]*proxy
	revision uint64
}

type proxy struct {
	resources *xds.Resources
	services  []string
	// lag is how much later than the others it hears of anything, as if it were in a zone far away.
	lag time.Duration
	// given is the newest revision that is on its way to it, with bundle.
	given  uint64
	bundle []byte
}

func (e *east) VerificationKeys() *federationv1.VerificationKeys {
	return &federationv1.VerificationKeys{Keys: []*federationv1.VerificationKey{{Id: e.signing.ID(), Ed25519: e.signing.Verification().Public}}}
}

func (e *east) Connect(ctx context.Context, node *corev3.Node, bearer string) (server.ProxyID, error) {
	p, err := e.admission.Admit(ctx, node, bearer)
	if err != nil {
		return "", err
	}
	return server.ProxyID(p.ID), nil
}

func (e *east) Disconnect(server.ProxyID) {}

func (e *east) OnProgress(server.ProxyID, server.Progress) {
	select {
	case e.moved <- struct{}{}:
	default:
	}
}

// request is answered by global at once.
func (e *east) request(_ context.Context, mesh string, csr []byte) error {
	e.mu.Lock()
	root := e.signs
	e.mu.Unlock()
	td := pki.TrustDomain{Zone: "east", Mesh: mesh, Domain: federation}
	chain, err := pki.SignIntermediate(rand.Reader, time.Now(), root, td, csr, pki.Validity{Lifetime: intermediateLifetime})
	if err != nil {
		return err
	}
	e.identity.Answer(&kdsv1.Certificate{Mesh: mesh, Chain: string(pki.EncodeCertificates(chain...))})
	return nil
}

func newEast(t *testing.T, root pki.Authority) *east {
	t.Helper()
	e := &east{t: t, signs: root, proxies: map[string]*proxy{}, moved: make(chan struct{}, 1)}
	store := must(disk.Open(t.TempDir()))(t)
	t.Cleanup(func() { _ = store.Close() })
	e.identity = must(identity.New(identity.Config{Zone: "east", Store: store, Request: e.request, SVIDLifetime: svidLifetime}))(t)
	e.signing = must(token.NewSigningKey(rand.Reader, token.Dataplane))(t)
	e.admission = must(admission.New(admission.Config{Zone: "east", Keys: e}))(t)
	e.server = must(server.New(server.Config{Authenticator: e, Observer: e}))(t)

	now := time.Now()
	ca := must(pki.NewServerAuthority(rand.Reader, now, "zone east", pki.Validity{}))(t)
	certificate := must(pki.NewServerCertificate(rand.Reader, now, ca, []string{"127.0.0.1"}, pki.Validity{}))(t)
	pair := must(tls.X509KeyPair(pki.EncodeCertificates(certificate.Chain...), must(certificate.Key.PEM())(t)))(t)
	e.caFile = write(t, "ca.pem", pki.EncodeCertificates(ca.Certificate))
	lis := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	e.address = lis.Addr().String()
	g := grpc.NewServer(server.Option(), grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})))
	e.server.Register(g)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(lis) })
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { _ = e.identity.Run(ctx) })
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-e.identity.Changed():
				e.push(ctx, &wg, e.identity.Take())
			}
		}
	})
	t.Cleanup(func() {
		g.Stop()
		cancel()
		wg.Wait()
	})
	return e
}

// push gives the proxies that a change concerns their secrets.
func (e *east) push(ctx context.Context, wg *sync.WaitGroup, changes []identity.Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revision++
	for id, p := range e.proxies {
		concerned := false
		for _, c := range changes {
			concerned = concerned || c.Service == "" && !c.Issuer || len(p.services) > 0 && c.Service == p.services[0]
		}
		secrets, ready := e.identity.Secrets(meshName, p.services)
		if !concerned || !ready {
			continue
		}
		var built []*xds.Resource
		for i := range secrets {
			r, err := xds.BuildSecret(&secrets[i])
			if err != nil {
				e.t.Error(err)
				return
			}
			built = append(built, r)
		}
		revision := e.revision
		p.given, p.bundle = revision, secrets[0].Bundle
		wg.Go(func() {
			select {
			case <-time.After(p.lag):
				e.server.SetProxy(server.ProxyID(id), revision, p.resources, built)
			case <-ctx.Done():
			}
		})
	}
}

// live blocks until all proxies acknowledged the newest roots, and what they were given last, without a rejection.
func (e *east) live(ctx context.Context) {
	e.t.Helper()
	for {
		behind := ""
		e.mu.Lock()
		newest, _ := e.identity.Secrets(meshName, nil)
		for id, p := range e.proxies {
			st, ok := e.server.Status(server.ProxyID(id))
			if len(st.Nacks) > 0 {
				e.t.Errorf("%s rejected: %+v", id, st.Nacks)
			}
			if !ok || st.Wanted == 0 || st.Acked < max(st.Wanted, p.given) || len(newest) == 0 || !bytes.Equal(newest[0].Bundle, p.bundle) {
				behind = fmt.Sprintf("%s: %+v", id, st)
			}
		}
		e.mu.Unlock()
		if behind == "" {
			return
		}
		select {
		case <-e.moved:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			e.t.Fatalf("a proxy stays behind: %s", behind)
		}
	}
}

// trust tells the zone which roots the mesh trusts.
func (e *east) trust(spec *meshv1.Mesh, roots ...pki.Authority) {
	e.t.Helper()
	b := &federationv1.TrustBundle{Domain: federation}
	for _, r := range roots {
		b.Roots = append(b.Roots, string(pki.EncodeCertificates(r.Certificate)))
	}
	if err := e.identity.SetMesh(meshName, spec, b); err != nil {
		e.t.Fatal(err)
	}
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func freePort(t *testing.T) uint32 {
	t.Helper()
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// start runs a real Envoy from the product's own bootstrap, with a token for exactly its service, and returns the path of
// its admin socket.
func (e *east) start(name, service string, spec *meshv1.Dataplane) string {
	t := e.t
	t.Helper()
	envoy := must(filepath.Abs("../../.tools/bin/envoy"))(t)
	if _, err := os.Stat(envoy); err != nil {
		t.Fatalf("no Envoy: run `make tools`: %v", err)
	}
	now := time.Now()
	bearer := must(token.Sign(e.signing, token.Claims{Purpose: token.Dataplane, ID: name, IssuedAt: now, ExpiresAt: now.Add(time.Hour),
		Mesh: meshName, Zone: "east", Services: []string{service}}))(t)
	document := must(resource.EncodeJSON(&resource.Resource{Key: resource.Key{Kind: "Dataplane", Mesh: meshName, Name: name}, Spec: spec}))(t)
	short := must(os.MkdirTemp("", "zf"))(t) // a socket's path is short
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	b := dataplane.Bootstrap{Kind: "Dataplane", Mesh: meshName, Name: name, Service: service, Document: document, ControlPlanes: []string{e.address},
		CAFile: e.caFile, TokenFile: write(t, "token", []byte(bearer.Reveal())), AdminSocket: filepath.Join(short, "admin")}
	config := write(t, "bootstrap.json", must(b.JSON())(t))
	var log bytes.Buffer
	cmd := exec.Command(envoy, "-c", config, "--disable-hot-restart", "--concurrency", "1", "-l", "warning")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", b.NodeID(), log.String())
		}
	})
	return b.AdminSocket
}

// configure builds what a Dataplane does, by the product's own pipeline.
func (e *east) configure(name string, mesh *meshv1.Mesh, spec *meshv1.Dataplane, policies policy.ByKind, protocols map[string]string) []ingress.Destination {
	e.t.Helper()
	built, err := proxyir.Sidecar(proxyir.Input{Mesh: mesh, MeshName: meshName, Zone: "east", Domain: federation, Name: name,
		Dataplane: spec, Policies: policies, Protocols: protocols})
	if err != nil {
		e.t.Fatal(err)
	}
	resources := must(xds.Build(built.Proxy))(e.t)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.proxies["Dataplane/"+meshName+"/"+name] = &proxy{resources: resources, services: identity.Services(built.Proxy.Secrets)}
	return built.Destinations
}

// wire is what the server's sidecar shows to who connects.
type wire struct {
	leaves, intermediates map[string]bool
	last                  []*x509.Certificate
}

// look shakes hands with the server's sidecar and notes its chain.
func (w *wire) look(t *testing.T, e *east, port uint32) {
	t.Helper()
	conn, err := (&tls.Dialer{Config: e.clientTLS()}).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	w.leaves[string(chain[0].Raw)], w.intermediates[string(chain[1].Raw)], w.last = true, true, chain
}

// clientTLS is that of a strict client of the service web: it takes its identity and the mesh's roots anew for each handshake
// and resumes no session, so that each shows both ends' certificates.
func (e *east) clientTLS() *tls.Config {
	secrets := func() (pki.Bundle, *tls.Certificate, error) {
		secrets, ready := e.identity.Secrets(meshName, []string{"web"})
		if !ready {
			return pki.Bundle{}, nil, errors.New("the zone has no identity for web")
		}
		bundle, err := pki.ParseBundle(secrets[0].Bundle)
		if err != nil {
			return pki.Bundle{}, nil, err
		}
		pair, err := tls.X509KeyPair(secrets[1].Certificate.Chain, secrets[1].Certificate.Key)
		return bundle, &pair, err
	}
	return &tls.Config{
		InsecureSkipVerify: true, // VerifyConnection is stricter
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			_, pair, err := secrets()
			return pair, err
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			bundle, _, err := secrets()
			if err != nil {
				return err
			}
			id, err := pki.Verify(state.PeerCertificates, bundle, time.Now())
			if err == nil && id.Service != "echo" {
				err = fmt.Errorf("the sidecar shows %s", id)
			}
			return err
		},
	}
}

// traffic sends requests one after another until stop, and keeps what went wrong.
type traffic struct {
	name     string
	requests atomic.Int64
	mu       sync.Mutex
	failures []error
}

func (tr *traffic) run(stop <-chan struct{}, url string, transport *http.Transport) {
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: 20 * time.Second, Transport: transport}
	for {
		select {
		case <-stop:
			return
		default:
		}
		err := func() error {
			resp, err := client.Get(url)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err == nil && (resp.StatusCode != http.StatusOK || string(body) != "echo") {
				err = fmt.Errorf("status %d: %q", resp.StatusCode, body)
			}
			return err
		}()
		tr.requests.Add(1)
		if err != nil {
			tr.mu.Lock()
			tr.failures = append(tr.failures, fmt.Errorf("%s at %s: %w", tr.name, time.Now().Format(time.StampMilli), err))
			tr.mu.Unlock()
		}
	}
}

func (tr *traffic) failed() error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return errors.Join(tr.failures[:min(len(tr.failures), 10)]...)
}

// stat reads one counter of an Envoy.
func stat(t *testing.T, socket, name string) string {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get("http://admin/stats?filter=" + url.QueryEscape(name))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return string(must(io.ReadAll(resp.Body))(t))
}

// TestRotationUnderTraffic rotates leaves, intermediates and the root between two real Envoys while requests go from one to
// the other, over connections that last and over a new one for each request, and from a client that resumes no session. No
// request may fail and no connection may drain.
func TestRotationUnderTraffic(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	workload := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "echo") }))
	t.Cleanup(workload.Close)
	workloadPort := uint32(workload.Listener.Addr().(*net.TCPAddr).Port)
	root := must(pki.NewRoot(rand.Reader, time.Now(), meshName, pki.Validity{}))(t)
	e := newEast(t, root)

	spec := &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{EnabledBackend: "ca", Backends: []*meshv1.Mesh_CertificateAuthority{{Name: "ca", Type: "builtin"}}}}
	policies := policy.ByKind{"TrafficPermission": policy.NewList(&resource.Resource{Key: resource.Key{Kind: "TrafficPermission", Mesh: meshName, Name: "web-to-echo"},
		Spec: &meshv1.TrafficPermission{
			Sources:      []*meshv1.Selector{{Match: map[string]string{resource.TagService: "web"}}},
			Destinations: []*meshv1.Selector{{Match: map[string]string{resource.TagService: resource.AnyValue}}},
		}})}
	httpIn, tcpIn, httpOut, tcpOut, webIn := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	protocols := map[string]string{"echo": "http", "echo-tcp": "tcp"}
	tags := func(service string) map[string]string {
		return map[string]string{resource.TagService: service, resource.TagProtocol: protocols[service]}
	}
	echo := &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "127.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
		{Port: httpIn, ServicePort: workloadPort, Tags: tags("echo")}}}}
	echoTCP := &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "127.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
		{Port: tcpIn, ServicePort: workloadPort, Tags: tags("echo-tcp")}}}}
	web := &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "127.0.0.1",
		Inbound: []*meshv1.Dataplane_Inbound{{Port: webIn, ServicePort: workloadPort, Tags: map[string]string{resource.TagService: "web"}}},
		Outbound: []*meshv1.Dataplane_Outbound{
			{Port: httpOut, Tags: map[string]string{resource.TagService: "echo"}}, {Port: tcpOut, Tags: map[string]string{resource.TagService: "echo-tcp"}}},
	}}
	e.configure("echo-1", spec, echo, policies, protocols)
	e.proxies["Dataplane/"+meshName+"/echo-1"].lag = 500 * time.Millisecond
	e.configure("echo-tcp-1", spec, echoTCP, policies, protocols)
	var http1 string
	for _, d := range e.configure("web-1", spec, web, policies, protocols) {
		port := map[string]uint32{"echo": httpIn, "echo-tcp": tcpIn}[d.Service]
		built := must(ingress.Endpoints{Destination: d, Zone: "east", MTLS: true,
			Local: []ingress.Local{{Address: "127.0.0.1", Port: port, Tags: tags(d.Service)}}}.Build(ingress.ClientView))(t)
		e.server.SetEndpoints(1, map[string]*xds.Resource{built.Name: must(xds.BuildEndpoints(&built))(t)})
		if d.Service == "echo" {
			http1 = must(d.SNI())(t)
		}
	}
	e.trust(spec, root)
	e.start("echo-1", "echo", echo)
	e.start("echo-tcp-1", "echo-tcp", echoTCP)
	socket := e.start("web-1", "web", web)
	e.live(ctx)
	// Envoy acknowledges before its workers have taken a change over.
	for _, port := range []uint32{httpOut, tcpOut} {
		for answered := false; !answered; {
			if ctx.Err() != nil {
				t.Fatalf("port %d never answered", port)
			}
			if resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port)); err == nil {
				answered = resp.StatusCode == http.StatusOK
				_ = resp.Body.Close()
			}
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	opened := func() string { return stat(t, socket, fmt.Sprintf("cluster.%s.upstream_cx_total", http1)) }
	before := opened() // the first request may have come before the other end listened

	lasting, fresh, strict := &traffic{name: "a lasting connection"}, &traffic{name: "a new connection"}, &traffic{name: "a full handshake"}
	all := []*traffic{lasting, fresh, strict}
	failed := func() error { return errors.Join(lasting.failed(), fresh.failed(), strict.failed()) }
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { lasting.run(stop, fmt.Sprintf("http://127.0.0.1:%d/", httpOut), &http.Transport{}) })
	wg.Go(func() {
		fresh.run(stop, fmt.Sprintf("http://127.0.0.1:%d/", tcpOut), &http.Transport{DisableKeepAlives: true})
	})
	wg.Go(func() {
		strict.run(stop, fmt.Sprintf("https://127.0.0.1:%d/", httpIn), &http.Transport{DisableKeepAlives: true, TLSClientConfig: e.clientTLS()})
	})
	halt := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer halt()

	seen := &wire{leaves: map[string]bool{}, intermediates: map[string]bool{}}
	until := func(what string, reached func() bool) {
		t.Helper()
		for {
			seen.look(t, e, httpIn)
			if reached() {
				e.live(ctx)
				return
			}
			if err := failed(); err != nil {
				t.Fatalf("while waiting for %s: %v", what, err)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%s did not come: %d leaves and %d intermediates were seen", what, len(seen.leaves), len(seen.intermediates))
			}
		}
	}
	// sent waits until so many requests were sent.
	sent := func(tr *traffic, n int64) {
		t.Helper()
		for tr.requests.Load() < n {
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("no more than %d requests over %s", tr.requests.Load(), tr.name)
			}
		}
	}
	// A handshake that began before all had acknowledged a step goes by what was so at its beginning, as global knows: see ca.NewRotator.
	settle := func() {
		t.Helper()
		for _, tr := range all {
			sent(tr, tr.requests.Load()+2)
		}
	}
	more := func(leaves, intermediates int) func() bool {
		l, i := len(seen.leaves)+leaves, len(seen.intermediates)+intermediates
		return func() bool { return len(seen.leaves) >= l && len(seen.intermediates) >= i }
	}
	until("leaves and intermediates", more(4, 2))

	next := must(pki.NewRoot(rand.Reader, time.Now(), meshName, pki.Validity{}))(t)
	only := must(pki.NewBundle(next.Certificate))(t)
	// As global does: the next root signs once all trust it.
	e.trust(spec, root, next)
	e.live(ctx)
	settle()
	e.mu.Lock()
	e.signs = next
	e.mu.Unlock()
	e.trust(spec, next, root)
	until("a leaf below the new root", func() bool {
		_, err := pki.Verify(seen.last, only, time.Now())
		return err == nil
	})
	// Everybody has moved when everybody has been renewed once more.
	until("leaves of all below the new root", more(2, 0))
	settle()
	e.trust(spec, next)
	until("leaves and intermediates below the new root alone", more(2, 1))
	for _, tr := range all {
		sent(tr, 100)
	}
	halt()

	for _, tr := range all {
		if err := tr.failed(); err != nil {
			t.Errorf("%d requests over %s: %v", tr.requests.Load(), tr.name, err)
		}
	}
	if after := opened(); after != before || before == "" {
		t.Errorf("rotation drained the lasting connection: %q, then %q", before, after)
	}
	t.Logf("%d requests over a lasting connection, %d over new ones, %d after a full handshake; %d leaves and %d intermediates on the wire",
		lasting.requests.Load(), fresh.requests.Load(), strict.requests.Load(), len(seen.leaves), len(seen.intermediates))
}
