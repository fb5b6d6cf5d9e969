package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestGarbage throws at global's REST and at the command line what no client of ours would send. Each piece is refused with a
// reason, nothing of it is stored, and global serves on.
func TestGarbage(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	good := `{"kind":"TrafficPermission","mesh":"default","name":"p","spec":{}}`
	deep := strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	for _, c := range []struct {
		name, method, path string
		body               io.Reader
		status             []int
	}{
		{"nothing", "POST", "/v1/changes", nil, []int{400, 422}},
		{"no JSON", "POST", "/v1/changes", strings.NewReader("hello"), []int{400, 422}},
		{"half of JSON", "POST", "/v1/changes", strings.NewReader(`{"resources":[`), []int{400, 422}},
		{"a list", "POST", "/v1/changes", strings.NewReader(`[]`), []int{400, 422}},
		{"null", "POST", "/v1/changes", strings.NewReader(`null`), []int{400, 422}},
		{"a null resource", "POST", "/v1/changes", strings.NewReader(`{"resources":[null]}`), []int{400, 422}},
		{"an unknown field", "POST", "/v1/changes", strings.NewReader(`{"resource":[]}`), []int{400, 422}},
		{"a nest", "POST", "/v1/changes", strings.NewReader(`{"resources":[` + deep + `]}`), []int{400, 413, 422}},
		{"a nest of lists", "POST", "/v1/changes", strings.NewReader(`{"resources":` + strings.Repeat("[", 1_000_000)), []int{400, 413, 422}},
		{"twice the same", "POST", "/v1/changes", strings.NewReader(`{"resources":[` + good + "," + good + `]}`), []int{400, 422}},
		{"two values", "POST", "/v1/changes", strings.NewReader(`{"deletes":[]} {"deletes":[]}`), []int{400, 422}},
		{"100 MB", "POST", "/v1/changes", io.LimitReader(endless{}, 100<<20), []int{413}},
		{"100 MB of a resource", "PUT", "/v1/meshes/default/traffic-permissions/p", io.LimitReader(endless{}, 100<<20), []int{413}},
		{"bytes", "PUT", "/v1/meshes/default/traffic-permissions/p", bytes.NewReader([]byte{0xff, 0xfe, 0, 1, 2}), []int{400, 422}},
		{"another name", "PUT", "/v1/meshes/default/traffic-permissions/p", strings.NewReader(`{"type":"TrafficPermission","mesh":"default","name":"q"}`), []int{400, 422}},
		{"a name that is none", "PUT", "/v1/meshes/default/traffic-permissions/%2e%2e%2fp", strings.NewReader(good), []int{301, 307, 400, 404, 422}},
		{"a mesh that is not there", "PUT", "/v1/meshes/nowhere/traffic-permissions/p", strings.NewReader(`{"type":"TrafficPermission","sources":[{"match":{"kuma.io/service":"*"}}],"destinations":[{"match":{"kuma.io/service":"*"}}]}`), []int{404, 422}},
		{"an unknown kind", "GET", "/v1/meshes/default/wishes", nil, []int{404}},
		{"a change below zero", "GET", "/v1/changes/-1", nil, []int{400, 404, 422}},
		{"a change beyond", "GET", "/v1/changes/99999999999999999999999", nil, []int{400, 404, 422}},
		{"a long watch", "GET", "/v1/changes/1/status?watch=true&timeout=9999999h", nil, []int{400, 422}},
		{"a negative page", "GET", "/v1/changes?limit=-5", nil, []int{400, 422}},
		{"a zone that is none", "GET", "/v1/status/zones/%00", nil, []int{400, 404}},
		{"a token for ever", "POST", "/v1/tokens/user", strings.NewReader(`{"name":"a","role":"admin","ttl":"99999999h"}`), []int{400, 422}},
		{"a token of the past", "POST", "/v1/tokens/user", strings.NewReader(`{"name":"a","role":"admin","ttl":"-1h"}`), []int{400, 422}},
		{"a token for nobody", "POST", "/v1/tokens/zone", strings.NewReader(`{"zone":""}`), []int{400, 422}},
		{"a god's token", "POST", "/v1/tokens/user", strings.NewReader(`{"name":"a","role":"god"}`), []int{400, 422}},
	} {
		code, body, err := f.rest(c.method, c.path, c.body)
		// A server that has read enough may close the connection while the client still writes.
		if err != nil && len(c.status) == 1 && c.status[0] == http.StatusRequestEntityTooLarge {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		found := false
		for _, s := range c.status {
			found = found || s == code
		}
		if !found || code >= 400 && !strings.Contains(string(body), `"code"`) {
			t.Errorf("%s: status %d, want %v with a problem: %.300s", c.name, code, c.status, body)
		}
		if len(body) > 64<<10 {
			t.Errorf("%s: an answer of %d bytes", c.name, len(body))
		}
	}

	bomb := "type: Mesh\nname: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := range 12 {
		bomb += fmt.Sprintf("b%d: &b%d [*%s,*%[3]s,*%[3]s,*%[3]s,*%[3]s,*%[3]s,*%[3]s,*%[3]s,*%[3]s]\n", i, i, map[bool]string{true: "a", false: fmt.Sprintf("b%d", i-1)}[i == 0])
	}
	for _, c := range []struct{ name, text string }{
		{"nothing", ""},
		{"bytes", "\x00\x01\xff\xfe"},
		{"a tab", "type: Mesh\n\tname: m\n"},
		{"no kind", "name: m\n"},
		{"a list", "- type: Mesh\n"},
		{"a bomb", bomb},
		{"itself", "type: Mesh\nname: m\nmtls: &a {backends: [*a]}\n"},
		{"a nest", "type: Mesh\nname: m\nmtls: " + strings.Repeat("[", 50_000) + "\n"},
		{"twice a key", "type: Mesh\nname: m\nname: n\n"},
		{"a tag", "type: !!python/object:os.system Mesh\nname: m\n"},
		{"a merge", "type: Mesh\nname: m\n<<: {a: b}\n"},
		{"one good and one bad", permit("default", "half", "*", "*", "ALLOW") + "---\n" + permit("default", "other", "*", "*", "MAYBE")},
		{"a proxy", sidecarDocument("default", "d", "127.0.0.1", inboundOf("a", "http", "127.0.0.1", 80, ""))},
	} {
		_, err := f.try("apply", "-f", f.write("garbage.yaml", c.text))
		var r refused
		if !errors.As(err, &r) || r.code != 1 {
			t.Errorf("%s: %v, want exit 1", c.name, err)
			continue
		}
		if strings.Contains(r.output, "panic") || strings.Contains(r.output, "goroutine") || len(r.output) > 16<<10 {
			t.Errorf("%s: it says %.500s", c.name, r.output)
		}
		if c.text != "" && !strings.Contains(r.output, "garbage.yaml") {
			t.Errorf("%s: it does not name the file: %.500s", c.name, r.output)
		}
	}
	if out := f.cli("get", "trafficpermissions"); out != "no trafficpermissions\n" && strings.Contains(out, "half") {
		t.Errorf("half of a change is there: %s", out)
	}
	// What global made itself at its first start is all that there is to tell.
	code, body, err := f.rest("GET", "/v1/changes", nil)
	if err != nil || code != http.StatusOK || strings.Contains(string(body), "TrafficPermission") {
		t.Errorf("the history tells of garbage: %d %s %v", code, body, err)
	}
	// A change as large as it may be is taken whole, in one step.
	var large strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&large, "%s---\n", permit("default", fmt.Sprintf("p-%d", i), "*", fmt.Sprintf("s-%d", i), "ALLOW"))
	}
	out := f.cli("apply", "-f", f.write("large.yaml", large.String()))
	if !strings.Contains(out, "TrafficPermission default/p-2999 created") {
		t.Errorf("it says %.300s", out)
	}
}

// endless is a JSON text that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
