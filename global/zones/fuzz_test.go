package zones

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/view"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/sync/kds"
)

// Whatever another replica of global tells of streams, it is refused or what is known of zones can be shown, and is gone with that replica.
func FuzzStreams(f *testing.F) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := store.Open(ctx, store.Config{DataDir: filepath.Join(f.TempDir(), "data")})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Close)
	cfg := Config{Store: s, Views: view.New(s, nil), Signer: signer{}, Machine: kds.GlobalConfig{Replica: "g", Interval: time.Second},
		Verify: func(string) (string, error) { return "east", nil }}
	for _, m := range []*kdsv1.Streams{
		{Open: []*kdsv1.ZoneStream{streamOf(1, "a", time.Unix(1, 0)), streamOf(2, "b", time.Unix(2, 0))}, All: true},
		{Closed: []*kdsv1.StreamKey{{Zone: "east", Replica: "0"}, {}}},
	} {
		text, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		r, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		heard := r.Hear("b")
		for _, text := range [][]byte{first, second} {
			m := &kdsv1.Streams{}
			if proto.Unmarshal(text, m) != nil {
				continue
			}
			_ = heard.Streams(m) // refused, or not
			if _, err := json.Marshal(r.Statuses()); err != nil {
				t.Fatalf("%v can't be shown: %v", m, err)
			}
		}
		heard.Lost()
		for _, s := range r.Statuses() {
			if s.Connected {
				t.Fatalf("%+v after the replica that had it is gone", s)
			}
		}
	})
}
