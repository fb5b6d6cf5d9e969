package zones

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// streamOf is what another replica of global tells of a stream of zone east.
func streamOf(number uint64, identity string, since time.Time) *kdsv1.ZoneStream {
	return &kdsv1.ZoneStream{
		Key: &kdsv1.StreamKey{Zone: "east", Replica: "0"}, Identity: identity, Stream: number, Since: timestamppb.New(since), Held: kds.Position{}.Proto(),
		Status: &kdsv1.Status{Proxies: 3, Acked: 2}, Repairs: 5,
	}
}

// at says which replica of global has east's stream, as far as the registry knows.
func (f *federation) at() string {
	f.Helper()
	s, ok := f.Registry.Status("east")
	if !ok || len(s.Replicas) != 1 {
		f.Fatalf("%+v", s)
	}
	if s.Connected != (s.Replicas[0].Global != "") {
		f.Errorf("connected or not: %+v", s)
	}
	return s.Replicas[0].Global
}

func TestStreamsOfOthers(t *testing.T) {
	f := start(t)
	f.commit(enable("east", true))
	b, c := f.Hear("b"), f.Hear("c")
	tell := func(h *Heard, m *kdsv1.Streams, want string) {
		t.Helper()
		if err := h.Streams(m); err != nil {
			t.Fatal(err)
		}
		if got := f.at(); got != want {
			t.Errorf("the stream is at %q, want %q", got, want)
		}
	}
	open := func(number uint64) *kdsv1.Streams {
		return &kdsv1.Streams{Open: []*kdsv1.ZoneStream{streamOf(number, "id-east", time.Now())}}
	}
	closed := &kdsv1.Streams{Closed: []*kdsv1.StreamKey{{Zone: "east", Replica: "0"}}}
	first := open(5)
	first.All = true
	tell(b, first, "b")
	if s, _ := f.Registry.Status("east"); s.Proxies != 3 || s.Acked != 2 || s.Repairs != 5 || time.Since(s.LastSeen) > time.Minute {
		t.Errorf("%+v", s)
	}
	tell(c, open(4), "b") // what a lost connection left there
	tell(c, open(6), "c")
	tell(b, closed, "c")
	tell(b, open(5), "c")
	tell(c, closed, "")
	tell(b, open(7), "b")
	b.Lost()
	if got := f.at(); got != "" {
		t.Errorf("the stream is at %q, which is gone", got)
	}
	// What is not among all that it has has ended while it was not followed.
	tell(b, open(8), "b")
	tell(f.Hear("b"), &kdsv1.Streams{All: true}, "")
	if err := b.Streams(&kdsv1.Streams{Open: []*kdsv1.ZoneStream{{Held: &kdsv1.Position{Digest: &kdsv1.Digest{Sum: []byte("short")}}}}}); err == nil {
		t.Error("a malformed position was taken")
	}
}

// A newer stream elsewhere ends the one here, and an older one doesn't.
func TestNewerStreamElsewhere(t *testing.T) {
	f := start(t)
	p := f.east()
	f.until("the stream here", func() bool { return f.at() == "g" })
	h := f.Hear("b")
	if err := h.Streams(&kdsv1.Streams{Open: []*kdsv1.ZoneStream{streamOf(1, "id-east", time.Now())}}); err != nil || f.at() != "g" {
		t.Errorf("at %s: %v", f.at(), err)
	}
	if err := h.Streams(&kdsv1.Streams{Open: []*kdsv1.ZoneStream{streamOf(1<<63, "id-east", time.Now())}}); err != nil {
		t.Error(err)
	}
	f.event(p, func(e kds.ZoneEvent) bool { return e.Welcome != nil }) // it has only this one, and comes again
	f.until("the stream that is newest here", func() bool { return f.at() == "g" })
}

// Of two clusters of one name at two replicas the one that came later is refused, and both replicas agree on which one it is.
func TestDuplicateElsewhere(t *testing.T) {
	f := start(t)
	p := f.east()
	f.until("the stream here", func() bool { return f.at() == "g" })
	h := f.Hear("b")
	if err := h.Streams(&kdsv1.Streams{Open: []*kdsv1.ZoneStream{streamOf(9, "another", time.Now().Add(time.Hour))}}); err != nil || f.at() != "g" {
		t.Errorf("the later one has the name: %v", err)
	}
	if err := h.Streams(&kdsv1.Streams{Open: []*kdsv1.ZoneStream{streamOf(9, "another", time.Now().Add(-time.Hour))}}); err != nil {
		t.Error(err)
	}
	// It is told of once, while the one here has yet to end.
	if at := f.at(); at != "b" {
		t.Errorf("the earlier one is at %q", at)
	}
	if r := f.refusal(p); r.GetCode() != kdsv1.Refusal_CODE_DUPLICATE_ZONE {
		t.Errorf("%v", r)
	}
	p.stop()
	f.until("the end of the stream here", func() bool { streams, _ := f.Counts(); return streams == 0 })
	if at := f.at(); at != "b" {
		t.Errorf("after the end of the one here, it is at %q", at)
	}
	if r := f.refusal(f.zone("east", "1", "id-east", "zone:east")); r.GetCode() != kdsv1.Refusal_CODE_DUPLICATE_ZONE {
		t.Errorf("%v", r)
	}
}

// What is told is all that is here, then what changes, and nothing that others have.
func TestTell(t *testing.T) {
	f := start(t)
	p := f.east()
	if err := f.Hear("b").Streams(&kdsv1.Streams{Open: []*kdsv1.ZoneStream{{Key: &kdsv1.StreamKey{Zone: "west", Replica: "0"}, Held: kds.Position{}.Proto()}}}); err != nil {
		t.Fatal(err)
	}
	told := make(chan *kdsv1.Streams, 99)
	ctx, cancel := context.WithCancel(f.ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- f.Tell(ctx, func(m *kdsv1.Streams) error { told <- m; return nil })
	}()
	if m := <-told; !m.GetAll() || len(m.GetOpen()) != 1 || m.GetOpen()[0].GetKey().GetZone() != "east" || m.GetOpen()[0].GetStream() == 0 {
		t.Fatalf("%v", m)
	}
	if err := p.Do(f.ctx, func(z *kds.Zone) { z.SetStatus(&kdsv1.Status{Proxies: 4}) }); err != nil {
		t.Fatal(err)
	}
	for m := range told {
		if m.GetAll() || len(m.GetClosed()) > 0 {
			t.Fatalf("%v", m)
		}
		if m.GetOpen()[0].GetStatus().GetProxies() == 4 {
			break
		}
	}
	p.stop()
	for m := range told {
		if len(m.GetClosed()) == 1 && m.GetClosed()[0].GetZone() == "east" {
			break
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Zones are sent away once; one that comes back is served until the store was there and went again.
func TestSendAway(t *testing.T) {
	f := start(t)
	p := f.east()
	for range 2 {
		f.SendAway("cut off")
		if r := f.refusal(p); r.GetCode() != kdsv1.Refusal_CODE_UNAVAILABLE || r.GetReason() != "cut off" {
			t.Fatalf("%v", r)
		}
		f.event(p, func(e kds.ZoneEvent) bool { return e.Welcome != nil })
		f.SendAway("cut off")
		if streams, sent := f.Counts(); streams != 1 || sent == 0 {
			t.Errorf("%d streams, sent away %d times", streams, sent)
		}
		f.Stay()
	}
	if _, sent := f.Counts(); sent != 2 {
		t.Errorf("sent away %d times", sent)
	}
}

// A zone that holds what the store never had is let in once etcd has said so, and its status tells.
func TestZoneAheadOfTheStore(t *testing.T) {
	f := start(t)
	f.commit(enable("east", true))
	at := f.store.Snapshot()
	for revision, ahead := range map[uint64]bool{uint64(at.Revision()): false, uint64(at.Revision()) + 7: true} {
		session, v := f.Open(f.ctx, "east", &kdsv1.Hello{Zone: "east", Replica: "0", Identity: "id", Position: kds.Position{Epoch: at.Epoch(), Revision: revision}.Proto()})
		if v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
			t.Fatalf("%+v", v)
		}
		s, _ := f.Registry.Status("east")
		if strings.Contains(s.Problem, "never had or lost") != ahead {
			t.Errorf("at revision %d: %q", revision, s.Problem)
		}
		session.Close()
	}
}

// cutOff is a store that etcd doesn't answer.
type cutOff struct{ Store }

func (cutOff) Confirm(context.Context) (*store.Snapshot, error) { return nil, store.ErrUnavailable }

func (cutOff) Away() bool { return true }

// A replica that can't ask etcd lets nobody in whom it might send back, and all others.
func TestBehindAndCutOff(t *testing.T) {
	f := start(t)
	f.commit(enable("east", true))
	at := f.store.Snapshot()
	r, err := New(Config{Store: cutOff{f.store}, Views: f.views, Verify: func(string) (string, error) { return "", nil }})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		held kds.Position
		code kdsv1.Refusal_Code
	}{
		{kds.Position{}, kdsv1.Refusal_CODE_UNSPECIFIED},
		{kds.Position{Epoch: at.Epoch(), Revision: uint64(at.Revision())}, kdsv1.Refusal_CODE_UNSPECIFIED},
		{kds.Position{Epoch: at.Epoch(), Revision: uint64(at.Revision()) + 1}, kdsv1.Refusal_CODE_UNAVAILABLE},
		{kds.Position{Epoch: "one that it has not heard of", Revision: 1}, kdsv1.Refusal_CODE_UNAVAILABLE},
	} {
		session, v := r.Open(f.ctx, "east", &kdsv1.Hello{Zone: "east", Replica: "0", Identity: "id", Position: c.held.Proto()})
		if v.Code != c.code || c.code == kdsv1.Refusal_CODE_UNSPECIFIED && v.Offered != nil {
			t.Errorf("holding %s: %+v", c.held, v)
		}
		if session != nil {
			session.Close()
		}
	}
}
