package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tinyModule is a module of a few hundred bytes that adds the header x-tiny to responses: small enough for a document.
func tinyModule() []byte {
	name := func(s string) string { return string([]byte{byte(len(s))}) + s } // none is longer than 127
	section := func(id byte, content string) string { return string([]byte{id}) + name(content) }
	export := func(what string, kind, index byte) string { return name(what) + string([]byte{kind, index}) }
	body := func(code string) string { return name("\x00" + code + "\x0b") }
	return []byte("\x00asm\x01\x00\x00\x00" +
		// Types: nothing; i32 to i32; two i32; five i32 to i32; three i32 to i32.
		section(1, "\x05\x60\x00\x00\x60\x01\x7f\x01\x7f\x60\x02\x7f\x7f\x00\x60\x05\x7f\x7f\x7f\x7f\x7f\x01\x7f\x60\x03\x7f\x7f\x7f\x01\x7f") +
		section(2, "\x01"+name("env")+name("proxy_add_header_map_value")+"\x00\x03") +
		section(3, "\x04\x00\x01\x02\x04") +
		section(5, "\x01\x00\x01") +
		section(7, "\x05"+export("memory", 2, 0)+export("proxy_abi_version_0_2_1", 0, 1)+export("proxy_on_memory_allocate", 0, 2)+
			export("proxy_on_context_create", 0, 3)+export("proxy_on_response_headers", 0, 4)) +
		// Memory is given at 1024; the last one calls the import with (2, 0, 6, 6, 3), drops its result and goes on.
		section(10, "\x04"+body("")+body("\x41\x80\x08")+body("")+body("\x41\x02\x41\x00\x41\x06\x41\x06\x41\x03\x10\x00\x1a\x41\x00")) +
		section(11, "\x01\x00\x41\x00\x0b"+name("x-tinyyes")))
}

// TestTheTourShowsThisModule holds the module in the tour's document against its source above.
func TestTheTourShowsThisModule(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "deploy", "demo", "tour", "54-wasm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if want := base64.StdEncoding.EncodeToString(tinyModule()); !strings.Contains(string(text), "inline: "+want+"\n") {
		t.Errorf("54-wasm.yaml has another module than %s", want)
	}
}

// buildModule builds the module of testdata/wasm with the Go compiler.
func buildModule(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "module.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", path, "./testdata/wasm")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	module, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// answersWith waits for a status and the value of a header.
func (f *federation) answersWith(client *http.Client, url string, status int, name, value string) {
	f.t.Helper()
	f.await(url, func() error {
		r, _, err := ask(client, http.MethodGet, url)
		if err == nil && (r.StatusCode != status || r.Header.Get(name) != value) {
			err = fmt.Errorf("%d with %s %q, want %d with %q", r.StatusCode, name, r.Header.Get(name), status, value)
		}
		return err
	})
}

// TestWasm runs modules from a file, from a document, from a Secret and from a URL, and ones that differ, break or refuse.
func TestWasm(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	module := buildModule(t)
	f.write("run/edge/wasm/module.wasm", string(module))
	f.write("run/edge/wasm/text.wasm", "no module")
	// A file that isn't known to the zone costs its own route alone.
	late := func(name, file string) string {
		return gatewayRoute(name, "", "      - matches: [{path: {match: PREFIX, value: /"+name+"}}]\n        filters: [{wasm: {file: "+file+"}}]\n"+toV1)
	}
	f.refusesToApply([]string{"no module module.wasm was in the folder wasm of this proxy when it was started"}, late("late", "module.wasm"), late("text", "text.wasm"))
	f.answers(client, http.StatusServiceUnavailable, "GET", url("/late"))
	f.end("edge")
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.path("tokens", "edge"))
	f.answers(client, http.StatusOK, "GET", url("/late"))
	f.answers(client, http.StatusServiceUnavailable, "GET", url("/text"))
	f.cli("delete", "MeshGatewayRoute", "late", "--wait")
	f.cli("delete", "MeshGatewayRoute", "text", "--wait")
	f.serve(f.at(64, 8080), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/modules/module.wasm" {
			_, _ = w.Write(module)
			return
		}
		http.NotFound(w, r)
	}))
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	remote := func(name, sha, more string) string {
		return "{wasm: {remote: {url: 'http://" + f.at(64, 8080) + "/modules/" + name + "', sha256: " + sha + "}" + more + "}}"
	}
	route := func(name, filter string) string {
		return gatewayRoute(name, "", "      - matches: [{path: {match: PREFIX, value: /"+name+"}}]\n        filters:\n          - "+filter+"\n"+toV1)
	}
	tiny := base64.StdEncoding.EncodeToString(tinyModule())
	f.apply(secretDocument("tiny", tinyModule()), secretDocument("other", []byte("no module")),
		route("inline", "{type: WASM, wasm: {module: {inline: "+tiny+"}}}"),
		route("secret", "{wasm: {module: {secret: tiny}}}"),
		route("file", "{wasm: {file: module.wasm, configuration: '{\"from\": \"file\"}'}}"),
		route("breaks", "{wasm: {file: module.wasm, configuration: break}}"),
		route("open", "{wasm: {file: module.wasm, configuration: break, failOpen: true}}"),
		route("remote", remote("module.wasm", strings.ToUpper(sum(module)), ", configuration: fetched")),
		route("differs", remote("module.wasm", sum([]byte("another")), "")),
		route("differs-open", remote("module.wasm", sum([]byte("another")), ", failOpen: true")),
		route("plain", "{responseHeader: {set: [{name: x-plain, value: 'yes'}]}}"))
	f.answersWith(client, url("/plain"), http.StatusOK, "X-Plain", "yes")
	f.answersWith(client, url("/inline"), http.StatusOK, "X-Tiny", "yes")
	f.answersWith(client, url("/secret"), http.StatusOK, "X-Tiny", "yes")
	f.answersWith(client, url("/file"), http.StatusOK, "X-Module", `{"from": "file"}`)
	f.answersWith(client, url("/remote"), http.StatusOK, "X-Module", "fetched")
	f.answersWith(client, url("/breaks"), http.StatusOK, "X-Module", "break")
	// A machine that breaks refuses requests, of its own route alone, until it is replaced.
	if r, _, err := ask(client, http.MethodGet, url("/breaks"), "X-Break", "now"); err != nil || r.StatusCode < http.StatusInternalServerError {
		t.Errorf("a module that breaks: %v %v", r, err)
	}
	f.answersWith(client, url("/file"), http.StatusOK, "X-Module", `{"from": "file"}`)
	f.answersWith(client, url("/breaks"), http.StatusOK, "X-Module", "break")
	f.answersWith(client, url("/open"), http.StatusOK, "X-Module", "break")
	// Once it broke on each thread, requests pass without it.
	f.await("a module that may break", func() error {
		r, _, err := ask(client, http.MethodGet, url("/open"), "X-Break", "now")
		if err == nil && (r.StatusCode != http.StatusOK || r.Header.Get("X-Module") != "") {
			err = fmt.Errorf("%d with %v", r.StatusCode, r.Header)
		}
		return err
	})
	f.answersWith(client, url("/differs"), http.StatusServiceUnavailable, "X-Module", "")
	f.answersWith(client, url("/differs-open"), http.StatusOK, "X-Module", "")

	// A module that is not the one that is meant runs nowhere, wherever it comes from.
	f.apply(route("summed", "{wasm: {file: module.wasm, sha256: "+strings.ToUpper(sum(module))+", configuration: summed}}"), route("summed-secret", "{wasm: {module: {secret: tiny}, sha256: "+sum(tinyModule())+"}}"))
	f.answersWith(client, url("/summed"), http.StatusOK, "X-Module", "summed")
	f.answersWith(client, url("/summed-secret"), http.StatusOK, "X-Tiny", "yes")
	another := sum([]byte("another"))
	f.refusesToApply([]string{"filters[0].wasm.sha256: the module has the SHA-256 " + sum(tinyModule()), "write what sha256sum prints"}, route("summed", "{wasm: {module: {inline: "+tiny+"}, sha256: "+another+"}}"))
	f.answersWith(client, url("/summed"), http.StatusOK, "X-Module", "summed")
	f.refusesToApply([]string{"MeshGatewayRoute default/summed", "module module.wasm in the folder wasm of this proxy had the SHA-256 " + sum(module)}, route("summed", "{wasm: {file: module.wasm, sha256: "+another+"}}"))
	f.refusesToApply([]string{"MeshGatewayRoute default/summed-secret", "the module has the SHA-256 " + sum(tinyModule())}, route("summed-secret", "{wasm: {module: {secret: tiny}, sha256: "+another+"}}"))
	f.answersWith(client, url("/summed"), http.StatusServiceUnavailable, "X-Module", "")
	f.answersWith(client, url("/summed-secret"), http.StatusServiceUnavailable, "X-Tiny", "")
	f.answersWith(client, url("/file"), http.StatusOK, "X-Module", `{"from": "file"}`)
	f.cli("delete", "MeshGatewayRoute", "summed", "--wait")
	f.cli("delete", "MeshGatewayRoute", "summed-secret", "--wait")

	// What a Secret holds is looked at by the zone; the rule alone is left out.
	f.refusesToApply([]string{"is no WebAssembly module"}, route("other", "{wasm: {module: {secret: other}}}"))
	f.cli("delete", "MeshGatewayRoute", "other")
	f.refusesToApply([]string{"64 hexadecimal digits"}, route("bad", remote("module.wasm", "abc", "")))
	f.refusesToApply([]string{"exports no proxy_abi_version_0_1_0"}, route("bad", "{wasm: {module: {inline: "+base64.StdEncoding.EncodeToString([]byte("\x00asm\x01\x00\x00\x00"))+"}}}"))

	// Each change of the routes loads all their modules anew, so those that were looked at go.
	f.post(route("secret", "{wasm: {module: {secret: tiny}}}"), strings.Join([]string{route("inline", ""), route("breaks", ""), route("open", ""), route("remote", ""), route("differs", ""), route("differs-open", "")}, "---\n"))

	// What only Envoy finds out is told with the receipt and as the policy's status, and costs its own route alone.
	f.refusesToApply([]string{"Unable to create Wasm plugin"}, route("refuses", "{wasm: {file: module.wasm, configuration: refuse}}"))
	f.answersWith(client, url("/refuses"), http.StatusServiceUnavailable, "X-Module", "")
	f.answersWith(client, url("/file"), http.StatusOK, "X-Module", `{"from": "file"}`)
	f.answersWith(client, url("/plain"), http.StatusOK, "X-Plain", "yes")
	f.await("the policy's status", func() error {
		s, err := f.status("east")
		if err == nil && (s.Acked != s.Proxies || len(s.Nacks) > 0 || len(s.Rejected) != 1 || s.Rejected[0].Name != "refuses") {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	f.cli("apply", "-f", f.write("beside.yaml", route("plain", "{responseHeader: {set: [{name: x-plain, value: beside}]}}")))
	f.answersWith(client, url("/plain"), http.StatusOK, "X-Plain", "beside")
	f.apply(route("refuses", "{wasm: {file: module.wasm, configuration: mended}}"))
	f.answersWith(client, url("/refuses"), http.StatusOK, "X-Module", "mended")
	f.cli("delete", "MeshGatewayRoute", "refuses")
	f.apply(route("plain", "{responseHeader: {set: [{name: x-plain, value: again}]}}"))
	f.answersWith(client, url("/plain"), http.StatusOK, "X-Plain", "again")
	f.answersWith(client, url("/file"), http.StatusOK, "X-Module", `{"from": "file"}`)
}
