package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// killings counts the steps of killings of backends, so that it is odd from before a backend is killed until its end was seen elsewhere: its
// Envoy ends a little after its launcher, and meanwhile answers, and breaks off what it began.
type killings struct{ steps atomic.Int64 }

func (k *killings) step() { k.steps.Add(1) }

// now is what a request asks for before it begins.
func (k *killings) now() int64 { return k.steps.Load() }

// met tells whether a backend was on its way out at any time since then.
func (k *killings) met(then int64) bool { return then%2 == 1 || k.steps.Load() != then }

// TestKilledAtRandom kills global, a zone and its proxies while changes are applied. Whatever a client was told is committed
// must be there in the end, half of nothing, and both zones must hold the same.
func TestKilledAtRandom(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.startZone("west", 3)
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"))
	edge := f.token("edge", "dataplane", "--mesh", "default", "--service", "edge")
	start := map[string]func(){
		"global": func() { f.run("global", f.globalArgs()...) },
		"east":   func() { f.run("east", f.zoneArgs("east", 2)...) },
		"east-edge": func() {
			f.startProxy("east", 2, "east-edge", strings.Replace(gatewayDocument("default", "edge", f.host(10)), "name: edge", "name: east-edge", 1), edge)
		},
	}
	start["east-edge"]()
	f.startProxy("west", 3, "west-edge", strings.Replace(gatewayDocument("default", "edge", f.host(20)), "name: edge", "name: west-edge", 1), edge)
	f.settled("east", 1)
	f.settled("west", 1)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	rule := func(path string) string {
		return "      - matches: [{path: {match: EXACT, value: " + path + "}}]\n" + toV1
	}

	// Two routes go together in each change: one without the other would be half of a change.
	type result struct {
		n   int
		err error
	}
	const changes = 60
	results := make(chan result, changes)
	go func() {
		defer close(results)
		for n := range changes {
			file := f.path(fmt.Sprintf("change-%d.yaml", n))
			text := gatewayRoute("left", "", rule(fmt.Sprintf("/left-%d", n))) + "---\n" + gatewayRoute("right", "", rule(fmt.Sprintf("/right-%d", n)))
			if err := writeFile(file, text); err != nil {
				results <- result{n, err}
				return
			}
			_, err := f.try("apply", "-f", file, "--message", fmt.Sprint(n))
			results <- result{n, err}
		}
	}()
	last, failed, kills := -1, 0, 0
	pause, armed := time.NewTimer(awaitTime), false
	for open := true; open; {
		select {
		case r, more := <-results:
			if open = more; !more {
				break
			}
			if r.err == nil {
				last = r.n
				// The next kill comes after a change, however long a start takes: else none might ever come through.
				if !armed {
					armed = true
					pause.Reset(time.Duration(min(kills, 1)*random.IntN(600)) * time.Millisecond)
				}
				break
			}
			failed++
			var why refused
			if !errors.As(r.err, &why) {
				t.Fatal(r.err)
			}
			// What it says must be about the connection; the client cannot know more.
			if strings.Contains(why.output, "panic") || strings.Contains(why.output, "internal") {
				t.Errorf("change %d: %s", r.n, why.output)
			}
		case <-pause.C:
			name := []string{"global", "east", "east-edge"}[random.IntN(3)]
			f.kill(name)
			start[name]()
			kills, armed = kills+1, false
		}
	}
	t.Logf("%d of %d changes failed, the last one that was committed is %d; %d kills", failed, changes, last, kills)
	if last < 0 || kills == 0 {
		t.Fatal("no change came through, or nothing was killed")
	}

	f.await("global", func() error {
		code, _, err := f.rest(http.MethodGet, "/v1/status/zones", nil)
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("status %d", code)
		}
		return err
	})
	// An apply that failed may have come through, so the next one says what is there now.
	f.apply(gatewayRoute("last", "", rule("/last")))
	f.settled("east", 1)
	f.settled("west", 1)

	left, right := f.cli("get", "meshgatewayroute", "left", "-o", "yaml"), f.cli("get", "meshgatewayroute", "right", "-o", "yaml")
	n := -1
	for i := last; i < changes; i++ {
		if strings.Contains(left, fmt.Sprintf("/left-%d\n", i)) {
			n = i
		}
	}
	if n < 0 || !strings.Contains(right, fmt.Sprintf("/right-%d\n", n)) {
		t.Errorf("change %d was committed and half of it, or less, is there:\n%s%s", last, left, right)
	}
	client := newClient(t)
	for _, host := range []int{10, 20} {
		for _, path := range []string{fmt.Sprintf("/left-%d", n), fmt.Sprintf("/right-%d", n), "/last"} {
			// There is a route and no workload.
			f.answers(client, http.StatusServiceUnavailable, "GET", "http://"+f.at(host, 8080)+path)
		}
		f.answers(client, http.StatusNotFound, "GET", "http://"+f.at(host, 8080)+fmt.Sprintf("/left-%d", n-1))
	}
	// A digest over all that each zone holds was compared by each heartbeat; none had to be repaired.
	for _, zone := range []string{"east", "west"} {
		f.alive(zone)
		if s, err := f.status(zone); err != nil || s.Repairs != 0 {
			t.Errorf("%s: %+v %v", zone, s, err)
		}
	}
	var seqs []int
	var history struct {
		Items []struct{ Change int }
	}
	code, body, err := f.rest(http.MethodGet, "/v1/changes?limit=500", nil)
	if err != nil || code != http.StatusOK {
		t.Fatalf("%d %s %v", code, body, err)
	}
	if err := json.Unmarshal(body, &history); err != nil {
		t.Fatal(err)
	}
	for _, c := range history.Items {
		seqs = append(seqs, c.Change)
	}
	slices.Sort(seqs)
	for i, seq := range seqs {
		if seq != seqs[0]+i {
			t.Fatalf("the history has a gap: %v", seqs)
		}
	}
}
