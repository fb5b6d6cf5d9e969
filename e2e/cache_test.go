package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// origin is a backend that counts requests and answers with the headers that the query asks for.
type origin struct {
	mu   sync.Mutex
	n    int
	last http.Header
	path string
}

func (o *origin) seen() (int, http.Header, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n, o.last, o.path
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.n++
	n := o.n
	o.last, o.path = r.Header.Clone(), r.URL.RequestURI()
	o.mu.Unlock()
	for _, h := range r.URL.Query()["h"] {
		name, value, _ := strings.Cut(h, ":")
		w.Header().Add(name, value)
	}
	if tag := w.Header().Get("Etag"); tag != "" && r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := fmt.Sprintf("%d in %s at %s%s", n, r.Header.Get("Accept-Language"), r.Host, strings.Repeat(".", len(r.URL.Query().Get("long"))*1000))
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = io.WriteString(w, body)
}

// startOrigin runs an edge with an origin outside the mesh as service "pages".
func startOrigin(t *testing.T) (*federation, *origin) {
	t.Helper()
	f, o := startEdge(t), &origin{}
	l, err := net.Listen("tcp", f.host(40)+":80")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: o}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	f.apply(fmt.Sprintf("type: ExternalService\nmesh: default\nname: pages\ntags: {kuma.io/service: pages, kuma.io/protocol: http}\nnetworking: {address: '%s:80'}\n", f.host(40)))
	return f, o
}

// cachedRule is a rule to the origin, with more conditions of its match and more filters than its cache.
func cachedRule(path, conditions, cache, more string) string {
	return "      - matches: [{path: {match: PREFIX, value: " + path + "}" + conditions + "}]\n        filters: [{rewrite: {replacePrefixMatch: /page}}, {type: Cache, cache: {" + cache + "}}" + more +
		"]\n        backends: [{destination: {kuma.io/service: pages}}]\n"
}

// TestCache asks twice for everything: what is kept never reaches the origin again, and what must not be kept always does.
func TestCache(t *testing.T) {
	f, o := startOrigin(t)
	client := newClient(t)
	f.apply(gatewayRoute("pages", "", cachedRule("/strict", ", headers: [{name: x-team, match: EXACT, value: b}]", "", "")+
		cachedRule("/strict", "", "vary: [Accept-Language]", ", {requestHeader: {set: [{name: x-by, value: edge}]}}, {responseHeader: {set: [{name: x-answer, value: edge}]}}, {type: Compression, compression: {minLength: 10}}")+
		cachedRule("/lax", "", "ignoreRequestCacheControl: true, defaultTtl: 60s, maxBodySize: 2000, statusHeader: x-kept", "")))
	at := func(path string, headers ...string) string {
		q := url.Values{"h": headers}
		return "http://" + f.at(10, 8080) + path + "?" + q.Encode()
	}
	f.await("the routes", func() error {
		r, _, err := send(client, "GET", at("/strict/first"), nil)
		if err == nil && r.Header.Get("X-Cache") == "" {
			err = fmt.Errorf("%d %v", r.StatusCode, r.Header)
		}
		return err
	})
	const fresh = "Cache-Control:max-age=600"
	get := func(address string, header ...string) (*http.Response, string) {
		t.Helper()
		r, body, err := send(client, "GET", address, nil, header...)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v %v", address, r, err)
		}
		return r, string(body)
	}
	// kept waits until an answer comes from the cache: it may still be on its way there when the client has it.
	kept := func(address string, header ...string) (*http.Response, string) {
		t.Helper()
		// Each answer that comes before the first one is kept is on its way there, too, and may take the first one's place.
		told := map[string]bool{}
		f.await("an answer that is kept", func() error {
			r, body := get(address, header...)
			told[body] = true
			if status := r.Header.Get("X-Cache") + r.Header.Get("X-Kept"); status != "HIT" {
				return fmt.Errorf("%s %v: %s", address, header, status)
			}
			return nil
		})
		before, _, _ := o.seen()
		r, body := get(address, header...)
		after, _, _ := o.seen()
		if status := r.Header.Get("X-Cache") + r.Header.Get("X-Kept"); status != "HIT" || !told[body] || after != before {
			t.Errorf("%s %v: %s, %q after %v, %d requests reached the origin", address, header, status, body, told, after-before)
		}
		return r, body
	}
	never := func(address string, header ...string) {
		t.Helper()
		for range 2 {
			before, _, _ := o.seen()
			r, _ := get(address, header...)
			after, _, path := o.seen()
			if status := r.Header.Get("X-Cache") + r.Header.Get("X-Kept"); status != "MISS" || after != before+1 || strings.Contains(path, "zoneforge") {
				t.Errorf("%s %v: %s, %d requests reached the origin, the last for %s", address, header, status, after-before, path)
			}
		}
	}

	t.Run("hit", func(t *testing.T) {
		r, _ := kept(at("/strict/hit", fresh))
		if r.Header.Get("Age") == "" || r.Header.Get("X-Answer") != "edge" || r.Header.Get("Cache-Control") != "max-age=600" {
			t.Errorf("a hit says %v", r.Header)
		}
		_, sent, path := o.seen()
		if want := "/page/hit?" + (url.Values{"h": {fresh}}).Encode(); path != want || sent.Get("X-By") != "edge" || strings.Contains(sent.Get("X-Forwarded-For"), ",") {
			t.Errorf("the origin was asked for %s, want %s, with %v", path, want, sent)
		}
		for name := range sent {
			if strings.HasPrefix(strings.ToLower(name), "x-zoneforge") {
				t.Errorf("the origin was told %s", name)
			}
		}
		before, _, _ := o.seen()
		head, _, err := send(client, "HEAD", at("/strict/hit", fresh), nil)
		if after, _, _ := o.seen(); err != nil || head.Header.Get("X-Cache") != "HIT" || after != before {
			t.Errorf("HEAD: %v %v", head, err)
		}
	})
	t.Run("what says that it is kept", func(t *testing.T) {
		kept(at("/strict/s", "Cache-Control:public, s-maxage=600"))
		kept(at("/strict/expires", "Expires:Fri, 01 Jan 2100 00:00:00 GMT"))
		kept(at("/lax/silent"))
		kept(at("/lax/refresh", fresh), "Cache-Control", "no-cache")
	})
	t.Run("what must not be kept", func(t *testing.T) {
		never(at("/strict/silent"))
		never(at("/strict/private", "Cache-Control:private, max-age=600"))
		never(at("/strict/store", "Cache-Control:no-store, max-age=600"))
		never(at("/strict/cookie", fresh, "Set-Cookie:session=1"))
		never(at("/strict/authorized", fresh), "Authorization", "Bearer token")
		never(at("/strict/nostore", fresh), "Cache-Control", "no-store")
		never(at("/strict/vary", fresh, "Vary:X-Other"))
		never(at("/strict/any", fresh, "Vary:*"))
		never(at("/lax/long", fresh) + "&long=three")
	})
	t.Run("posts pass", func(t *testing.T) {
		for range 2 {
			before, _, _ := o.seen()
			r, _, err := send(client, "POST", at("/strict/post", fresh), []byte("data"))
			after, sent, path := o.seen()
			if err != nil || r.StatusCode != http.StatusOK || after != before+1 || strings.Contains(path, "zoneforge") || sent.Get("X-By") != "edge" {
				t.Errorf("%v %v, asked for %s with %v", r, err, path, sent)
			}
		}
	})
	t.Run("vary", func(t *testing.T) {
		address := at("/strict/language", fresh, "Vary:accept-language")
		r, de := kept(address, "Accept-Language", "de")
		_, en := kept(address, "Accept-Language", "en")
		_, both := kept(address, "Accept-Language", "de&zoneforge-cache=en")
		_, none := kept(address)
		if _, again := get(address, "Accept-Language", "de"); again != de || !strings.Contains(de, "in de") || !strings.Contains(en, "in en") || both == de || both == en || none == de {
			t.Errorf("%q, %q, %q, %q", de, en, both, none)
		}
		if got := strings.ToLower(strings.Join(r.Header.Values("Vary"), ",")); !strings.Contains(got, "accept-language") {
			t.Errorf("a hit varies by %q: %v", got, r.Header)
		}
	})
	t.Run("compressed for each", func(t *testing.T) {
		address := at("/strict/text", fresh, "Content-Type:text/plain", "Vary:Accept-Language")
		_, text := kept(address)
		r, body, err := send(client, "GET", address, nil, "Accept-Encoding", "gzip")
		if err != nil {
			t.Fatal(err)
		}
		out, err := plain(r.Header.Get("Content-Encoding"), body)
		if err != nil || r.Header.Get("Content-Encoding") != "gzip" || string(out) != text || r.Header.Get("X-Cache") != "HIT" {
			t.Errorf("%v %q %v, want %q", r.Header, out, err, text)
		}
	})
	t.Run("hosts and routes share nothing", func(t *testing.T) {
		address := at("/strict/same", fresh)
		_, one := kept(address, "Host", "one.example.com")
		_, two := kept(address, "Host", "two.example.com")
		_, team := kept(address, "Host", "one.example.com", "X-Team", "b")
		if one == two || one == team {
			t.Errorf("%q, %q, %q", one, two, team)
		}
	})
	t.Run("stale answers are asked about once more", func(t *testing.T) {
		address := at("/strict/stale", "Cache-Control:max-age=1", `Etag:"v1"`)
		// Each answer that comes before the first one is kept may be the one that is.
		told := map[string]bool{}
		f.await("the answer to become stale", func() error {
			r, body := get(address)
			if status := r.Header.Get("X-Cache"); status != "REVALIDATED" {
				told[body] = true
				return fmt.Errorf("%s %v", status, r.Header)
			}
			if !told[body] {
				t.Errorf("one of %v became %q", told, body)
			}
			return nil
		})
		address, first := at("/strict/gone", "Cache-Control:max-age=2"), ""
		f.await("an answer that is kept for a while", func() error {
			r, body := get(address)
			if first = body; r.Header.Get("X-Cache") != "HIT" {
				return fmt.Errorf("%v", r.Header)
			}
			return nil
		})
		f.await("the answer to go", func() error {
			if _, body := get(address); body == first {
				return fmt.Errorf("still %q", body)
			}
			return nil
		})
	})
	t.Run("no-cache asks", func(t *testing.T) {
		address := at("/strict/again", fresh)
		kept(address)
		before, _, _ := o.seen()
		if r, _ := get(address, "Cache-Control", "no-cache"); r.Header.Get("X-Cache") == "HIT" {
			t.Errorf("%v", r.Header)
		}
		if after, _, _ := o.seen(); after != before+1 {
			t.Errorf("%d requests reached the origin", after-before)
		}
	})
	t.Run("a generation begins anew", func(t *testing.T) {
		address := at("/gen/page", fresh)
		f.apply(gatewayRoute("gen", "", cachedRule("/gen", "", "", "")))
		f.answers(client, http.StatusOK, "GET", address)
		_, first := kept(address)
		f.apply(gatewayRoute("gen", "", cachedRule("/gen", "", "", ", {requestHeader: {set: [{name: x-more, value: more}]}}")))
		if _, body := get(address); body != first {
			t.Errorf("another change emptied the cache: %q after %q", body, first)
		}
		f.apply(gatewayRoute("gen", "", cachedRule("/gen", "", "generation: two", "")))
		f.await("another generation", func() error {
			if _, body := get(address); body == first {
				return fmt.Errorf("still %q", body)
			}
			return nil
		})
	})
	t.Run("behind a key", func(t *testing.T) {
		f.apply("type: Secret\nmesh: default\nname: readers\ndata: "+base64.StdEncoding.EncodeToString([]byte("anna: key-of-anna-0123456789\nbert: key-of-bert-0123456789\n"))+"\n",
			gatewayRoute("keyed", "", cachedRule("/keyed", "", "", ", {apiKey: {credentials: [{secret: readers}]}}")))
		f.answers(client, http.StatusOK, "GET", at("/keyed/first"), "X-Api-Key", "key-of-anna-0123456789")
		never(at("/keyed/mine", fresh), "X-Api-Key", "key-of-anna-0123456789")
		_, anna := kept(at("/keyed/all", "Cache-Control:public, max-age=600"), "X-Api-Key", "key-of-anna-0123456789")
		if _, bert := get(at("/keyed/all", "Cache-Control:public, max-age=600"), "X-Api-Key", "key-of-bert-0123456789"); bert != anna {
			t.Errorf("%q is kept for everyone, and not for %q", anna, bert)
		}
		if r, _, err := send(client, "GET", at("/keyed/all", "Cache-Control:public, max-age=600"), nil); err != nil || r.StatusCode != http.StatusUnauthorized {
			t.Errorf("without a key: %v %v", r, err)
		}
	})
	t.Run("bad input", func(t *testing.T) {
		f.refusesToApply([]string{"cache.maxSize: 3 MiB is no power of two (use 1, 2, 4, ... up to 16384)"}, gatewayRoute("bad", "", cachedRule("/bad", "", "maxSize: 3", "")))
		f.refusesToApply([]string{"cache.vary[0]: Cookie makes nearly every answer another one"}, gatewayRoute("bad", "", cachedRule("/bad", "", "vary: [Cookie]", "")))
	})
}

// TestCacheSize fills a cache of 1 MiB with more than it may hold.
func TestCacheSize(t *testing.T) {
	f, o := startOrigin(t)
	client := newClient(t)
	f.apply(gatewayRoute("pages", "", cachedRule("/small", "", "maxSize: 1, defaultTtl: 1h", "")))
	page := func(i int) string {
		return fmt.Sprintf("http://%s/small/%d?long=%s", f.at(10, 8080), i, strings.Repeat("x", 100))
	}
	f.answers(client, http.StatusOK, "GET", page(0))
	for i := range 40 { // of 100 kB each
		if _, _, err := send(client, "GET", page(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	hit := func() error {
		r, _, err := send(client, "GET", page(39), nil)
		if err == nil && r.Header.Get("X-Cache") != "HIT" {
			err = fmt.Errorf("it is not kept: %v", r)
		}
		return err
	}
	f.await("the youngest", hit)
	f.await("the cache to be within its size", func() error {
		files, err := filepath.Glob(f.path("run", "edge", "cache", "1", "cache-*"))
		if err != nil {
			return err
		}
		var sum int64
		for _, name := range files {
			if info, err := os.Stat(name); err == nil {
				sum += info.Size()
			}
		}
		if sum == 0 || sum > 1<<20 {
			return fmt.Errorf("%d bytes in %d files", sum, len(files))
		}
		return nil
	})
	before, _, _ := o.seen()
	err := hit()
	if after, _, _ := o.seen(); err != nil || after != before {
		t.Errorf("the youngest: %v, %d requests reached the origin", err, after-before)
	}
	if info, err := os.Stat(f.path("run", "edge", "cache", "1")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others may read the cache: %v %v", info, err)
	}
}
