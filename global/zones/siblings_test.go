package zones

import (
	"fmt"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// sibling connects a replica of east that wants to know of the others.
func (f *federation) sibling(name string) *peer {
	f.Helper()
	return f.zone("east", name, "id", "zone:east", func(p *peer) { p.features = []string{kds.FeatureSiblings} })
}

// told waits until a replica is told of its siblings by these words.
func (f *federation) told(p *peer, want string) {
	f.Helper()
	f.event(p, func(e kds.ZoneEvent) bool {
		return e.Siblings != nil && fmt.Sprint(e.Siblings.GetConnected(), e.Siblings.GetGone(), e.Siblings.GetAll()) == want
	})
}

// A replica of a zone is told which others are connected, here or at another replica of global, and that one is gone only where that is known.
func TestReplicasAreToldOfEachOther(t *testing.T) {
	f := start(t)
	f.skipped.Store(-int64(time.Hour)) // so that it began just now for as long as this test takes
	a := f.sibling("a")
	f.told(a, "[] [] false")
	b := f.sibling("b")
	f.told(a, "[b] [] false")
	f.told(b, "[a] [] false")
	b.stop()
	f.told(a, "[] [b] false")
	f.skipped.Add(int64(time.Hour + retireAfter))
	f.told(a, "[] [b] true")

	// b comes to another replica of global, which then goes without a word: who is with it can't be known.
	there := f.Hear("h")
	stream := streamOf(1, "id", time.Now())
	stream.Key.Replica = "b"
	if err := there.Streams(&kdsv1.Streams{All: true, Open: []*kdsv1.ZoneStream{stream}}); err != nil {
		t.Fatal(err)
	}
	f.told(a, "[b] [] true")
	there.Lost()
	f.told(a, "[] [] false")
	// It comes back, and b has gone from it meanwhile.
	again := f.Hear("h")
	if err := again.Streams(&kdsv1.Streams{All: true}); err != nil {
		t.Fatal(err)
	}
	f.told(a, "[] [b] true")
	// It goes again, for longer than any partition is waited for; or it said that it goes.
	again.Lost()
	f.told(a, "[] [] false")
	f.skipped.Add(int64(unsureFor))
	f.told(a, "[] [b] true")
	f.Hear("h").Lost()
	f.told(a, "[] [] false")
	f.Left("h")
	f.told(a, "[] [b] true")
}
