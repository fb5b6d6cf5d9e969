package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/pki"
)

// roots is how global says that the root of the default mesh stands.
type roots struct {
	Phase string
	Roots []struct {
		Fingerprint   string
		Signs, Wanted bool
	}
	Waiting []struct {
		Zone, Reason string
		Proxies      []string
	}
	Problem string
}

func (f *federation) roots() (r roots, err error) {
	code, body, err := f.rest(http.MethodGet, "/v1/roots/default", nil)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%d %s", code, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	return r, err
}

// rotated waits until one root is left, and gives its fingerprint.
func (f *federation) rotated(not string) (fingerprint string) {
	f.t.Helper()
	f.await("the end of a rotation", func() error {
		r, err := f.roots()
		if err == nil && (r.Phase != "none" || len(r.Roots) != 1 || r.Roots[0].Fingerprint == not || r.Problem != "") {
			err = fmt.Errorf("%+v", r)
		}
		if err == nil {
			fingerprint = r.Roots[0].Fingerprint
		}
		return err
	})
	return fingerprint
}

// admits asks a sidecar for an answer by a certificate, whoever the sidecar is.
func (f *federation) admits(by tls.Certificate, n int) error {
	client := &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &by, nil },
	}}}
	r, _, err := ask(client, http.MethodGet, "https://"+f.at(n, 15006)+"/")
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", r.StatusCode)
	}
	return err
}

// refusesCertificate fails unless a sidecar ends the handshake with a certificate.
func (f *federation) refusesCertificate(what string, by tls.Certificate, n int) {
	f.t.Helper()
	f.await("a refusal of "+what, func() error {
		err := f.admits(by, n)
		if err == nil {
			return errors.New("it is answered")
		}
		if !strings.Contains(err.Error(), "remote error: tls:") {
			return err
		}
		return nil
	})
}

// startCrossed runs a gateway in zone east, and in zone west services that it reaches by connections that last and by a new one for each
// request. A service named thief may reach all, too.
func startCrossed(t *testing.T) *federation {
	t.Helper()
	f := startAcross(t, permit("default", "thief", "thief", "*", "ALLOW"), edgeWith("{port: 8080, protocol: HTTP}", "{port: 5432, protocol: TCP, tags: {port: db}}"),
		gatewayRoute("echo", "", "      - backends: [{destination: {kuma.io/service: echo}}]\n"),
		strings.Replace(bytesRoute("db", "", "{destination: {kuma.io/service: db}}"), "kuma.io/service: edge", "port: db", 1))
	f.workload(f.at(31, 8080), "echo", nil)
	f.startInWest("echo", "echo", "http", 31, "")
	f.startTalker(f.at(32, 8080), "db")
	f.startInWest("db", "db", "tcp", 32, "")
	f.settled("west", 3)
	f.settled("east", 1)
	f.answers(newClient(t), http.StatusOK, "GET", "http://"+f.at(10, 8080)+"/")
	f.await("the database", func() error {
		_, err := saysHello(f.at(10, 5432))
		return err
	})
	return f
}

// greetings are requests of which each has a connection through both zones of its own.
type greetings struct {
	stop      chan struct{}
	wg        sync.WaitGroup
	sent      atomic.Int64
	mu        sync.Mutex
	lost      []string
	endedOnce sync.Once
}

func (f *federation) greet(address string) *greetings {
	g := &greetings{stop: make(chan struct{})}
	g.wg.Go(func() {
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-g.stop:
				return
			case <-pace.C:
			}
			g.sent.Add(1)
			if _, err := saysHello(address); err != nil {
				g.mu.Lock()
				g.lost = append(g.lost, fmt.Sprint(time.Now().Format(time.TimeOnly), " ", err))
				g.mu.Unlock()
			}
		}
	})
	f.t.Cleanup(g.end)
	return g
}

func (g *greetings) end() {
	g.endedOnce.Do(func() { close(g.stop) })
	g.wg.Wait()
}

// noneLost ends the requests once there were enough to tell; each must have been answered.
func (g *greetings) noneLost(f *federation) {
	t := f.t
	t.Helper()
	f.await("connections", func() error {
		if n := g.sent.Load(); n < 100 {
			return fmt.Errorf("%d were opened", n)
		}
		return nil
	})
	g.end()
	t.Logf("%d connections, %d lost", g.sent.Load(), len(g.lost))
	if len(g.lost) > 0 {
		t.Errorf("%d of %d connections were lost: %s", len(g.lost), g.sent.Load(), strings.Join(g.lost[:min(5, len(g.lost))], "\n"))
	}
}

// TestRootRotation replaces the root of a mesh by another builtin one, while a zone is away and global crashes, and that by one of the
// operator's, under requests across zones over lasting and over new connections. None may be lost, and a certificate below a former root
// is good until the rotation has ended, and not after.
func TestRootRotation(t *testing.T) {
	f := startCrossed(t)
	requests, connections := f.send("http://"+f.at(10, 8080)+"/"), f.greet(f.at(10, 5432))
	first := f.rotated("")
	thief := f.identity("east", 2, "default", "thief", 60).certificate
	if err := f.admits(thief, 31); err != nil {
		t.Fatal(err)
	}
	f.settled("east", 1)

	// West is away: the former root goes on, also after a crash of global.
	f.kill("west")
	f.says(f.cli("ca", "rotate", "--mesh", "default"), "mesh default: both roots are trusted by more and more")
	f.fails(1, []string{"under way", "ca status"}, "ca", "rotate", "--mesh", "default")
	held := func() {
		t.Helper()
		f.await("a rotation that waits for west alone", func() error {
			r, err := f.roots()
			if err == nil && (r.Phase != "trust" || len(r.Roots) != 2 || r.Roots[0].Fingerprint != first || !r.Roots[1].Wanted || len(r.Waiting) != 1 || r.Waiting[0].Zone != "west") {
				err = fmt.Errorf("%+v", r)
			}
			return err
		})
	}
	held()
	f.await("word of why it waits", func() error {
		if out := f.cli("ca", "status"); !strings.Contains(out, "west: it is not connected since") || !strings.Contains(out, "trust") || !strings.Contains(out, "next") {
			return errors.New(out)
		}
		return nil
	})
	f.fails(1, []string{"the rotation of its root waits for zone west", "--without west"}, "doctor")
	f.await("the metric of who waits", func() error {
		code, body, err := f.rest(http.MethodGet, "/metrics", nil)
		if err == nil && (code != http.StatusOK || !strings.Contains(string(body), `zoneforge_root_rotation_waiting_zones{mesh="default",phase="trust"} 1`)) {
			err = fmt.Errorf("status %d, and the metric is another", code)
		}
		return err
	})
	f.kill("global")
	f.startGlobal()
	held()
	if err := f.admits(thief, 31); err != nil {
		t.Errorf("below the root that signs: %v", err)
	}
	f.startZone("west", 3)
	second := f.rotated(first)
	f.refusesCertificate("a certificate below the first root", thief, 31)

	// To a root of the operator's own.
	root, err := pki.NewRoot(rand.Reader, time.Now(), "default", pki.Validity{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := root.Key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	thief = f.identity("east", 2, "default", "thief", 60).certificate
	if err := f.admits(thief, 31); err != nil {
		t.Fatal(err)
	}
	f.apply(secretDocument("root-cert", pki.EncodeCertificates(root.Certificate), nil), secretDocument("root-key", key, nil),
		"type: Mesh\nname: default\nmtls:\n  enabledBackend: own\n  backends:\n    - {name: ca, type: builtin}\n"+
			"    - {name: own, type: provided, mode: STRICT, conf: {cert: {secret: root-cert}, key: {secret: root-key}}}\n")
	print := sha256.Sum256(root.Certificate.Raw)
	if third := f.rotated(second); third != hex.EncodeToString(print[:]) {
		t.Errorf("the root is %s", third)
	}
	f.refusesCertificate("a certificate below the second root", thief, 31)
	f.fails(1, []string{"a root of your own", "another backend"}, "ca", "rotate", "--mesh", "default")
	own := f.identity("east", 2, "default", "thief", 60)
	if err := f.admits(own.certificate, 31); err != nil {
		t.Error(err)
	}
	only := x509.NewCertPool()
	only.AddCert(root.Certificate)
	own.roots = only
	conn, err := tls.Dial("tcp", f.at(31, 15006), own.config())
	if err != nil {
		t.Fatalf("what a sidecar shows is not below the operator's root: %v", err)
	}
	conn.Close()
	f.settled("east", 1)
	f.settled("west", 3)
	requests.noneLost(t)
	connections.noneLost(f)
}
