package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stopLimit bounds how long a control plane may take to end after SIGTERM: requests have 5 s, streams as long again, and the rest is a busy
// machine's. What waits for an etcd or a peer that says nothing would take longer than a process has to end.
const stopLimit = 30 * time.Second

// TestStopsInOrder ends global and a zone by SIGTERM, again and again, while requests go through a gateway and changes are applied. None
// of the requests is lost, and each change that was acknowledged is there.
func TestStopsInOrder(t *testing.T) {
	f := startEdge(t)
	rule := func(path string) string {
		return "      - matches: [{path: {match: EXACT, value: " + path + "}}]\n" + toV1
	}
	f.apply(gatewayRoute("steady", "", rule("/steady")))
	url := "http://" + f.at(10, 8080) + "/steady"
	f.answers(newClient(t), http.StatusOK, "GET", url)
	requests := f.send(url)

	var acknowledged atomic.Int64
	done := make(chan struct{})
	var applying sync.WaitGroup
	applying.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			file := f.path("stop.yaml")
			if err := writeFile(file, gatewayRoute("moving", "", rule(fmt.Sprintf("/moving-%d", n)))); err != nil {
				t.Error(err)
				return
			}
			if _, err := f.try("apply", "-f", file, "--message", fmt.Sprintf("moving %d", n)); err == nil {
				acknowledged.Store(int64(n))
			}
		}
	})
	t.Cleanup(func() {
		select {
		case <-done:
		default:
			close(done)
		}
		applying.Wait()
	})
	last := ""
	for round := range 3 {
		for _, name := range []string{"global", "east"} {
			before := acknowledged.Load()
			f.await("a change before the stop", func() error {
				if acknowledged.Load() == before {
					return fmt.Errorf("still at %d", before)
				}
				return nil
			})
			began := time.Now()
			if code := f.end(name); code != 0 {
				t.Errorf("round %d: %s ends with %d: %s", round, name, code, f.said(name))
			}
			if took := time.Since(began); took > stopLimit {
				t.Errorf("round %d: %s took %s to end", round, name, took)
			}
			kept := acknowledged.Load()
			if name == "global" {
				f.startGlobal()
			} else {
				f.startZone("east", 2)
			}
			// Nothing that was acknowledged before went with the process.
			last = f.cli("history", "--limit", "200")
			if kept > 0 && !strings.Contains(last, fmt.Sprintf("moving %d\n", kept)) && !strings.Contains(last, fmt.Sprintf("moving %d ", kept)) {
				t.Errorf("round %d: change %d was acknowledged, and the history is\n%s", round, kept, last)
			}
		}
	}
	close(done)
	applying.Wait()
	f.settled("east", 3)
	requests.noneLost(t)
	// The zone was told why its stream ended.
	f.logs("east", "this replica of global is shutting down")
}

// TestStopIsBounded stops a global whose etcd stands still, in the middle of a change. It ends in time, and promises nothing.
func TestStopIsBounded(t *testing.T) {
	f := startReplicated(t, 1, 0)
	f.startZone("east", 2)
	for i := range 3 {
		if err := f.etcd.Pause(i); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for i := range 3 {
			_ = f.etcd.Resume(i)
		}
	})
	file := f.write("lost.yaml", permit("default", "lost", "a", "b", "ALLOW"))
	result := make(chan error, 1)
	go func() {
		_, err := f.try("apply", "-f", file)
		result <- err
	}()
	f.await("readiness that tells", func() error {
		code, body, err := f.restAt(1, http.MethodGet, "/readyz", nil)
		if err == nil && code != http.StatusServiceUnavailable {
			err = fmt.Errorf("status %d: %s", code, body)
		}
		return err
	})
	began := time.Now()
	if code := f.end("global"); code != 0 {
		t.Errorf("global ends with %d: %s", code, f.said("global"))
	}
	if took := time.Since(began); took > stopLimit {
		t.Errorf("global took %s to end", took)
	}
	if err := <-result; err == nil {
		t.Error("a change was acknowledged that no etcd has")
	}
	if code := f.end("east"); code != 0 {
		t.Errorf("the zone ends with %d: %s", code, f.said("east"))
	}
}

// TestRestoreIntoACluster restores a backup under replicas that run. They end and say why, write nothing into what is in force, and
// come back to it with their data directories as they are; the zone goes back.
func TestRestoreIntoACluster(t *testing.T) {
	f := startReplicated(t, 2, 0)
	f.startZone("east", 2)
	f.apply(permit("default", "kept", "a", "b", "ALLOW"))
	f.cli("backup", "--out", f.path("one.backup"))
	f.apply(permit("default", "gone", "a", "b", "ALLOW"))
	restore := []string{"restore", "--data-dir", f.path("global"), "--etcd-endpoints", strings.Join(f.etcd.Endpoints(), ","), f.path("one.backup")}
	f.fails(1, []string{"store is not empty", "--replace"}, restore...)
	f.says(f.cli(append(restore, "--replace")...), "it replaces revision", "new epoch")
	for i := range 2 {
		code, said := f.exit(f.running[replicaName(i)])
		if code != 1 || !strings.Contains(said, "store was replaced by a backup; start again") {
			t.Errorf("replica %d ends with %d: %s", i, code, said)
		}
	}
	for i := range 2 {
		f.startReplica(i)
	}
	f.alive("east")
	for i := range 2 {
		f.await("what the backup holds", func() error {
			code, body, err := f.restAt(replicaHost(i), http.MethodGet, "/v1/traffic-permissions", nil)
			if err == nil && (code != http.StatusOK || !strings.Contains(string(body), `"kept"`) || strings.Contains(string(body), `"gone"`)) {
				err = fmt.Errorf("%d %s", code, body)
			}
			return err
		})
	}
	f.apply(permit("default", "after", "a", "b", "ALLOW"))
}
