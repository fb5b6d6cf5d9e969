package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/etcdcluster"
	"github.com/zoneforge/zoneforge/e2e/fault"
)

// replicated is a federation whose global runs in replicas on a cluster of three etcd processes. Replica i has its own way to each
// member of etcd, which can be cut.
type replicated struct {
	*federation
	etcd     *etcdcluster.Cluster
	links    [][]*fault.Proxy
	replicas int
}

const (
	gossipPort = 7946
	peerPort   = 5686
)

// replicaHost is the address of a replica: the first has that of the only one elsewhere.
func replicaHost(i int) int { return []int{1, 201, 202}[i] }

func replicaName(i int) string { return []string{"global", "global-b", "global-c"}[i] }

// startReplicated runs etcd and replicas of global; quota bounds etcd's database, 0 for its default. The clocks of those processes that are
// named can be set.
func startReplicated(t *testing.T, replicas int, quota int64, clocked ...string) *replicated {
	t.Helper()
	f := &replicated{federation: newFederation(t), replicas: replicas}
	for _, name := range clocked {
		f.setClock(name, 0)
	}
	f.write("gossip-keys", gossipKey(1)+"\n")
	binary, err := filepath.Abs("../.tools/bin/etcd")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), awaitTime)
	defer cancel()
	f.etcd, err = etcdcluster.Start(ctx, etcdcluster.Config{Binary: binary, Dir: f.path("etcd"), Hosts: []string{f.host(211), f.host(212), f.host(213)}, Quota: quota})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(f.etcd.Logs())
		}
		_ = f.etcd.Close()
	})
	for i := range replicas {
		var links []*fault.Proxy
		for _, endpoint := range f.etcd.Endpoints() {
			p, err := fault.Listen(strings.TrimPrefix(endpoint, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			links = append(links, p)
		}
		f.links = append(f.links, links)
		if i > 0 {
			f.shareKeys(i)
		}
		f.startReplica(i)
	}
	return f
}

// gossipKey is one of the keys that replicas share.
func gossipKey(n byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n}, 32)) }

// shareKeys gives a new replica what all have in common: the key of the store, and the authority of their certificates.
func (f *replicated) shareKeys(i int) {
	f.t.Helper()
	for _, name := range []string{"kek", "tls/server-ca.crt", "tls/server-ca.key"} {
		text, err := os.ReadFile(f.path("global", name))
		if err != nil {
			f.t.Fatal(err)
		}
		f.write(replicaName(i)+"/"+name, string(text))
	}
}

func (f *replicated) startReplica(i int) {
	f.t.Helper()
	var endpoints []string
	for _, p := range f.links[i] {
		endpoints = append(endpoints, "http://"+p.Addr())
	}
	n := replicaHost(i)
	args := []string{"global", "run", "--data-dir", f.path(replicaName(i)), "--rest-address", f.at(n, restPort), "--kds-address", f.at(n, kdsPort),
		"--replica", replicaName(i), "--heartbeat-interval", "1s", "--etcd-endpoints", strings.Join(endpoints, ",")}
	if f.replicas > 1 {
		args = append(args, "--gossip-address", f.at(n, gossipPort), "--peer-address", f.at(n, peerPort), "--gossip-key-file", f.path("gossip-keys"))
		for j := range f.replicas {
			if j != i {
				args = append(args, "--gossip-join", f.at(replicaHost(j), gossipPort))
			}
		}
	}
	f.run(replicaName(i), args...)
	f.isReady(i)
}

// isReady waits until a replica says that it is.
func (f *replicated) isReady(i int) {
	f.t.Helper()
	f.await(replicaName(i), func() error {
		code, body, err := f.restAt(replicaHost(i), http.MethodGet, "/readyz", nil)
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("status %d: %s", code, body)
		}
		return err
	})
}

// isNotReady waits until a replica says why it isn't.
func (f *replicated) isNotReady(i int, words string) {
	f.t.Helper()
	f.await(replicaName(i), func() error {
		code, body, err := f.restAt(replicaHost(i), http.MethodGet, "/readyz", nil)
		if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(string(body), words)) {
			err = fmt.Errorf("status %d: %s", code, body)
		}
		return err
	})
}

// refusesWrites sends a replica a change, which must be refused with a problem.
func (f *replicated) refusesWrites(i, status int, code string) {
	f.t.Helper()
	began := time.Now()
	got, body, err := f.restAt(replicaHost(i), http.MethodPost, "/v1/changes", strings.NewReader(
		`{"message": "must not be", "resources": [{"type": "Mesh", "name": "must-not-be"}]}`))
	var problem struct{ Code, Detail, Mend string }
	if err == nil {
		err = json.Unmarshal(body, &problem)
	}
	if err != nil || got != status || problem.Code != code || problem.Mend == "" {
		f.t.Errorf("%s answered a change with %d %s %v, want %d %s", replicaName(i), got, body, err, status, code)
	}
	if took := time.Since(began); took > answerTime/2 {
		f.t.Errorf("%s refused a change only after %s", replicaName(i), took)
	}
}

// zoneArgs name all replicas of global.
func (f *replicated) zoneArgs(name string, n int) []string {
	args := f.federation.zoneArgs(name, n)
	for i := 1; i < f.replicas; i++ {
		args = append(args, "--global", f.at(replicaHost(i), kdsPort))
	}
	return append(args, "--replica", name+"-0")
}

// statusAt is what a replica says of a zone.
func (f *replicated) statusAt(i int, zone string) (zoneStatus, error) {
	var s zoneStatus
	code, body, err := f.restAt(replicaHost(i), http.MethodGet, "/v1/status/zones/"+zone, nil)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", replicaName(i), code, body)
	}
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// holder waits until all running replicas agree on which of them has the zone's stream, and that the zone holds what it should.
func (f *replicated) holder(zone string, but ...int) (holder int) {
	f.t.Helper()
	f.await("stream of "+zone, func() error {
		name := ""
		for i := range f.replicas {
			if slices.Contains(but, i) {
				continue
			}
			s, err := f.statusAt(i, zone)
			if err != nil {
				return err
			}
			if !s.Connected || !s.InSync || len(s.Replicas) != 1 || name != "" && s.Replicas[0].Global != name {
				return fmt.Errorf("%s says %+v, not of %q", replicaName(i), s, name)
			}
			name = s.Replicas[0].Global
		}
		for i := range f.replicas {
			if replicaName(i) == name && !slices.Contains(but, i) {
				holder = i
				return nil
			}
		}
		return fmt.Errorf("%q has the stream", name)
	})
	return holder
}

// apply applies documents through the first replica, and waits until the last proxy has them.
func (f *replicated) apply(documents ...string) {
	f.t.Helper()
	f.applyAt(0, documents...)
}

// applyAt applies documents through a replica, and waits until the last proxy has them. On a busy machine etcd elects another leader at any
// time, and what loses a member must; until then global refuses changes, or can't say what became of one.
func (f *replicated) applyAt(i int, documents ...string) {
	f.t.Helper()
	file := f.write("apply.yaml", strings.Join(documents, "\n---\n"))
	f.await("a change through "+replicaName(i), func() error {
		_, err := f.tryAs(f.path("global", "admin-token"), "apply", "--address", "https://"+f.at(replicaHost(i), restPort), "--wait", "--timeout", applyTime, "-f", file)
		if err != nil && !strings.Contains(err.Error(), "[store_unavailable]") && !strings.Contains(err.Error(), "[unknown_outcome]") {
			f.t.Fatal(err)
		}
		return err
	})
	f.inForce()
}

// cut and mend part a replica from etcd, whose packets are lost in silence.
func (f *replicated) cut(i int) {
	for _, p := range f.links[i] {
		p.Blackhole()
	}
}

func (f *replicated) mend(i int) {
	for _, p := range f.links[i] {
		p.Heal()
		p.Drop() // as TCP does by itself where nothing answers for a while
	}
}

func (f *federation) signal(name string, s syscall.Signal) {
	f.t.Helper()
	if err := f.running[name].cmd.Process.Signal(s); err != nil {
		f.t.Fatal(err)
	}
}

// startServing runs a zone with a gateway at address 10 and a workload behind a sidecar at 31, and a route for /.
func (f *replicated) startServing() {
	f.t.Helper()
	f.token("east", "zone", "east")
	f.run("east", f.zoneArgs("east", 2)...)
	f.holder("east")
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), gatewayRoute("base", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1))
	f.workload(f.at(31, 8080), "v1", nil)
	f.startProxy("east", 2, "echo", sidecarDocument("default", "echo", f.host(31), inboundOf("echo", "http", f.host(31), 8080, ", version: v1")),
		f.token("echo", "dataplane", "--mesh", "default", "--service", "echo"))
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.token("edge", "dataplane", "--mesh", "default", "--service", "edge"))
	f.settled("east", 2)
	f.answers(newClient(f.t), http.StatusOK, "GET", "http://"+f.at(10, 8080)+"/")
}

// sending are requests that go on until they are stopped.
type sending struct {
	stop chan struct{}
	wg   sync.WaitGroup
	sent atomic.Int64

	mu   sync.Mutex
	lost []string
}

// send begins to send requests over kept connections, each of which must be answered with 200.
func (f *federation) send(url string) *sending {
	s := &sending{stop: make(chan struct{})}
	for range 2 {
		s.wg.Go(func() {
			client := &http.Client{Timeout: answerTime, Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-s.stop:
					return
				case <-pace.C:
				}
				s.sent.Add(1)
				r, _, err := ask(client, http.MethodGet, url)
				if err == nil && r.StatusCode == http.StatusOK {
					continue
				}
				s.mu.Lock()
				s.lost = append(s.lost, fmt.Sprint(time.Now().Format(time.TimeOnly), " ", r, err))
				s.mu.Unlock()
			}
		})
	}
	f.t.Cleanup(func() { s.end() })
	return s
}

func (s *sending) end() {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.wg.Wait()
}

// enough waits until there were enough of something to tell.
func enough(t *testing.T, what string, counted *atomic.Int64, want int64) {
	t.Helper()
	late, tick := time.After(awaitTime), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for counted.Load() < want {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d %s, want %d", counted.Load(), what, want)
		}
	}
}

// noneLost ends the requests once there were enough to tell; each must have been answered.
func (s *sending) noneLost(t *testing.T) {
	t.Helper()
	enough(t, "requests", &s.sent, 100)
	s.end()
	t.Logf("%d requests, %d lost", s.sent.Load(), len(s.lost))
	if len(s.lost) > 0 {
		t.Errorf("%d of %d requests were lost: %s", len(s.lost), s.sent.Load(), strings.Join(s.lost[:min(5, len(s.lost))], "\n"))
	}
}

// watching follows the revisions that a zone says it has turned into configuration, and finds one that goes backwards.
type watching struct {
	stop chan struct{}
	wg   sync.WaitGroup
	last int64
	back []string
}

// watch asks the zone itself until it is stopped.
func (f *replicated) watch() *watching {
	w := &watching{stop: make(chan struct{})}
	w.wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			figures, err := f.zoneFigures(2)
			if err != nil {
				continue
			}
			revision := int64(figures["zoneforge_zone_revision"])
			if revision < w.last {
				w.back = append(w.back, fmt.Sprintf("%d after %d", revision, w.last))
			}
			w.last = revision
		}
	})
	f.t.Cleanup(w.end)
	return w
}

func (w *watching) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.wg.Wait()
}

func (w *watching) neverBackwards(t *testing.T) {
	t.Helper()
	if w.end(); len(w.back) > 0 || w.last == 0 {
		t.Errorf("the zone's revision went backwards, or was never seen: %v, last %d", w.back, w.last)
	}
}

// zoneFigures reads metrics of the zone whose control plane has address n.
func (f *federation) zoneFigures(n int) (map[string]float64, error) {
	roots, err := os.ReadFile(f.path("east", "tls", "server-ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	client := &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	families, err := scrape(client, "https://"+f.at(n, 5683)+"/metrics")
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for name, family := range families {
		m := family.GetMetric()[0]
		out[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return out, nil
}

// welcomes counts the streams to global that a zone has had.
func (f *replicated) welcomes() float64 {
	f.t.Helper()
	figures, err := f.zoneFigures(2)
	if err != nil {
		f.t.Fatal(err)
	}
	return figures["zoneforge_zone_kds_welcomes_total"]
}
