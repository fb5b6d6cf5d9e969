package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/history"
)

const (
	// fixedSeed and fixedSteps are those of a run without a seed of its own, as in CI.
	fixedSeed  = 1
	fixedSteps = 12
	// seedSteps are those of a run with one.
	seedSteps = 40
	// firstProcessGeneration is written into a header that a route sets, so that each answer tells which change it was served under.
	firstProcessGeneration = 1
)

// ordeal is a federation of real processes under faults: two replicas of global on three members of etcd, two zones, and Envoys. The
// gateway in east reaches the service near in both zones, and far in west alone. The routes of their names change together; the
// route kept, which leads to near, too, changes alone, and is poisoned now and then.
type ordeal struct {
	*replicated
	h   *history.History
	rnd *rand.Rand
	// generation is the newest, and that of kept the newest of it.
	generation, kept int
	sent             int
	client           *http.Client
	// down are processes that were killed or stand still, with what brings each back.
	down  map[string]func()
	kills killings
	stop  chan struct{}
	wg    sync.WaitGroup
}

// TestProcessesUnderFaults kills, pauses and cuts off real processes while the routes of a gateway change and requests go through it, and
// judges what happened.
func TestProcessesUnderFaults(t *testing.T) {
	seeds, steps, err := history.Asked([]int64{fixedSeed}, fixedSteps, seedSteps)
	if err != nil {
		t.Fatal(err)
	}
	seed := seeds[0]
	t.Logf("seed %d; again: %s", seed, history.Again(seed, steps, "e2e", "TestProcessesUnderFaults"))
	o := &ordeal{h: history.New(), rnd: rand.New(rand.NewPCG(uint64(seed), 0)), generation: firstProcessGeneration, kept: firstProcessGeneration, down: map[string]func(){},
		stop: make(chan struct{})}
	o.replicated = startReplicated(t, 2, 0, sortedKeys(o.starts())...)
	t.Cleanup(func() {
		logs := map[string]string{"etcd.log": o.etcd.Logs()}
		all, _ := filepath.Glob(o.path("logs", "*.log"))
		for _, path := range all {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
			}
			logs[filepath.Base(path)] = string(text)
		}
		dir, err := o.h.Leave(o.h.Run("processes", seed, !t.Failed()), logs)
		if err != nil {
			t.Error(err)
		}
		if dir != "" {
			t.Logf("what happened is in %s", dir)
		}
	})
	o.populate()
	t.Cleanup(o.endRequests)
	for i := range 3 {
		o.wg.Go(func() { o.request(i) })
	}
	o.wg.Go(o.requestTenant)
	for i := range steps {
		what := o.step()
		o.h.Note("step %d: %s", i, what)
		o.sample()
		// One that is killed or starts tells nothing.
		p := proxiesOf[i%len(proxiesOf)]
		if err := o.ownsDump(p.name, p.mesh); err != nil {
			o.h.Note("no dump of %s: %v", p.name, err)
		}
		<-time.After(time.Duration(o.rnd.IntN(300)) * time.Millisecond)
	}
	o.settle()
	broken := o.h.Judge()
	for _, g := range history.Guarantees {
		for _, b := range broken[g.Name][:min(len(broken[g.Name]), 10)] {
			t.Errorf("%s: %s", g.Name, b)
		}
	}
	o.looked()
	run := o.h.Run("processes", seed, true)
	t.Logf("%d requests, %d lost; %d changes; the last one was live %s after the end of faults", run.Requests, run.Lost, run.Changes, o.h.Converged.Round(time.Millisecond))
	if run.Requests < 100 {
		t.Errorf("only %d requests were sent", run.Requests)
	}
}

// populate starts zones, proxies and workloads.
func (o *ordeal) populate() {
	t := o.t
	t.Helper()
	o.client = &http.Client{Timeout: 4 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for i, name := range []string{"east", "west"} {
		o.token(name, "zone", name)
		o.run(name, o.zoneArgs(name, 2+i)...)
	}
	o.holder("east")
	o.holder("west")
	// They go on until the gateway has heard that a backend is gone, however busy the machine is.
	retry := "type: Retry\nmesh: default\nname: all\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\n" +
		"conf: {http: {numRetries: 60, retryOn: [gateway_error, connect_failure, refused_stream], backOff: {baseInterval: 100ms, maxInterval: 1s}}}\n"
	// Envoy admits three retries at a time by itself, which are fewer than the requests that a killed backend ends.
	breaker := "type: CircuitBreaker\nmesh: default\nname: all\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\n" +
		"conf: {thresholds: {maxRetries: 100}}\n"
	o.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), retry, breaker, route("near", "near", o.generation),
		route("far", "far", o.generation), route("kept", "near", o.kept))
	o.startProxy("west", 3, "ingress", fmt.Sprintf("type: ZoneIngress\nname: ingress\nnetworking: {address: %s, port: 10001}\n", o.host(20)), o.token("ingress", "zone-ingress", "west"))
	for host, name := range map[int]string{31: "near", 41: "near", 42: "far"} {
		o.workload(o.at(host, 8080), fmt.Sprint(name, host), nil)
	}
	o.token("near", "dataplane", "--mesh", "default", "--service", "near")
	o.token("far", "dataplane", "--mesh", "default", "--service", "far")
	o.startNear()
	o.startProxy("west", 3, "near-west", sidecarDocument("default", "near-west", o.host(41), inboundOf("near", "http", o.host(41), 8080, "")), o.path("tokens", "near"))
	o.startProxy("west", 3, "far", sidecarDocument("default", "far", o.host(42), inboundOf("far", "http", o.host(42), 8080, "")), o.path("tokens", "far"))
	o.startProxy("east", 2, "edge", gatewayDocument("default", "edge", o.host(10)), o.token("edge", "dataplane", "--mesh", "default", "--service", "edge"))
	o.populateTenant()
	o.settled("east", inEast)
	o.settled("west", inWest)
	client := newClient(t)
	for _, path := range paths {
		o.answers(client, http.StatusOK, "GET", o.url(path))
	}
}

// startNear runs the backend of near in east.
func (o *ordeal) startNear() {
	o.startProxy("east", 2, "near-east", sidecarDocument("default", "near-east", o.host(31), inboundOf("near", "http", o.host(31), 8080, "")), o.path("tokens", "near"))
}

func (o *ordeal) url(path string) string { return "http://" + o.at(10, 8080) + path }

// paths are those of the routes.
var paths = []string{"/near", "/far", "/kept"}

// route leads from a path of its name to a service, with the generation in a header.
func route(name, service string, generation int) string {
	return gatewayRoute(name, "", fmt.Sprintf("      - matches: [{path: {match: EXACT, value: /%s}}]\n        filters: [{requestHeader: {set: [{name: x-generation, value: '%d'}]}}]\n"+
		"        backends: [{destination: {kuma.io/service: %s}}]\n", name, generation, service))
}

// request sends requests over one connection, one after the other, by all routes in turn. All of one connection are served by one of
// Envoy's workers, so that no answer may be of an older generation than the one before, whether it came by near or far: these are one
// change.
func (o *ordeal) request(sender int) {
	client := &http.Client{Timeout: answerTime, Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	connection, answered, last := 0, 0, map[string]int{}
	name := func() string { return fmt.Sprintf("sender %d over connection %d", sender, connection) }
	defer func() { o.h.Asked(history.Request{By: fmt.Sprintf("sender %d", sender), Count: answered}) }()
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			o.h.Gone(name())
			connection++
			clear(last)
		}
	}})
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for n := 0; ; n++ {
		select {
		case <-o.stop:
			return
		case <-pace.C:
		}
		path := paths[n%len(paths)]
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url(path), nil)
		if err != nil {
			o.t.Error(err)
			return
		}
		began, kills := time.Now(), o.kills.now()
		response, a, err := answerTo(client, r)
		if err != nil || response.StatusCode != http.StatusOK {
			lost := fmt.Sprintf("%s: %v", path, err)
			if err == nil {
				lost = fmt.Sprintf("%s: %d %q %v", path, response.StatusCode, a.Text, response.Header)
			}
			lost += fmt.Sprintf(" after %s", time.Since(began).Round(time.Millisecond))
			without := ""
			if errors.Is(err, io.ErrUnexpectedEOF) && o.kills.met(kills) {
				without = "its answer had begun when its backend was killed"
			}
			o.h.Asked(history.Request{By: name(), Count: 1, Lost: lost, Without: without})
			continue
		}
		answered++
		generation, _ := strconv.Atoi(a.Header.Get("X-Generation")) // none is 0
		o.ownsAnswer("default", generation, a.Workload)
		resource := resourceAt(path)
		if had, ok := last[resource]; !ok || had != generation {
			last[resource] = generation
			o.h.Saw(history.Seen{Proxy: name(), Stream: connection, Revision: uint64(n), Resource: resource, Policy: resource, Generation: generation})
		}
	}
}

// resourceAt names what a path's route changes with.
func resourceAt(path string) string {
	if path == "/kept" {
		return "kept"
	}
	return "routes"
}

func (o *ordeal) endRequests() {
	select {
	case <-o.stop:
	default:
		close(o.stop)
	}
	o.wg.Wait()
}

var (
	errUntold = errors.New("the outcome was not told")
	// errConflict is of a change at a replica that had not heard of the one before, or that met one whose outcome was not told.
	errConflict = errors.New("another change was there first")
)

// change posts the routes that change together, or the one that changes alone, to a replica, and records what is known of it.
func (o *ordeal) change(replica int, resource string) error {
	o.generation++
	o.sent++
	a := history.Attempt{Message: fmt.Sprintf("change %d of the ordeal", o.sent), Resource: resource, Generation: o.generation}
	all := []any{routeOf("near", "near", o.generation), routeOf("far", "far", o.generation)}
	if resource == "kept" {
		o.kept = o.generation
		all = []any{routeOf("kept", "near", o.generation)}
	}
	answer, err := o.commit(replica, a.Message, all...)
	if err == nil {
		err = json.Unmarshal(answer, &a.Answer)
	}
	a.Acked = err == nil
	o.h.Attempted(a)
	return err
}

// commit posts a change; errUntold where its outcome isn't known, and errConflict where it came to nothing as others changed the same.
func (o *ordeal) commit(replica int, message string, resources ...any) ([]byte, error) {
	text, err := json.Marshal(map[string]any{"message": message, "resources": resources})
	if err != nil {
		return nil, err
	}
	code, answer, err := o.post(replica, text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errUntold, err)
	case code >= http.StatusInternalServerError:
		return nil, fmt.Errorf("%w: %d %s", errUntold, code, answer)
	case code == http.StatusConflict:
		return nil, fmt.Errorf("%w: %s", errConflict, answer)
	case code != http.StatusOK && code != http.StatusCreated:
		return nil, fmt.Errorf("%d %s", code, answer)
	}
	return answer, nil
}

// routeOf is route as JSON.
func routeOf(name, service string, generation int) map[string]any {
	return map[string]any{"type": "MeshGatewayRoute", "mesh": "default", "name": name,
		"selectors": []any{map[string]any{"match": map[string]any{"kuma.io/service": "edge"}}},
		"conf": map[string]any{"http": map[string]any{"rules": []any{map[string]any{
			"matches":  []any{map[string]any{"path": map[string]any{"match": "EXACT", "value": "/" + name}}},
			"filters":  []any{map[string]any{"requestHeader": map[string]any{"set": []any{map[string]any{"name": "x-generation", "value": strconv.Itoa(generation)}}}}},
			"backends": []any{map[string]any{"destination": map[string]any{"kuma.io/service": service}}},
		}}}},
	}
}

// commitGateway gives the gateway listeners at some ports.
func (o *ordeal) commitGateway(ports ...int) error {
	var listeners []any
	for _, port := range ports {
		listeners = append(listeners, map[string]any{"port": port, "protocol": "HTTP"})
	}
	_, err := o.commit(0, fmt.Sprint("the gateway at ", ports), map[string]any{"type": "MeshGateway", "mesh": "default", "name": "edge",
		"selectors": []any{map[string]any{"match": map[string]any{"kuma.io/service": "edge"}}}, "conf": map[string]any{"listeners": listeners}})
	return err
}

// post sends a change to a replica over a connection of its own, and waits less than people do.
func (o *ordeal) post(replica int, text []byte) (int, []byte, error) {
	token, err := os.ReadFile(o.path("global", "admin-token"))
	if err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequest(http.MethodPost, "https://"+o.at(replicaHost(replica), restPort)+"/v1/changes", bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Content-Type", "application/json")
	if o.client.Transport.(*http.Transport).TLSClientConfig == nil {
		config, err := o.trust()
		if err != nil {
			return 0, nil, err
		}
		o.client.Transport.(*http.Transport).TLSClientConfig = config
	}
	response, err := o.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// sample asks the replicas that run for the zones' revisions.
func (o *ordeal) sample() {
	for i := range o.replicas {
		if o.down[replicaName(i)] != nil {
			continue
		}
		for _, zone := range []string{"east", "west"} {
			if s, err := o.statusAt(i, zone); err == nil && s.Connected {
				o.h.Sampled(history.Sample{Zone: zone + " (by " + replicaName(i) + ")", Revision: uint64(s.Revision)})
				o.ownsQueries(i, zone)
			}
		}
	}
}

var generationPattern = regexp.MustCompile(`"value":\s*"(\d+)"`)

// settle brings everything back, makes a last change, waits until it is live everywhere and is seen by requests, and looks at what is there.
func (o *ordeal) settle() {
	t := o.t
	t.Helper()
	for _, name := range sortedKeys(o.down) {
		o.recover(name)
	}
	for i := range o.replicas {
		o.mend(i)
		o.isReady(i)
	}
	o.await("the gateway as it was", func() error { return o.commitGateway(8080) })
	began := time.Now()
	o.await("a last change of kept", func() error { return o.change(0, "kept") })
	o.await("a last change", func() error { return o.change(0, "routes") })
	last := o.h.Attempts[len(o.h.Attempts)-1]
	live := map[string]bool{}
	o.await("the last change to be live", func() error {
		code, text, err := o.rest(http.MethodGet, fmt.Sprintf("/v1/changes/%d/status", last.Answer.Change), nil)
		var receipt struct {
			Zones []struct {
				Zone            string
				Live, Connected bool
			}
		}
		if err == nil && code == http.StatusOK {
			err = json.Unmarshal(text, &receipt)
		}
		for _, z := range receipt.Zones {
			live[z.Zone] = z.Live && z.Connected
		}
		if err == nil && (code != http.StatusOK || !live["east"] || !live["west"]) {
			err = fmt.Errorf("%d %s", code, text)
		}
		return err
	})
	o.h.Converged = time.Since(began)
	client := newClient(t)
	newest := map[string]int{"routes": o.generation, "kept": o.kept}
	for _, path := range paths {
		o.await("the last generation at "+path, func() error {
			_, a, err := ask(client, http.MethodGet, o.url(path))
			if err == nil && a.Header.Get("X-Generation") != strconv.Itoa(newest[resourceAt(path)]) {
				err = fmt.Errorf("%v", a.Header)
			}
			return err
		})
	}
	// Each sender has seen it, too, within its next requests.
	o.await("the last generation at all senders", func() error {
		for _, name := range o.h.Proxies() {
			for resource, want := range newest {
				if g := o.h.Generation(name, resource); g != want {
					return fmt.Errorf("%s is at generation %d of %s, want %d", name, g, resource, want)
				}
			}
		}
		return nil
	})
	o.sample()
	for _, p := range proxiesOf {
		if err := o.ownsDump(p.name, p.mesh); err != nil {
			t.Error(err)
		}
	}
	o.endRequests()
	for _, zone := range []string{"east", "west"} {
		o.await(zone+" to be in sync", func() error {
			s, err := o.status(zone)
			if err == nil && (!s.Connected || !s.InSync || s.Revision != s.Wanted) {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})
		s, err := o.status(zone)
		if err != nil {
			t.Fatal(err)
		}
		e := history.Ended{Zone: zone, Live: live[zone], Held: fmt.Sprint("revision ", s.Revision), Wanted: fmt.Sprint("revision ", s.Wanted)}
		for _, r := range s.Rejected {
			e.Rejected = append(e.Rejected, r.Kind+"/"+r.Mesh+"/"+r.Name)
		}
		slices.Sort(e.Rejected)
		o.h.End(e)
	}
	code, text, err := o.rest(http.MethodGet, "/v1/changes?limit=500", nil)
	var page struct{ Items []history.Written }
	if err == nil && code == http.StatusOK {
		err = json.Unmarshal(text, &page)
	}
	if err != nil || code != http.StatusOK {
		t.Fatalf("history: %d %s %v", code, text, err)
	}
	o.h.Changes = page.Items
	// Those of near and far are one change, so they are of one generation.
	for _, name := range []string{"near", "far", "kept"} {
		code, text, err := o.rest(http.MethodGet, "/v1/meshes/default/mesh-gateway-routes/"+name, nil)
		found := generationPattern.FindSubmatch(text)
		if err != nil || code != http.StatusOK || found == nil {
			t.Fatalf("route %s: %d %s %v", name, code, text, err)
		}
		g, err := strconv.Atoi(string(found[1]))
		if err != nil {
			t.Fatal(err)
		}
		resource := resourceAt("/" + name)
		if before, had := o.h.Final[resource]; had && before != g {
			t.Errorf("WholeChanges: the routes at global are of generations %d and %d", before, g)
		}
		o.h.Final[resource] = g
	}
}
