package e2e

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// statusOfRaw sends a request whose target is not touched by a client's library.
func statusOfRaw(t *testing.T, address, target string) int {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET " + target + " HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", target, err)
	}
	defer r.Body.Close()
	return r.StatusCode
}

// statusOfRaw2 is the same by HTTP/2; a stream that is refused has none.
func statusOfRaw2(t *testing.T, address, target string) int {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	framer := http2.NewFramer(c, bufio.NewReader(c))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "example.com"}, {":path", target}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("%q: %v", target, err)
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			status, err := strconv.Atoi(frame.PseudoValue("status"))
			if err != nil {
				t.Fatalf("%q: %v", target, err)
			}
			return status
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0
		}
	}
}

// TestConditionsHoldHoweverAPathIsWritten asks for a path that a policy closes in all the ways that reach it at a workload.
func TestConditionsHoldHoweverAPathIsWritten(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.apply(gatewayRoute("all", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1),
		`type: FilterPolicy
mesh: default
name: closed
selectors: [{match: {kuma.io/service: edge}}]
conf:
  filters:
    - type: HTTP
      http:
        rules:
          - match: {prefix: /admin}
            filters: [{fault: {abort: {httpStatus: 418}}}]
          - matches: [{path: {match: EXACT, value: /exact}}, {path: {match: REGEX, value: '/items/[0-9]+'}}]
            filters: [{fault: {abort: {httpStatus: 418}}}]
`)
	f.answers(client, http.StatusTeapot, "GET", url("/admin"))
	f.answers(client, http.StatusOK, "GET", url("/"))
	for target, want := range map[string]int{
		"/admin": 418, "/admin/": 418, "/admin?": 418, "/admin/%ff": 418, "/admin?%ff": 418, "/admin/%0a": 418,
		"/x/../admin": 418, "/./admin": 418, "//admin": 418, "/x/%2e%2e/admin": 418, "/%61dmin": 418,
		"/exact": 418, "/exact?a=/": 418, "//exact": 418, "/items/1": 418, "/items/1?a": 418, "/items//1": 418,
		"/x%2f..%2fadmin": 307, "/admin%2fx": 307,
		// What is no text: HTTP/1 has no such path.
		"/admin?\xff": 400, "/admin/\xff": 400, "/admin?a=\xc3(": 400, "/exact?\xff": 400, "/items/1?\xff": 400,
	} {
		if got := statusOfRaw(t, f.at(10, 8080), target); got != want {
			t.Errorf("%q is answered with %d, want %d", target, got, want)
		}
		if want == http.StatusBadRequest {
			want = http.StatusTeapot
		}
		if got := statusOfRaw2(t, f.at(10, 8080), target); got != want {
			t.Errorf("HTTP/2: %q is answered with %d, want %d", target, got, want)
		}
	}

	// At a workload, too, whoever calls it.
	f.apply(strings.Replace(strictMesh, "STRICT", "PERMISSIVE", 1), `type: FilterPolicy
mesh: default
name: closed-workload
selectors: [{match: {kuma.io/service: echo}}]
conf: {filters: [{http: {rules: [{match: {prefix: /inner}, filters: [{fault: {abort: {httpStatus: 418}}}]}]}}]}
`)
	workload := f.at(31, 15006)
	f.answers(client, http.StatusTeapot, "GET", "http://"+workload+"/inner")
	for target, want := range map[string]int{
		"/inner": 418, "/inner/a?b": 418, "/x/../inner": 418, "/./inner": 418, "/x/%2e%2e/inner": 418, "/%69nner": 418, "/inn": 200,
	} {
		for _, got := range []int{statusOfRaw(t, workload, target), statusOfRaw2(t, workload, target)} {
			if got != want {
				t.Errorf("%q to a workload is answered with %d, want %d", target, got, want)
			}
		}
	}
}
