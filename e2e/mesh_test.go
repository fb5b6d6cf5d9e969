package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestMeshChangesUnderTraffic changes what all proxies of a mesh stand on, each change at once, while requests go on. A change of
// mode changes listeners, so their old connections drain, and the last of them may end, seconds later, under a request: without
// a Retry policy, and here is none, that is a 503. More than a request for each connection must not be lost.
func TestMeshChangesUnderTraffic(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	rule := func(path string) string {
		return "      - matches: [{path: {match: EXACT, value: " + path + "}}]\n        backends: [{destination: {kuma.io/service: echo}}]\n"
	}
	f.apply(gatewayRoute("one", "", rule("/one")))
	f.answers(client, http.StatusOK, "GET", url("/one"))

	var requests, lost atomic.Int64
	var first atomic.Value
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			r, err := client.Get(url("/one"))
			if err == nil {
				var body []byte
				body, err = io.ReadAll(r.Body)
				r.Body.Close()
				if err == nil && r.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %d: %s", r.StatusCode, body)
				}
			}
			if requests.Add(1); err != nil {
				first.CompareAndSwap(nil, err.Error())
				lost.Add(1)
			}
		}
	}()
	// Each worker of the gateway has a connection to each of two workloads.
	mayLose := int64(2 * f.workers("edge"))
	under := func(name string, change func()) {
		t.Helper()
		change()
		enough := requests.Load() + 100
		f.await("traffic", func() error {
			if n := requests.Load(); n < enough {
				return fmt.Errorf("%d requests", n)
			}
			return nil
		})
		if n := lost.Swap(0); n > mayLose {
			t.Errorf("%s lost %d requests, the first by %v", name, n, first.Load())
		}
	}
	backends := func(enabled string, names ...string) string {
		out := "type: Mesh\nname: default\nmtls:\n  enabledBackend: " + enabled + "\n  backends:\n"
		for _, name := range names {
			out += "    - {name: " + name + ", type: builtin, mode: STRICT}\n"
		}
		return out
	}
	for _, c := range []struct{ name, document string }{
		{"permissive", strings.Replace(strictMesh, "STRICT", "PERMISSIVE", 1)},
		{"strict", strictMesh},
		{"a second root", backends("ca", "ca", "cb")},
		{"the second root in use", backends("cb", "ca", "cb")},
		{"the first root gone", backends("cb", "cb")},
		{"short certificates", strings.Replace(backends("cb", "cb"), "STRICT", "STRICT, dpCert: {rotation: {expiration: 1m}}", 1)},
	} {
		under(c.name, func() { f.apply(c.document) })
	}

	under("a zone that is disabled", func() {
		f.cli("apply", "-f", f.write("zone.yaml", "type: Zone\nname: east\nenabled: false\n"))
		f.await("the zone's absence", func() error {
			s, err := f.status("east")
			if err == nil && s.Connected {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})
		f.refusesToApply([]string{"there is no enabled zone"}, gatewayRoute("two", "", rule("/two")))
		f.answers(client, http.StatusNotFound, "GET", url("/two"))
	})
	under("a zone that is enabled", func() {
		f.cli("apply", "-f", f.write("zone.yaml", "type: Zone\nname: east\nenabled: true\n"))
		f.settled("east", 3)
		f.answers(client, http.StatusOK, "GET", url("/two"))
	})
	under("a zone that is deleted", func() {
		f.cli("delete", "zone", "east")
		// Its token went with it; by a new one it comes back.
		f.logs("east", "Zone east was deleted, and its tokens with it")
		f.token("east", "zone", "east")
		f.settled("east", 3)
	})
	under("a mesh that is in use", func() {
		f.fails(1, []string{"Mesh default still holds MeshGateway default/edge"}, "delete", "mesh", "default")
	})
	close(stop)
	<-stopped
	// Without mutual TLS, and with it again: here both ends change, and only PERMISSIVE parts them.
	for _, document := range []string{"type: Mesh\nname: default\n", strictMesh} {
		f.apply(document)
		f.answers(client, http.StatusOK, "GET", url("/one"))
	}

	// Documents that Envoy could not follow are refused before anything runs.
	inbound := "    - {port: 15006, servicePort: 8080, tags: {kuma.io/service: echo}}\n"
	for _, c := range []struct{ name, more, word string }{
		{"twice an inbound", "  inbound:\n" + inbound + inbound, "port 15006"},
		{"twice an outbound", "  inbound:\n" + inbound + "  outbound:\n    - {port: 7000, tags: {kuma.io/service: a}}\n    - {port: 7000, tags: {kuma.io/service: b}}\n", "port 7000"},
		{"an outbound on an inbound", "  inbound:\n" + inbound + "  outbound:\n    - {port: 15006, address: " + f.host(36) + ", tags: {kuma.io/service: a}}\n", "port 15006"},
		{"an inbound that forwards to itself", "  inbound:\n    - {port: 15006, servicePort: 15006, serviceAddress: " + f.host(36) + ", tags: {kuma.io/service: echo}}\n", "15006"},
	} {
		p := f.run("odd", f.proxyArgs("east", 2, "odd", sidecarDocument("default", "odd", f.host(36), c.more), f.path("tokens", "echo"))...)
		if code, out := f.exit(p); code != 3 || !strings.Contains(out, c.word) {
			t.Errorf("%s: exit %d: %s", c.name, code, out)
		}
	}
}
