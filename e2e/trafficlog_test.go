package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
)

// lineServer keeps the lines that it is sent.
type lineServer struct {
	mu    sync.Mutex
	lines []string
	conns []net.Conn
	ended bool
	l     net.Listener
}

func (f *federation) startLines(address string) *lineServer {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	s := &lineServer{l: l}
	f.t.Cleanup(s.stop)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.conns = append(s.conns, conn); s.ended {
				_ = conn.Close() // it was taken in the instant of the end
			}
			s.mu.Unlock()
			go func() {
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					s.mu.Lock()
					s.lines = append(s.lines, lines.Text())
					s.mu.Unlock()
				}
			}()
		}
	}()
	return s
}

func (s *lineServer) stop() {
	_ = s.l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, c := range s.conns {
		_ = c.Close()
	}
}

// holds tells whether one of the lines has all the words.
func (s *lineServer) holds(words ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return anyHolds(s.lines, words...)
}

func anyHolds(lines []string, words ...string) error {
	for _, l := range lines {
		all := true
		for _, w := range words {
			all = all && strings.Contains(l, w)
		}
		if all {
			return nil
		}
	}
	return fmt.Errorf("no line of %q has %q", lines, words)
}

func fileLines(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), err
}

func trafficLog(name, from, to, conf string) string {
	return fmt.Sprintf("type: TrafficLog\nmesh: default\nname: %s\nsources: [{match: {kuma.io/service: %q}}]\ndestinations: [{match: {kuma.io/service: %q}}]\nconf: %s\n", name, from, to, conf)
}

// TestTrafficLog sends requests through a gateway and a sidecar, and reads what is written of them: to files, over TCP with a
// receiver that goes and comes back, and for connections.
func TestTrafficLog(t *testing.T) {
	f := startEdge(t)
	f.startTalker(f.at(33, 9000), "db")
	f.startProxy("east", 2, "db", sidecarDocument("default", "db", f.host(33), inboundOf("db", "tcp", f.host(33), 9000, "")), f.token("db", "dataplane", "--mesh", "default", "--service", "db"))
	f.startProxy("east", 2, "client", sidecarDocument("default", "client", f.host(40), inboundOf("client", "http", f.host(40), 8080, "")+
		fmt.Sprintf("  outbound:\n    - {port: 7001, address: %[1]s, tags: {kuma.io/service: echo}}\n    - {port: 7002, address: %[1]s, tags: {kuma.io/service: db}}\n", f.host(40))),
		f.token("client", "dataplane", "--mesh", "default", "--service", "client"))
	f.settled("east", 5)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	receiver := f.startLines(f.at(60, 5000))
	file, other := f.path("access.log"), f.path("other.log")
	meshWith := func(fileFormat string) string {
		return strictMesh + fmt.Sprintf("logging:\n  defaultBackend: file\n  backends:\n    - {name: file, type: file, conf: {path: %s}%s}\n    - {name: logstash, type: tcp, conf: {address: '%s'}, format: '%%KUMA_MESH%% %%KUMA_ZONE%% %%KUMA_SOURCE_SERVICE%%->%%KUMA_DESTINATION_SERVICE%% %%RESPONSE_CODE%% 100%%%%'}\n",
			file, fileFormat, f.at(60, 5000))
	}
	f.apply(meshWith(""), gatewayRoute("echo", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1),
		trafficLog("all", "*", "*", "{}"))

	t.Run("file by default, without secrets", func(t *testing.T) {
		f.await("a line", func() error {
			if _, _, err := ask(client, "GET", url("/seen?key=s3cret"), "Authorization", "Bearer s3cret", "Cookie", "s3cret", "User-Agent", "e2e"); err != nil {
				return err
			}
			lines, err := fileLines(file)
			if err != nil {
				return err
			}
			return anyHolds(lines, `default "GET /seen HTTP/1.1" 200`, `"e2e"`, `"edge" "echo"`)
		})
		if lines, _ := fileLines(file); strings.Contains(strings.Join(lines, "\n"), "s3cret") {
			t.Errorf("secrets are logged: %q", lines)
		}
		if _, _, err := ask(client, "GET", "http://"+f.at(40, 7001)+"/side"); err != nil {
			t.Fatal(err)
		}
		f.await("the sidecar's line", func() error {
			lines, _ := fileLines(file)
			return anyHolds(lines, `"GET /side HTTP/1.1" 200`, `"client" "echo" "`+f.host(40)+`"`)
		})
		f.await("the connection's line", func() error {
			if _, err := saysHello(f.at(40, 7002)); err != nil {
				return err
			}
			lines, _ := fileLines(file)
			return anyHolds(lines, f.host(40)+"(client)->", "(db) took", "received: 5 bytes")
		})
	})

	t.Run("another backend by routes alone", func(t *testing.T) {
		// A connection that is kept shows whether its listener was drained.
		kept := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
		defer kept.CloseIdleConnections()
		local := func() string {
			r, _, err := ask(kept, "GET", url("/kept"))
			if err != nil || r.StatusCode != http.StatusOK {
				t.Fatalf("%v %v", r, err)
			}
			return r.Header.Get("Connection")
		}
		local()
		before := f.drained("edge")
		f.apply(trafficLog("edge", "edge", "echo", "{backend: logstash}"))
		f.await("a line", func() error {
			local()
			return receiver.holds("default east edge->echo 200 100%")
		})
		f.cli("delete", "trafficlog", "edge", "--wait")
		f.apply(trafficLog("edge", "edge", "echo", "{backend: logstash}"))
		if got := local(); got != "" || f.drained("edge") != before {
			t.Errorf("a TrafficLog drains: connection %q, %s drains, before %s", got, f.drained("edge"), before)
		}
	})

	t.Run("a receiver that goes and comes back", func(t *testing.T) {
		receiver.stop()
		if _, _, err := ask(client, "GET", url("/")); err != nil {
			t.Fatal(err)
		}
		second := f.startLines(f.at(60, 5000))
		f.await("a line", func() error {
			if _, _, err := ask(client, "DELETE", url("/back")); err != nil {
				return err
			}
			return second.holds("edge->echo 200")
		})
	})

	t.Run("described in the policy, as JSON", func(t *testing.T) {
		f.apply(trafficLog("edge", "edge", "echo", fmt.Sprintf(`{file: {path: %s}, format: {json: {path: "%%PATH(NQ)%%", status: "%%RESPONSE_CODE%%", agent: "%%REQ(USER-AGENT)%%", mesh: "%%KUMA_MESH%%"}}}`, other)))
		f.await("a line", func() error {
			if _, _, err := ask(client, "GET", url("/json"), "User-Agent", `quo"te`); err != nil {
				return err
			}
			lines, err := fileLines(other)
			if err != nil {
				return err
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
				return err
			}
			if len(got) != 4 || got["path"] != "/json" || got["status"] != 200.0 || got["agent"] != `quo"te` || got["mesh"] != "default" {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	})

	t.Run("a file that can't be written costs its lines only", func(t *testing.T) {
		f.apply(trafficLog("edge", "edge", "echo", "{file: {path: /no/such/folder/a.log}}"))
		f.answers(client, http.StatusOK, "GET", url("/"))
		f.await("what the launcher says", func() error {
			if !strings.Contains(f.said("edge"), "access logs can't be written") {
				return errors.New("nothing")
			}
			return nil
		})
	})

	t.Run("a backend that isn't there", func(t *testing.T) {
		f.refusesToApply([]string{"TrafficLog default/edge", `no backend "nowhere"`}, trafficLog("edge", "edge", "echo", "{backend: nowhere}"))
		f.answers(client, http.StatusOK, "GET", url("/"))
		f.apply(trafficLog("edge", "edge", "echo", "{}"))
	})
}

// drained is how many listeners of a proxy were changed or removed since it started.
func (f *federation) drained(proxy string) string {
	f.t.Helper()
	stats := f.admin(proxy, "/stats?filter="+`^listener_manager\.(listener_modified|listener_removed|listener_in_place_updated)$`)
	return stats
}

// admin asks Envoy's admin interface, by the socket in the proxy's working directory.
func (f *federation) admin(proxy, path string) string {
	f.t.Helper()
	out, err := adminGet(f.path("run", proxy, "admin.sock"), path)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}
