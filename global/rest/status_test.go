package rest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/global/store"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// fakeZones has one zone, whose receipts move as a test says.
type fakeZones struct {
	mu      sync.Mutex
	acked   int
	of      int
	changed chan struct{}
	asked   *kdsv1.Query
	answer  []byte
	err     error
}

func (f *fakeZones) Statuses() any { return []string{"east"} }

func (f *fakeZones) Status(zone string) (any, bool) {
	return map[string]string{"zone": zone}, zone == "east"
}

func (f *fakeZones) Receipt(c *store.ShownChange) (any, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return map[string]any{"change": c.Seq, "acked": f.acked, "live": f.acked == f.of}, f.acked == f.of
}

func (f *fakeZones) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakeZones) ack() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acked++
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeZones) Ask(_ context.Context, zone string, q *kdsv1.Query) ([]byte, error) {
	f.asked = q
	return f.answer, f.err
}

func TestZonesAndReceipts(t *testing.T) {
	zones := &fakeZones{of: 2, changed: make(chan struct{})}
	ended := make(chan struct{})
	h := New(Config{Store: newStore(t), Authenticator: byName{}, Zones: zones, Done: ended})
	c := client{t, h}
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(`{"type":"Mesh","name":"default"}`)), 200, `"change":1`)

	c.want(c.do("nobody", "GET", "/v1/status/zones", "", ""), 401)
	c.want(c.do("viewer", "GET", "/v1/status/zones", "", ""), 200, `{"items":["east"]}`)
	c.want(c.do("viewer", "GET", "/v1/status/zones/east", "", ""), 200, `{"zone":"east"}`)
	c.want(c.do("viewer", "GET", "/v1/status/zones/west", "", ""), 404, `zone \"west\" is not known`)

	c.want(c.do("viewer", "GET", "/v1/changes/9/status", "", ""), 404)
	c.want(c.do("viewer", "GET", "/v1/changes/x/status", "", ""), 404)
	c.want(c.do("viewer", "GET", "/v1/changes/1/status?watch=perhaps", "", ""), 400, "watch")
	c.want(c.do("viewer", "GET", "/v1/changes/1/status?watch=true&timeout=long", "", ""), 400, "timeout")
	c.want(c.do("viewer", "GET", "/v1/changes/1/status", "", ""), 200, `"acked":0`)
	w := c.do("viewer", "GET", "/v1/changes/1/status?watch=true&timeout=0s", "", "")
	c.want(w, 200, `{"acked":0,"change":1,"live":false}`+"\n")

	// Lines come one by one, each before the next thing happens, and the complete one ends them.
	server := httptest.NewUnstartedServer(h)
	server.Config.WriteTimeout = 50 * time.Millisecond // watching outlasts what other requests may take
	server.Start()
	defer server.Close()
	watch := func() *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/v1/changes/1/status?watch=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "viewer")
		// On a machine that stands still the limit may be over before the watch has begun, and lifted it.
		for attempt := 0; ; attempt++ {
			res, err := server.Client().Do(r)
			if err == nil {
				return res
			}
			if attempt == 20 {
				t.Fatal(err)
			}
		}
	}
	res := watch()
	defer res.Body.Close()
	if ct := res.Header.Get("Content-Type"); ct != "application/x-ndjson" {
		t.Errorf("content type %s", ct)
	}
	lines := bufio.NewScanner(res.Body)
	for i := range 3 {
		if !lines.Scan() {
			t.Fatalf("line %d is missing: %v", i, lines.Err())
		}
		if want := fmt.Sprintf(`"acked":%d`, i); !strings.Contains(lines.Text(), want) {
			t.Errorf("line %d lacks %s: %s", i, want, lines.Text())
		}
		if i == 0 {
			<-time.After(2 * server.Config.WriteTimeout)
		}
		if i < 2 {
			zones.ack()
		}
	}
	if lines.Scan() {
		t.Errorf("a line follows the complete one: %s", lines.Text())
	}

	// A server that stops ends those who watch.
	zones.mu.Lock()
	zones.of = 5
	zones.mu.Unlock()
	res = watch()
	defer res.Body.Close()
	lines = bufio.NewScanner(res.Body)
	if !lines.Scan() {
		t.Fatal("no line")
	}
	close(ended)
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("%s, %v", lines.Text(), lines.Err())
	}

	const one = "/v1/zones/east/dataplanes/default/web-1"
	zones.answer = []byte(`{"items":[]}`)
	c.want(c.do("viewer", "GET", "/v1/zones/east/dataplanes?mesh=m", "", ""), 200, `{"items":[]}`)
	if got := zones.asked.GetListDataplanes().GetMesh(); got != "m" {
		t.Errorf("asked for mesh %q", got)
	}
	c.want(c.do("viewer", "GET", one+"?config=true", "", ""), 200)
	if d := zones.asked.GetDescribeDataplane(); d.GetMesh() != "default" || d.GetName() != "web-1" || !d.GetConfig() {
		t.Errorf("asked %v", d)
	}
	c.want(c.do("viewer", "GET", "/v1/zones/east/dataplanes/-/in", "", ""), 200)
	if d := zones.asked.GetDescribeDataplane(); d.GetMesh() != "" || d.GetConfig() {
		t.Errorf("asked %v", d)
	}
	c.want(c.do("viewer", "GET", one+"?config=1", "", ""), 400)
	for _, e := range []struct {
		err  error
		code int
	}{{ErrNoZone, 404}, {ErrNotConnected, 503}, {ErrNoProxy, 404}, {context.DeadlineExceeded, 504}, {errors.New("zone said no"), 502}} {
		zones.err = fmt.Errorf("ask: %w", e.err)
		c.want(c.do("viewer", "GET", one, "", ""), e.code, `"code":`)
	}
	const up = "/v1/zones/east/check-up"
	zones.err, zones.answer = nil, []byte(`{"items":[{"replica":"a"},{"replica":"b"}],"silent":["d"]}`)
	c.want(c.do("viewer", "GET", up, "", ""), 200, `"checkUp":{"replica":"a"}`, `"checkUps":[{"replica":"a"},{"replica":"b"}]`, `"silent":["d"]`)
	zones.answer = []byte(`{"replica":"a"}`)
	c.want(c.do("viewer", "GET", up, "", ""), 502, "no list of its replicas")
	zones.answer = []byte("{")
	c.want(c.do("viewer", "GET", one, "", ""), 502, "no JSON")
}
