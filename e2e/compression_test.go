package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// send sends a request with a body and reads the whole answer as it is.
func send(client *http.Client, method, url string, body []byte, header ...string) (*http.Response, []byte, error) {
	r, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	out, err := io.ReadAll(response.Body)
	return response, out, err
}

// plain undoes an encoding.
func plain(encoding string, data []byte) ([]byte, error) {
	var r io.Reader = bytes.NewReader(data)
	switch encoding {
	case "":
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	case "br":
		r = brotli.NewReader(r)
	case "zstd":
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	default:
		return nil, fmt.Errorf("unknown encoding %q", encoding)
	}
	return io.ReadAll(r)
}

// TestCompression asks for answers in each encoding, and looks at what is chosen, what stays as it is, and what the backend sees.
func TestCompression(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	client.Transport.(*http.Transport).DisableCompression = true
	text := []byte(strings.Repeat("all work and no play makes a dull page. ", 200))
	f.workload(f.host(40)+":80", "pages", map[string]http.HandlerFunc{
		"/text": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("X-Accepts", r.Header.Get("Accept-Encoding"))
			w.Header().Set("Etag", `"v1"`)
			_, _ = w.Write(text)
		},
		"/short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write(text[:900])
		},
		"/image": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "image/png")
			_, _ = w.Write(text)
		},
		"/done": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(text)
			_ = z.Close()
		},
		"/echo": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Encoding", r.Header.Get("Content-Encoding"))
			w.Header().Set("Content-Type", "image/png")
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		},
	})
	rule := func(path, filters string) string {
		return "      - matches: [{path: {match: PREFIX, value: " + path + "}}]\n        filters: [{rewrite: {replacePrefixMatch: /}}" + filters + "]\n        backends: [{destination: {kuma.io/service: pages}}]\n"
	}
	f.apply(fmt.Sprintf("type: ExternalService\nmesh: default\nname: pages\ntags: {kuma.io/service: pages, kuma.io/protocol: http}\nnetworking: {address: '%s:80'}\n", f.host(40)),
		gatewayRoute("pages", "", rule("/plain", "")+rule("/default", ", {type: Compression}")+
			rule("/gzip", ", {compression: {algorithms: [{type: GZIP, level: 9}], minLength: 800, contentTypes: [image/png, text/html]}}")+
			rule("/zstd", ", {compression: {algorithms: [{type: ZSTD, level: 19}, {type: GZIP}], decompressRequests: true}}")))
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.answers(client, http.StatusOK, "GET", url("/zstd/text"))

	const all = "gzip, deflate, br, zstd"
	for _, c := range []struct{ path, accept, want string }{
		{"/default/text", all, "br"}, {"/default/text", "gzip", "gzip"}, {"/default/text", "br", "br"}, {"/default/text", "zstd", "zstd"},
		{"/default/text", "gzip;q=1, br;q=0.1", "gzip"}, {"/default/text", "*", "br"}, {"/default/text", "gzip;q=0", ""}, {"/default/text", "identity", ""},
		{"/default/text", "", ""}, {"/default/short", all, ""}, {"/default/image", all, ""},
		{"/default/done", "gzip", "gzip"}, {"/default/done", "br", "gzip"}, // what a backend compressed is left alone
		{"/gzip/text", all, "gzip"}, {"/gzip/text", "br", ""}, {"/gzip/short", all, "gzip"}, {"/gzip/image", all, "gzip"},
		{"/zstd/text", all, "zstd"}, {"/zstd/text", "gzip", "gzip"}, {"/zstd/text", "br", ""},
		{"/plain/text", all, ""},
	} {
		r, body, err := send(client, "GET", url(c.path), nil, "Accept-Encoding", c.accept)
		if err != nil {
			t.Fatal(err)
		}
		got := r.Header.Get("Content-Encoding")
		out, err := plain(got, body)
		if got != c.want || err != nil || !bytes.HasPrefix(text, out) || len(out) == 0 {
			t.Errorf("%s with %q: %q, want %q; %d bytes become %d, %v", c.path, c.accept, got, c.want, len(body), len(out), err)
		}
		compressed := c.want != "" && !strings.HasSuffix(c.path, "/done")
		if compressed && (len(body) >= len(out) || !strings.EqualFold(r.Header.Get("Vary"), "Accept-Encoding")) {
			t.Errorf("%s with %q: %d bytes of %d, %v", c.path, c.accept, len(body), len(out), r.Header)
		}
		if strings.HasSuffix(c.path, "/text") {
			if compressed && r.Header.Get("Etag") != `W/"v1"` || !compressed && r.Header.Get("Etag") != `"v1"` {
				t.Errorf("%s with %q: the ETag is %s", c.path, c.accept, r.Header.Get("Etag"))
			}
			if accepts := r.Header.Get("X-Accepts"); (accepts == c.accept) != strings.HasPrefix(c.path, "/plain") && c.accept != "" {
				t.Errorf("%s with %q: the backend was asked for %q", c.path, c.accept, accepts)
			}
		}
	}

	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(text)
	_ = z.Close()
	for path, want := range map[string][]byte{"/zstd/echo": text, "/default/echo": zipped.Bytes()} {
		r, body, err := send(client, "POST", url(path), zipped.Bytes(), "Content-Encoding", "gzip")
		if err != nil || !bytes.Equal(body, want) || (r.Header.Get("X-Encoding") == "") != (path == "/zstd/echo") {
			t.Errorf("a compressed request to %s came as %d bytes, encoding %q: %v", path, len(body), r.Header.Get("X-Encoding"), err)
		}
	}

	f.refusesToApply([]string{"compression.algorithms[0].level: GZIP has levels 1 to 9"},
		gatewayRoute("bad", "", rule("/bad", ", {compression: {algorithms: [{type: GZIP, level: 20}]}}")))
}
