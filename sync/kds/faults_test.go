package kds

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// history is a life of both ends that has every kind of frame in it. Each part ends at rest.
var history = []func(*cluster){
	func(c *cluster) { c.connect() },
	func(c *cluster) { c.change("Mesh/a=1", "Retry/a=1", "Timeout/a=1") },
	func(c *cluster) { c.offers("ZoneIngress/a=1", "ServiceAvailability/a=1") },
	func(c *cluster) {
		var many []string
		for i := range 20 {
			many = append(many, fmt.Sprintf("Timeout/%d=%040d", i, i)) // several chunks
		}
		c.change(many...)
	},
	func(c *cluster) { c.offers("ServiceAvailability/a=2") },
	func(c *cluster) {
		if c.global != nil {
			c.global.Ask(&kdsv1.Query{})
		}
		c.zone.RequestCertificate("default", nil)
		c.zone.SetStatus(&kdsv1.Status{Revision: 2})
		c.change("Mesh/a", "Retry/b=2")
	},
	func(c *cluster) { // what no frame tells of: a comparison and a repair follow
		c.zone.held.Delete(key("Retry/a"))
		c.tick(time.Second)
	},
	func(c *cluster) { c.zone.Disconnect(); c.connect() },
	func(c *cluster) { c.change("Retry/b", "Secret/s=3") },
}

// offers sets what the zone offers.
func (c *cluster) offers(items ...string) {
	c.offer = NewSet()
	for _, item := range items {
		k, v, _ := strings.Cut(item, "=")
		if err := c.offer.Put(NewRecord(key(k), []byte(v))); err != nil {
			panic(err)
		}
	}
	c.zone.Offer(c.offer)
	c.collect()
}

// rest delivers everything, over new streams where one ended.
func (c *cluster) rest(t *testing.T) {
	t.Helper()
	for {
		if err := c.stabilize(); err != nil {
			t.Fatal(err)
		}
		if c.global != nil && c.zone.State() != Offline {
			return
		}
		c.reconnect()
	}
}

// converged demands that everyone has what was written, and that streams ended only by what was done to them.
func (c *cluster) converged(t *testing.T) {
	t.Helper()
	if at := c.view.Position(); c.zone.Position() != at || c.disk.at != at || c.global.Confirmed() != at || c.global.State() != Steady {
		t.Errorf("zone holds %s, its disk %s, global believes %s, written was %s", c.zone.Position(), c.disk.at, c.global.Confirmed(), at)
	}
	for what, set := range map[string]*Set{"zone": c.zone.held, "disk": c.disk.set} {
		if upserts, deletes := Diff(set, c.view.Set); len(upserts)+len(deletes) > 0 {
			t.Errorf("%s: lacks %v, has %v too much", what, upserts, deletes)
		}
	}
	if upserts, deletes := Diff(c.offered, c.offer); len(upserts)+len(deletes) > 0 {
		t.Errorf("global lacks the offers %v, and has %v too much", upserts, deletes)
	}
	if len(c.errs) > 0 {
		t.Errorf("streams ended by themselves: %v", errors.Join(c.errs...))
	}
}

// TestEveryLostFrameIsFoundWithinAHeartbeat takes away each frame of a history in turn. Unless the other end's order of frames shows it
// sooner, the next heartbeat does; a Hello, before which there is none, is missed when silence ends the stream.
func TestEveryLostFrameIsFoundWithinAHeartbeat(t *testing.T) {
	var kinds []string
	for n := 1; ; n++ {
		c := newCluster()
		c.zone.cfg.MaxChunk, c.loseAt = c.cfg.MaxChunk, n
		for _, part := range history {
			part(c)
			c.rest(t)
			if c.lost == "" || c.cut > 0 {
				continue
			}
			beats := 1
			switch kind := strings.Fields(c.lost)[1]; kind {
			case "hello":
				beats = SilentIntervals
			case "heartbeat":
				beats = 2 // the next one tells
			}
			for range beats {
				c.tick(time.Second)
				if err := c.stabilize(); err != nil {
					t.Fatal(err)
				}
			}
			if c.cut == 0 {
				t.Errorf("frame %d: %q is not missed after %d heartbeats", n, c.lost, beats)
			}
			c.rest(t)
		}
		for range 3 {
			c.tick(time.Second)
			c.rest(t)
		}
		if c.converged(t); t.Failed() {
			t.Fatalf("frame %d, %q:\n%s", n, c.lost, strings.Join(c.log, "\n"))
		}
		if c.lost == "" {
			break
		}
		kinds = append(kinds, strings.Fields(c.lost)[1])
	}
	slices.Sort(kinds)
	kinds = slices.Compact(kinds)
	if want := []string{"ack", "answer", "certificate", "certificate-request", "chunk", "heartbeat", "hello", "inventory", "query", "report", "status", "welcome"}; !slices.Equal(kinds, want) {
		t.Errorf("lost were %v, the history must have %v", kinds, want)
	}
}

// TestCrashAtEveryDurableStep kills the end that writes, before and after each thing that it writes in a history: a delta on the
// zone's disk, a report in global's store. Nothing that was answered may be missing then, nor half of anything be there.
func TestCrashAtEveryDurableStep(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			c := newCluster()
			c.zone.cfg.MaxChunk, c.crash = c.cfg.MaxChunk, crash{n, after}
			for _, part := range history {
				part(c)
				c.rest(t)
			}
			for range 3 {
				c.tick(time.Second)
				c.rest(t)
			}
			if c.converged(t); t.Failed() {
				t.Fatalf("step %d, after it %v:\n%s", n, after, strings.Join(c.log, "\n"))
			}
			if c.steps < n {
				if n < 8 {
					t.Fatalf("the history writes only %d times", c.steps)
				}
				break
			}
		}
	}
}

// TestFlippedBitIsFoundWithinAHeartbeat changes a byte of a record that the zone holds, of which no digest is told.
func TestFlippedBitIsFoundWithinAHeartbeat(t *testing.T) {
	c := newCluster()
	c.offer = NewSet()
	c.zone.Offer(c.offer)
	c.change("Mesh/a=one", "Retry/a=two", "Timeout/a=three")
	c.connect()
	c.rest(t)
	r, _ := c.zone.held.Get(key("Retry/a"))
	r.Payload[1] ^= 4
	c.tick(time.Second)
	c.rest(t)
	if r, ok := c.zone.held.Get(key("Retry/a")); !ok || string(r.GetPayload()) != "two" {
		t.Errorf("the zone holds %q", r.GetPayload())
	}
	if c.converged(t); c.global.Repairs() != 1 {
		t.Errorf("%d repairs, the damage is one", c.global.Repairs())
	}
	s, from := c.zone.Held(), key("Mesh/a")
	for _, want := range []string{"Retry/a", "Timeout/a"} {
		if _, from = s.damaged(from, 1); from != key(want) {
			t.Errorf("goes on at %v, not at %s", from, want)
		}
	}
}
