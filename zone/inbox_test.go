package zone

import (
	"fmt"
	"sync"
	"testing"

	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
)

// TestProgressComesAfterItsStream has many proxies begin and post while the owner takes: no progress comes before the event of its
// proxy's stream, the last of each comes, and none comes twice.
func TestProgressComesAfterItsStream(t *testing.T) {
	const proxies, posts = 200, 20
	b := newInbox()
	var posting sync.WaitGroup
	for i := range proxies {
		posting.Go(func() {
			id := fmt.Sprint("p", i)
			if err := b.admit(&admission.Proxy{ID: id}, func() {}); err != nil {
				t.Error(err)
			}
			for n := range uint64(posts) {
				b.postProgress(id, server.Progress{Acked: n + 1})
			}
		})
	}
	done := make(chan struct{})
	go func() { posting.Wait(); close(done) }()
	connected, acked := map[string]bool{}, map[string]uint64{}
	takeAll := func() {
		events, progress := b.take()
		for _, e := range events {
			connected[e.connects] = true
		}
		for id, p := range progress {
			if !connected[id] {
				t.Errorf("%s has progress before its stream", id)
			}
			if p.Acked <= acked[id] {
				t.Errorf("%s has %d after %d", id, p.Acked, acked[id])
			}
			acked[id] = p.Acked
		}
	}
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-b.wake:
		}
		takeAll()
	}
	for i := range proxies {
		if id := fmt.Sprint("p", i); acked[id] != posts {
			t.Errorf("the last of %s is %d", id, acked[id])
		}
	}
}

// BenchmarkPostProgress has ten thousand proxies post while the owner takes, as after a change that hits all.
func BenchmarkPostProgress(b *testing.B) {
	box := newInbox()
	ids := make([]string, 10_000)
	for i := range ids {
		ids[i] = fmt.Sprintf("Dataplane/default/w-%05d", i)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-box.wake:
				box.take()
			case <-stop:
				return
			}
		}
	}()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			box.postProgress(ids[i%len(ids)], server.Progress{Acked: uint64(i)})
		}
	})
	close(stop)
	<-stopped
}
