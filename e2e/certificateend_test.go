package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// endTold is the end of its certificate of which a launcher told when its Envoy had lost its zone; zero while it told of none.
func (f *federation) endTold(proxy string) (end time.Time) {
	f.t.Helper()
	for line := range strings.Lines(f.said(proxy)) {
		var told struct {
			Msg   string
			Until time.Time
		}
		if json.Unmarshal([]byte(line), &told) == nil && strings.HasPrefix(told.Msg, "the zone control plane is away") {
			end = told.Until
		}
	}
	return end
}

// TestCertificateEnds takes the zone control plane away for good. Its Envoys go on over new connections until their certificates end, of which
// their launchers told before, and then refuse each other.
func TestCertificateEnds(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.token("east", "zone", "east")
	f.run("east", append(f.zoneArgs("east", 2), "--svid-lifetime", "30s")...)
	f.await("zone east", func() error {
		s, err := f.status("east")
		if err == nil && (!s.Connected || !s.InSync) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	// Connections end before the next request, so that each one is a handshake.
	short := "type: Timeout\nmesh: default\nname: all\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\nconf: {http: {idleTimeout: 200ms}}\n"
	retry := "type: Retry\nmesh: default\nname: all\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\n" +
		"conf: {http: {numRetries: 3, retryOn: [gateway_error, connect_failure, refused_stream]}}\n"
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), short, retry,
		gatewayRoute("base", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n        backends: [{destination: {kuma.io/service: echo}}]\n"))
	f.workload(f.at(31, 8080), "echo", nil)
	f.startProxy("east", 2, "echo", sidecarDocument("default", "echo", f.host(31), inboundOf("echo", "http", f.host(31), 8080, "")),
		f.token("echo", "dataplane", "--mesh", "default", "--service", "echo"))
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.token("edge", "dataplane", "--mesh", "default", "--service", "edge"))
	f.settled("east", 2)
	client, url := newClient(t), "http://"+f.at(10, 8080)+"/"
	f.answers(client, http.StatusOK, "GET", url)

	f.kill("east")
	killed := time.Now()
	pace := time.NewTicker(500 * time.Millisecond)
	defer pace.Stop()
	served, first := 0, time.Time{}
	var last string
	// Once is the moment of a network, twice in a row is the end.
	for refusals := 0; refusals < 2; {
		<-pace.C
		began := time.Now()
		r, a, err := ask(client, http.MethodGet, url)
		switch {
		case err == nil && r.StatusCode == http.StatusOK && began.Sub(killed) > 40*time.Second:
			t.Fatalf("a request is served %s after the zone went; told ends: %s and %s", began.Sub(killed), f.endTold("edge"), f.endTold("echo"))
		case err == nil && r.StatusCode == http.StatusOK:
			served++
			refusals, first = 0, time.Time{}
		default:
			if refusals++; first.IsZero() {
				first = began
			}
			if last = fmt.Sprint(err); err == nil {
				last = fmt.Sprintf("%d %q", r.StatusCode, a.Text)
			}
		}
	}
	t.Logf("%d requests were served without the zone; then: %s", served, last)
	f.await("both launchers to tell", func() error {
		if f.endTold("edge").IsZero() || f.endTold("echo").IsZero() {
			return fmt.Errorf("told: %s and %s", f.endTold("edge"), f.endTold("echo"))
		}
		return nil
	})
	end := f.endTold("edge")
	if other := f.endTold("echo"); other.Before(end) {
		end = other
	}
	// Ends are whole seconds.
	if early := end.Add(-time.Second); first.Before(early) {
		t.Errorf("refused at %s, before the end at %s: %s", first, end, last)
	}
	// The workload itself answers.
	if r, _, err := ask(client, http.MethodGet, "http://"+f.at(31, 8080)+"/"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("the workload: %v %v", r, err)
	}
}
