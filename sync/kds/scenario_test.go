package kds

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// TestScenarios runs the scripts in testdata; -rewrite takes their results as they are. Commands:
//
//	hello [zone=Z]         open a first stream, with another name when given; the token is for west
//	set                    commit a revision of the lines: Kind/name=payload, or Kind/name to delete
//	offer                  the zone offers the lines upward
//	deliver [up] [down]    deliver one frame of each direction named
//	drop                   lose the stream with all that is on the wire
//	dup                    deliver the next frame up twice
//	nack n=N               let the next N deltas fail at the zone
//	apply                  the zone's driver finishes the pending delta
//	poison text=T          the zone rejects records whose payload has T
//	corrupt                change the zone's records without a frame: lines as for set
//	truncate               forget global's log
//	restore epoch=E revision=R
//	reconnect [revision=R] a new stream, to a global that is at revision R when given
//	catchup                that global takes the newest revision
//	tick ms=N              let time pass
//	stabilize              deliver everything until nothing moves
//	state                  print both ends
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		c := newCluster()
		c.zone.cfg.MaxChunk = c.cfg.MaxChunk
		views := map[uint64]*testView{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			c.log = nil
			lines := strings.Fields(d.Input)
			switch d.Cmd {
			case "hello":
				if d.HasArg("zone") {
					d.ScanArgs(t, "zone", &c.zone.cfg.Zone)
				}
				c.connect()
			case "set":
				c.change(lines...)
				views[c.view.pos.Revision] = c.view
				c.collect()
			case "offer":
				s := NewSet()
				for _, l := range lines {
					k, v, _ := strings.Cut(l, "=")
					if err := s.Put(NewRecord(key(k), []byte(v))); err != nil {
						t.Fatal(err)
					}
				}
				c.zone.Offer(s)
				c.collect()
			case "deliver":
				for _, a := range d.CmdArgs {
					if !c.step(a.Key == "down") {
						c.logf("nothing is on its way %s", a.Key)
					}
				}
			case "drop":
				c.zone.Disconnect()
				c.global, c.down, c.up = nil, nil, nil
			case "dup":
				if len(c.up) > 0 {
					c.up = append(c.up[:1:1], c.up...)
				}
				c.step(false)
				c.step(false)
			case "nack":
				d.ScanArgs(t, "n", &c.fail)
			case "apply":
				c.applied()
			case "poison":
				d.ScanArgs(t, "text", &c.poison)
			case "corrupt":
				for _, l := range lines {
					k, v, put := strings.Cut(l, "=")
					if !put {
						c.zone.held.Delete(key(k))
					} else if err := c.zone.held.Put(NewRecord(key(k), []byte(v))); err != nil {
						t.Fatal(err)
					}
				}
			case "truncate":
				c.view.min, c.view.memo = c.view.pos.Revision, &Memo{}
			case "restore":
				v := *c.view
				var epoch string
				var revision uint64
				d.ScanArgs(t, "epoch", &epoch)
				d.ScanArgs(t, "revision", &revision)
				v.pos, v.min, v.memo = v.Set.Position(epoch, revision), revision, &Memo{}
				c.view = &v
				if c.global != nil {
					c.global.SetView(c.view, c.now)
				}
				c.collect()
			case "reconnect":
				c.zone.Disconnect()
				newest := c.view
				if d.HasArg("revision") {
					var r uint64
					d.ScanArgs(t, "revision", &r)
					c.view = views[r]
				}
				c.connect()
				c.view = newest
			case "catchup":
				c.global.SetView(c.view, c.now)
				c.collect()
			case "tick":
				var ms int
				d.ScanArgs(t, "ms", &ms)
				c.tick(time.Duration(ms) * time.Millisecond)
			case "stabilize":
				if err := c.stabilize(); err != nil {
					t.Fatal(err)
				}
			case "state":
				if c.global == nil {
					c.logf("global: none")
				} else {
					c.logf("global: %s, confirmed %s, %d repairs, %d rejected", c.global.State(), c.global.Confirmed(), c.global.Repairs(),
						len(c.global.Rejected()))
				}
				c.logf("zone: %s, holds %s", c.zone.State(), c.zone.Position())
				c.zone.held.each("", func(e entry) bool {
					c.logf("  %s/%s=%s", e.key.Kind, e.key.Name, e.record.GetPayload())
					return true
				})
			default:
				t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
			}
			if len(c.log) == 0 {
				return "ok\n"
			}
			return strings.Join(c.log, "\n") + "\n"
		})
	})
}

// TestVerdicts checks that whatever the driver decides reaches the zone as a refusal, and that both ends stop.
func TestVerdicts(t *testing.T) {
	for _, code := range []kdsv1.Refusal_Code{kdsv1.Refusal_CODE_DISABLED, kdsv1.Refusal_CODE_DUPLICATE_ZONE} {
		c := newCluster()
		g := NewGlobal(c.cfg, c.now)
		c.zone.Connect(c.now)
		g.Receive(c.zone.Ready().Frames[0], c.now)
		if e := g.Ready().Events; len(e) != 1 || e[0].Hello == nil {
			t.Fatalf("no Hello among %v", e)
		}
		g.Admit(Verdict{Code: code, Reason: "because", RetryAfter: time.Minute}, c.now)
		r := g.Ready()
		c.zone.Receive(r.Frames[0].GlobalFrame, c.now)
		z := c.zone.Ready()
		if r.Closed == nil || z.Closed == nil || z.Events[0].Refusal.GetCode() != code {
			t.Errorf("%s: global %v, zone %v", code, r.Closed, z)
		}
	}
}

// TestFirstFrame checks that nothing but a Hello may come first.
func TestFirstFrame(t *testing.T) {
	for i, f := range []*kdsv1.ZoneFrame{nil, {}, {Frame: &kdsv1.ZoneFrame_Ack{}}, {Frame: &kdsv1.ZoneFrame_Heartbeat{}}} {
		g := NewGlobal(GlobalConfig{Zone: "west"}, time.Unix(0, 0))
		g.Receive(f, time.Unix(0, 0))
		r := g.Ready()
		if len(r.Frames) != 1 || r.Frames[0].GetRefusal().GetCode() != kdsv1.Refusal_CODE_BAD_FRAME {
			t.Errorf("frame %d: %v", i, r.Frames)
		}
	}
}

// TestBadChunks checks what ends a stream at the zone.
func TestBadChunks(t *testing.T) {
	last := NewSet().Position("a", 9).Proto()
	big := func(n int) *kdsv1.Record { return NewRecord(key(fmt.Sprintf("Mesh/%d", n)), make([]byte, 300)) }
	forged := NewRecord(key("Mesh/x"), []byte("one"))
	forged.Payload = []byte("two")
	for name, chunks := range map[string][]*kdsv1.Chunk{
		"index":     {{Nonce: 7, Index: 1}},
		"nonce":     {{Nonce: 7}, {Nonce: 8, Index: 1, Last: true, Position: last}},
		"over-size": {{Nonce: 7, Upserts: []*kdsv1.Record{big(1), big(2)}}},
		"hash":      {{Nonce: 7, Upserts: []*kdsv1.Record{forged}}},
		"position":  {{Nonce: 7, Last: true}},
		"backwards": {{Nonce: 7, Last: true, Position: NewSet().Position("a", 0).Proto()}},
	} {
		c := newCluster()
		c.zone.cfg.MaxChunk = 400
		c.change("Mesh/a=1")
		c.connect()
		if err := c.stabilize(); err != nil {
			t.Fatal(err)
		}
		for _, k := range chunks {
			c.zone.Receive(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Chunk{Chunk: k}}, c.now)
		}
		if r := c.zone.Ready(); r.Closed == nil || r.Apply != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
