package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// TestDamagedStateLosesNoRequest starts a zone whose state is cut off in its middle, with global there and with global gone. It sets the
// state aside and gets it anew; proxies keep what they have until then, and no request is lost.
func TestDamagedStateLosesNoRequest(t *testing.T) {
	f := startEdge(t)
	f.apply(gatewayRoute("all", "", "      - matches: [{path: {match: PREFIX, value: /one}}]\n"+toV1+"      - matches: [{path: {match: PREFIX, value: /two}}]\n"+toV2))
	client := newClient(t)
	url := "http://" + f.at(10, 8080)
	f.answers(client, http.StatusOK, "GET", url+"/one")
	f.answers(client, http.StatusOK, "GET", url+"/two")

	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var lost []string
	sent := 0
	var wg sync.WaitGroup
	for _, path := range []string{"/one", "/two"} {
		wg.Go(func() {
			for ctx.Err() == nil {
				r, a, err := ask(client, "GET", url+path)
				if err == nil && r.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %d: %s", r.StatusCode, a.Text)
				}
				mu.Lock()
				if sent++; err != nil {
					lost = append(lost, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), path, err))
				}
				mu.Unlock()
			}
		})
	}
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	damage := func() {
		t.Helper()
		f.kill("east")
		info, err := os.Stat(f.path("east", "state.db"))
		if err == nil {
			// A database grows by doubling, so its second half may hold nothing yet.
			err = os.Truncate(f.path("east", "state.db"), info.Size()/4)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.run("east", f.zoneArgs("east", 2)...)
		f.logs("east", "data directory was damaged")
	}

	damage()
	f.settled("east", 3)

	if code := f.end("global"); code != 0 {
		t.Errorf("global: exit %d", code)
	}
	damage()
	// It knows nobody's token now.
	f.logs("east", "proxy refused")
	f.startGlobal()
	f.settled("east", 3)
	// A change still reaches them all.
	f.apply(gatewayRoute("more", "", "      - matches: [{path: {match: PREFIX, value: /three}}]\n"+toV1))
	f.answers(client, http.StatusOK, "GET", url+"/three")
	stop()
	if len(lost) > 0 {
		t.Errorf("%d of %d requests were lost:\n%v", len(lost), sent, lost[:min(len(lost), 10)])
	}
}
