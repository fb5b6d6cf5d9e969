package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/clock"
)

// timepiece is the clock of a process, off by some time, also when the process starts again.
type timepiece struct {
	by  time.Duration
	own *clock.Clock
}

// begin starts a process, with a clock of its own where it has one.
func (f *federation) begin(p *process) (err error) {
	c := f.clocks[p.name]
	if c == nil {
		return p.cmd.Start()
	}
	c.own, err = clock.Start(p.cmd, c.by)
	return err
}

// setClock sets the clock of a process off. One that runs must have had its own from the start.
func (f *federation) setClock(name string, by time.Duration) {
	f.t.Helper()
	c := f.clocks[name]
	if c == nil {
		c = &timepiece{}
		f.clocks[name] = c
	}
	c.by = by
	if f.running[name] == nil {
		return
	}
	if c.own == nil {
		f.t.Fatalf("%s runs with the clock of the machine", name)
	}
	if err := c.own.Set(by); err != nil {
		f.t.Fatalf("clock of %s: %v", name, err)
	}
}

// TestClocks runs a federation whose clocks are an hour wrong, each in its own direction, and sets them while it runs. Envoys, which have
// the machine's, judge the certificates.
func TestClocks(t *testing.T) {
	f := newFederation(t)
	f.heartbeat = "5s" // no stream ends where a busy machine is silent for a while
	f.setClock("global", time.Hour)
	f.setClock("east", time.Hour)
	f.setClock("west", -time.Hour)
	f.startGlobal()
	f.startZone("east", 2)
	f.startZone("west", 3)
	route := func(service string) string {
		return gatewayRoute(service, "", "      - matches: [{path: {match: EXACT, value: /"+service+"}}]\n        backends: [{destination: {kuma.io/service: "+service+"}}]\n")
	}
	f.apply(strictMesh, permit("default", "all", "*", "*", "ALLOW"), edgeGateway, route("near"), route("far"))
	f.startProxy("west", 3, "ingress", fmt.Sprintf("type: ZoneIngress\nname: ingress\nnetworking: {address: %s, port: 10001}\n", f.host(20)), f.token("ingress", "zone-ingress", "west"))
	serve := func(zone string, n int, service string, host int) {
		t.Helper()
		f.workload(f.at(host, 8080), service, nil)
		f.startProxy(zone, n, service, sidecarDocument("default", service, f.host(host), inboundOf(service, "http", f.host(host), 8080, "")),
			f.token(service, "dataplane", "--mesh", "default", "--service", service))
	}
	serve("east", 2, "near", 31)
	serve("west", 3, "far", 41)
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.token("edge", "dataplane", "--mesh", "default", "--service", "edge"))
	f.settled("east", 2)
	f.settled("west", 2)
	client := newClient(t)
	url := func(service string) string { return "http://" + f.at(10, 8080) + "/" + service }
	for _, service := range []string{"near", "far"} {
		f.answers(client, http.StatusOK, "GET", url(service))
	}
	// It says by how much at least, so less what asking takes.
	ahead := f.fails(1, []string{"clock", "zone west"}, "doctor")
	if !regexp.MustCompile(`(2h0m0s|1h59m\d+s) behind global's`).MatchString(ahead) {
		t.Errorf("it doesn't say how far west is behind: %s", ahead)
	}

	// All of them jump, and everything is signed anew by the clocks of now.
	near, far := f.send(url("near")), f.send(url("far"))
	shorter := strings.Replace(strictMesh, "mode: STRICT}", "mode: STRICT, dpCert: {rotation: {expiration: 12h}}}", 1)
	for i, by := range []time.Duration{-time.Hour, time.Hour} {
		f.setClock("global", by)
		f.setClock("east", by)
		f.setClock("west", -by)
		f.apply([]string{shorter, strictMesh}[i])
		service := fmt.Sprint("new", i)
		serve("east", 2, "near-"+service, 51+i)
		serve("west", 3, "far-"+service, 61+i)
		f.apply(route("near-"+service), route("far-"+service))
		f.answers(client, http.StatusOK, "GET", url("near-"+service))
		f.answers(client, http.StatusOK, "GET", url("far-"+service))
	}
	// No stream ended by it: what is silent for long is measured by what no clock sets.
	figures, err := f.zoneFigures(2)
	if err != nil {
		t.Fatal(err)
	}
	if n := figures["zoneforge_zone_kds_welcomes_total"]; n != 1 {
		t.Errorf("zone east had %v streams to global", n)
	}
	// The history is in the order of changes, whatever the clock said of each.
	code, text, err := f.rest(http.MethodGet, "/v1/changes?limit=100", nil)
	var page struct {
		Items []struct{ Change, Revision int64 }
	}
	if err == nil && code == http.StatusOK {
		err = json.Unmarshal(text, &page)
	}
	if err != nil || code != http.StatusOK || len(page.Items) < 5 {
		t.Fatalf("history: %d %s %v", code, text, err)
	}
	for i := range page.Items[1:] {
		if a, b := page.Items[i+1], page.Items[i]; a.Change >= b.Change || a.Revision >= b.Revision {
			t.Errorf("the history has %+v before %+v", a, b)
		}
	}
	// A restart with a clock that went back meanwhile.
	for zone, n := range map[string]int{"east": 2, "west": 3} {
		f.kill(zone)
		f.setClock(zone, -f.clocks[zone].by)
		f.startZone(zone, n)
	}
	f.settled("east", 4)
	f.settled("west", 4)
	f.kill("global")
	f.setClock("global", -time.Hour)
	f.startGlobal()
	f.apply(shorter)
	for _, service := range []string{"near", "far"} {
		f.answers(client, http.StatusOK, "GET", url(service))
	}
	near.noneLost(t)
	far.noneLost(t)
}
