package kds

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

func TestLiveTravels(t *testing.T) {
	var list []Live
	for i := range 100 {
		// The clock of a zone may be set back.
		list = append(list, Live{uint64(1000 + i*i), time.UnixMicro(int64(1_800_000_000_000_000 + (i%7)*12_345 + i*40_000))})
	}
	p := TimesOf(list)
	if got := LiveOf(&kdsv1.Status{Times: p}); !slices.Equal(got, list) {
		t.Errorf("%v came as %v", list, got)
	}
	if n := proto.Size(p); n > 700 {
		t.Errorf("a hundred times take %d bytes", n)
	}
	if TimesOf(nil) != nil || len(LiveOf(nil)) != 0 {
		t.Error("none are some")
	}
	p.Since = p.Since[:40]
	if got := LiveOf(&kdsv1.Status{Times: p}); !slices.Equal(got, list[:40]) {
		t.Errorf("of a list that is cut off came %v", got)
	}
	before := &kdsv1.Status{Live: []*kdsv1.Status_Live{{Revision: 7, Since: timestamppb.New(list[0].Since)}}}
	if got := LiveOf(before); len(got) != 1 || got[0].Revision != 7 || !got[0].Since.Equal(list[0].Since) {
		t.Errorf("of a zone from before came %v", got)
	}
}

// A stream is told each time once, and the next stream all of them; a status that is never sent tells nothing.
func TestLiveIsToldOnce(t *testing.T) {
	z, now := NewZone(ZoneConfig{Zone: "east"}, NewSet(), Position{}), time.Unix(0, 0)
	connect := func() {
		z.Connect(now)
		z.Receive(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Welcome{Welcome: &kdsv1.Welcome{Protocol: Protocol}}}, now)
	}
	set := func(revisions ...uint64) {
		s := &kdsv1.Status{Proxies: 3, Acked: 2, Nacks: []*kdsv1.Status_ProxyNack{{}}, Rejected: []*kdsv1.Rejection{{}}, Trust: []*kdsv1.Status_Trust{{}}}
		var list []Live
		for _, r := range revisions {
			s.Revision, list = r, append(list, Live{r, now.Add(time.Duration(r) * time.Second)})
		}
		s.Times = TimesOf(list)
		z.SetStatus(s)
	}
	told := func(want ...uint64) {
		t.Helper()
		var got []uint64
		for _, f := range z.Ready().Frames {
			if s := f.GetStatus(); s != nil && (s.GetProxies() != 3 || s.GetAcked() != 2 || len(s.GetNacks()) != 1 || len(s.GetRejected()) != 1 || len(s.GetTrust()) != 1) {
				t.Errorf("what is told each time is not: %v", s)
			}
			for _, l := range LiveOf(f.GetStatus()) {
				if !l.Since.Equal(now.Add(time.Duration(l.Revision) * time.Second)) {
					t.Errorf("revision %d is live since %s", l.Revision, l.Since)
				}
				got = append(got, l.Revision)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("told of %v, want %v", got, want)
		}
	}
	connect()
	set(1, 2)
	set(1, 2, 3) // the one before was not sent yet
	told(1, 2, 3)
	set(1, 2, 3, 4)
	told(4)
	set(2, 3, 4)
	told()
	connect()
	told(2, 3, 4)
}
