package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// rule routes one path to v1.
func pathRule(path string) string {
	return "      - matches: [{path: {match: EXACT, value: " + path + "}}]\n" + toV1
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestMembersOfEtcd takes members of etcd away one by one, compacts and defragments it, and lets it run out of space. Requests go on all the while,
// and no change that is accepted is lost.
func TestMembersOfEtcd(t *testing.T) {
	f := startReplicated(t, 1, 16<<20)
	f.startServing()
	requests := f.send("http://" + f.at(10, 8080) + "/")
	watching := f.watch()
	done := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	change := func() {
		t.Helper()
		n++
		f.apply(gatewayRoute(fmt.Sprint("change-", n), "", pathRule(fmt.Sprint("/change-", n))))
	}
	whole := func() {
		t.Helper()
		done(f.etcd.Await(within(t, awaitTime)))
	}

	// With one member gone, or standing still, there is a quorum.
	f.etcd.Kill(0)
	change()
	done(f.etcd.Run(0))
	whole()
	done(f.etcd.Pause(1))
	change()
	done(f.etcd.Resume(1))
	whole()

	// With two gone there is none: what was there is served, and nothing is written.
	f.etcd.Kill(1)
	f.etcd.Kill(2)
	f.isNotReady(0, "the store does not answer")
	f.refusesWrites(0, http.StatusServiceUnavailable, "store_unavailable")
	f.await("the zone's state", func() error {
		s, err := f.status("east")
		if err == nil && (!s.Connected || s.Proxies != 2) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	done(f.etcd.Run(1))
	done(f.etcd.Run(2))
	whole()
	f.isReady(0)
	change()

	done(f.etcd.Compact(within(t, awaitTime)))
	change()
	done(f.etcd.Defragment(within(t, awaitTime)))
	change()

	// Others may fill an etcd, too.
	done(f.etcd.Fill(within(t, awaitTime), "/elsewhere/"))
	f.isNotReady(0, "out of space")
	f.refusesWrites(0, http.StatusInsufficientStorage, "store_full")
	done(f.etcd.Free(within(t, awaitTime), "/elsewhere/"))
	f.isReady(0)
	change()

	f.settled("east", 2)
	requests.noneLost(t)
	watching.neverBackwards(t)
	if s, err := f.status("east"); err != nil || s.Repairs != 0 {
		t.Errorf("%+v %v", s, err)
	}
	for i := 1; i <= n; i++ {
		f.cli("get", "meshgatewayroute", fmt.Sprint("change-", i))
	}
}

// TestRestoredEtcd restores etcd from a snapshot, with a revision that was bumped and one that wasn't, under replicas that saw what came after it. The
// zone goes back to what is in the snapshot by a new epoch, and its revision only grows.
func TestRestoredEtcd(t *testing.T) {
	f := startReplicated(t, 2, 0)
	f.startServing()
	requests := f.send("http://" + f.at(10, 8080) + "/")
	watching := f.watch()
	client := newClient(t)
	epoch := func(i int) (out string) {
		t.Helper()
		f.await("the epoch", func() error {
			code, body, err := f.restAt(replicaHost(i), http.MethodGet, "/v1/version", nil)
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("status %d", code)
			}
			var v struct{ Epoch string }
			if err == nil {
				err = json.Unmarshal(body, &v)
			}
			out = v.Epoch
			return err
		})
		return out
	}
	mirror := "        filters: [{responseHeader: {set: [{name: x-change, value: %q}]}}]\n"
	change := func(value string) {
		t.Helper()
		f.apply(gatewayRoute("change", "", "      - matches: [{path: {match: EXACT, value: /change}}]\n"+fmt.Sprintf(mirror, value)+toV1))
	}
	sees := func(value string) {
		t.Helper()
		f.await("what is in force", func() error {
			r, _, err := ask(client, http.MethodGet, "http://"+f.at(10, 8080)+"/change")
			if err == nil && r.Header.Get("X-Change") != value {
				err = fmt.Errorf("%q, want %q", r.Header.Get("X-Change"), value)
			}
			return err
		})
	}
	for i, bump := range []uint64{1_000_000_000, 0} {
		kept, lost := fmt.Sprint("kept-", i), fmt.Sprint("lost-", i)
		change(kept)
		snapshot := f.path(fmt.Sprint("snapshot-", i))
		if err := f.etcd.Snapshot(within(t, awaitTime), snapshot); err != nil {
			t.Fatal(err)
		}
		for n := range 5 {
			change(fmt.Sprint(lost, "-", n))
		}
		sees(lost + "-4")
		before := epoch(0)
		// One replica is there all the while, and one only knows from its data directory what it saw.
		f.kill(replicaName(i))
		if err := f.etcd.Restore(within(t, awaitTime), snapshot, bump); err != nil {
			t.Fatal(err)
		}
		f.startReplica(i)
		f.isReady(1 - i)
		sees(kept)
		f.await("one new epoch in both replicas", func() error {
			if a, b := epoch(0), epoch(1); a != b || a == before {
				return fmt.Errorf("%s and %s, before %s", a, b, before)
			}
			return nil
		})
		change("after-" + lost)
		sees("after-" + lost)
	}
	if out := f.cli("history"); strings.Count(out, "a backup of revision") != 2 {
		t.Errorf("the history doesn't say that a backup was restored:\n%s", out)
	}
	requests.noneLost(t)
	watching.neverBackwards(t)
}
