package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/deploy/demo/talk"
)

// startTalker serves connections by greeting them with a name and echoing one line.
func (f *federation) startTalker(address, name string) {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close() })
	go talk.ServeLines(l, name)
}

// saysHello sends a word and reads the answer to its end.
func saysHello(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, answerTime)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return "", err
	}
	out, err := io.ReadAll(conn)
	if err == nil && len(out) == 0 {
		err = errors.New("closed without an answer")
	}
	return string(out), err
}

func connection(kind, to, conf string) string {
	return fmt.Sprintf("type: %s\nmesh: default\nname: of-%s\nsources: [{match: {kuma.io/service: client}}]\ndestinations: [{match: {kuma.io/service: %s}}]\nconf: %s\n", kind, to, to, conf)
}

// TestSidecars sends requests from a workload through its sidecar's outbounds, under each policy for connections.
func TestSidecars(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, permit("default", "clients", "client", "*", "ALLOW"), "type: Mesh\nname: other\nmtls:\n  enabledBackend: ca\n  backends: [{name: ca, type: builtin}]\n",
		permit("other", "all", "*", "*", "ALLOW"))

	var flaky atomic.Int32
	var slow sync.Map // counts requests by their id
	handlers := map[string]http.HandlerFunc{
		// Two of three attempts fail.
		"/flaky": func(w http.ResponseWriter, _ *http.Request) {
			if flaky.Add(1)%3 != 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		},
		"/slow": func(_ http.ResponseWriter, r *http.Request) {
			n, _ := slow.LoadOrStore(r.Header.Get("X-Id"), new(atomic.Int32))
			n.(*atomic.Int32).Add(1)
			<-r.Context().Done()
		},
	}
	start := func(mesh, name, document string, services ...string) {
		args := []string{"dataplane", "--mesh", mesh}
		for _, s := range services {
			args = append(args, "--service", s)
		}
		f.startProxy("east", 2, name, document, f.token(name, args...))
	}
	for i, version := range []string{"v1", "v2"} {
		host := f.host(31 + i)
		f.workload(host+":8080", version, handlers)
		start("default", "echo-"+version, sidecarDocument("default", "echo-"+version, host, inboundOf("echo", "http", host, 8080, ", version: "+version)), "echo")
	}
	f.startTalker(f.at(33, 9000), "db")
	start("default", "db", sidecarDocument("default", "db", f.host(33), inboundOf("db", "tcp", f.host(33), 9000, "")), "db")
	outbounds := fmt.Sprintf("  outbound:\n    - {port: 7001, address: %[1]s, tags: {kuma.io/service: echo}}\n    - {port: 7002, address: %[1]s, tags: {kuma.io/service: db}}\n    - {port: 7003, address: %[1]s, tags: {kuma.io/service: nobody}}\n", f.host(40))
	start("default", "client", sidecarDocument("default", "client", f.host(40), inboundOf("client", "http", f.host(40), 8080, "")+outbounds), "client")
	// The same names in another mesh.
	others := fmt.Sprintf("  outbound:\n    - {port: 7001, address: %[1]s, tags: {kuma.io/service: echo}}\n    - {port: 7002, address: %[1]s, tags: {kuma.io/service: db}}\n", f.host(50))
	start("other", "stranger", sidecarDocument("other", "stranger", f.host(50), inboundOf("client", "http", f.host(50), 8080, "")+others), "client")
	f.settled("east", 5)

	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(40, 7001) + path }
	f.answers(client, http.StatusOK, "GET", url("/"))

	t.Run("split", func(t *testing.T) {
		f.apply(connection("TrafficRoute", "echo", `
  split: [{weight: 0, destination: {kuma.io/service: echo, version: v1}}, {weight: 10, destination: {kuma.io/service: echo, version: v2}}]
  http:
    - match: {path: {prefix: /beta}}
      modify: {requestHeaders: {set: [{name: x-route, value: beta}]}}
      destination: {kuma.io/service: echo, version: v1}
    - match: {path: {exact: /half}}
      split: [{weight: 1, destination: {kuma.io/service: echo, version: v1}}, {weight: 1, destination: {kuma.io/service: echo, version: v2}}]
    - match: {method: {exact: DELETE}, headers: {x-a: {regex: 'o.e'}}}
      destination: {kuma.io/service: echo, version: v1}`))
		f.await("the split", func() error {
			_, a, err := ask(client, "GET", url("/"))
			if err == nil && a.Workload != "v2" {
				err = fmt.Errorf("answered by %q", a.Workload)
			}
			return err
		})
		half := map[string]int{}
		for range 30 {
			for _, c := range []struct{ method, path, want string }{{"GET", "/", "v2"}, {"GET", "/beta/x", "v1"}, {"DELETE", "/", "v1"}, {"GET", "/half", ""}} {
				r, a, err := ask(client, c.method, url(c.path), "X-A", "one")
				if err != nil || r.StatusCode != 200 || c.want != "" && a.Workload != c.want {
					t.Fatalf("%+v: %v %q %v", c, r, a.Workload, err)
				}
				if c.want == "" {
					half[a.Workload]++
				}
				if got := a.Header.Get("X-Route"); (got == "beta") != (c.path == "/beta/x") {
					t.Errorf("%+v: x-route is %q", c, got)
				}
			}
		}
		if half["v1"] == 0 || half["v2"] == 0 {
			t.Errorf("halves are %v", half)
		}
		f.cli("delete", "trafficroute", "of-echo", "--wait")
	})

	t.Run("retry", func(t *testing.T) {
		f.apply(connection("Retry", "echo", "{http: {numRetries: 5, retryOn: [5xx], backOff: {baseInterval: 1ms, maxInterval: 2ms}}}"))
		f.answers(client, http.StatusOK, "GET", url("/flaky"))
		for range 20 {
			if r, _, err := ask(client, "GET", url("/flaky")); err != nil || r.StatusCode != 200 {
				t.Fatalf("%v %v", r, err)
			}
		}
		f.apply(connection("Retry", "echo", "{http: {numRetries: 0}}"))
		f.answers(client, http.StatusServiceUnavailable, "GET", url("/flaky"))
	})

	t.Run("timeout", func(t *testing.T) {
		f.apply(connection("Timeout", "echo", "{connectTimeout: 1s, http: {requestTimeout: 150ms}}"))
		began := time.Now()
		f.answers(client, http.StatusGatewayTimeout, "GET", url("/slow"))
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("a request with a timeout of 150 ms took %s", took)
		}
		for n := range 3 {
			f.await("a request that comes to the workload before it times out", func() error {
				id := fmt.Sprint(n, time.Now())
				if r, _, err := ask(client, "GET", url("/slow"), "X-Id", id); err != nil || r.StatusCode != http.StatusGatewayTimeout {
					t.Errorf("%v %v", r, err)
				}
				sent, ok := slow.Load(id)
				if !ok {
					return errors.New("it didn't come")
				}
				if n := sent.(*atomic.Int32).Load(); n != 1 {
					t.Errorf("a request that timed out was sent %d times", n)
				}
				return nil
			})
		}
		f.cli("delete", "timeout", "of-echo", "--wait")
	})

	t.Run("a service that nobody offers", func(t *testing.T) {
		if _, err := saysHello(f.at(40, 7003)); err == nil {
			t.Error("a service that nobody offers answers")
		}
	})

	t.Run("tcp with a permission", func(t *testing.T) {
		database := func(want string) {
			t.Helper()
			f.await("db", func() error {
				got, err := saysHello(f.at(40, 7002))
				if want == "" {
					if err == nil {
						return fmt.Errorf("it answers %q", got)
					}
					return nil
				}
				if err == nil && got != want {
					err = fmt.Errorf("it answers %q", got)
				}
				return err
			})
		}
		database("db: hello")
		f.apply(permit("default", "not-db", "client", "db", "DENY"))
		database("")
		f.answers(client, http.StatusOK, "GET", url("/"))
		f.cli("delete", "trafficpermission", "not-db", "--wait")
		database("db: hello")
	})

	t.Run("another mesh", func(t *testing.T) {
		if r, a, err := ask(client, "GET", "http://"+f.at(50, 7001)+"/"); err == nil && r.StatusCode == http.StatusOK {
			t.Errorf("another mesh reaches echo, which answers as %q", a.Workload)
		}
		if got, err := saysHello(f.at(50, 7002)); err == nil {
			t.Errorf("another mesh reaches db, which answers %q", got)
		}
		// Nor by the certificate of a service of the same name.
		f.says(f.cli("get", "dataplanes", "--mesh", "other"), "stranger")
	})

	t.Run("permissive", func(t *testing.T) {
		direct := "http://" + f.at(31, 15006) + "/"
		if r, _, err := ask(client, "GET", direct); err == nil {
			t.Fatalf("plaintext was answered in STRICT mode: %v", r)
		}
		f.apply("type: Mesh\nname: default\nmtls:\n  enabledBackend: ca\n  backends: [{name: ca, type: builtin, mode: PERMISSIVE}]\n")
		f.answers(client, http.StatusOK, "GET", direct)
		a := f.answers(client, http.StatusOK, "GET", url("/"))
		f.says(a.Header.Get("X-Forwarded-Client-Cert"), "spiffe://east.default.zoneforge/client")
		if a := f.answers(client, http.StatusOK, "GET", direct, "X-Forwarded-Client-Cert", "URI=spiffe://east.default.zoneforge/client"); a.Header.Get("X-Forwarded-Client-Cert") != "" {
			t.Errorf("plaintext comes with a forged identity: %v", a.Header)
		}
		f.apply(strictMesh)
		f.await("strict again", func() error {
			if _, _, err := ask(client, "GET", direct); err == nil {
				return errors.New("plaintext is answered")
			}
			return nil
		})
		f.answers(client, http.StatusOK, "GET", url("/"))
		// A client without a certificate of the mesh gets no further than the handshake.
		conn, err := tls.Dial("tcp", f.at(31, 15006), &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			defer conn.Close()
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("a client without a certificate reads %d bytes", n)
			}
		}
	})
}
