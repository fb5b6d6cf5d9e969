package zone

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zoneforge/zoneforge/xds/server"
)

// A zone in which nothing happens rests once, and again after something did.
func TestZoneRestsOnceUntilSomethingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 2)
		ctx, cancel := context.WithCancel(t.Context())
		var rested atomic.Int32
		done := make(chan struct{}, 2)
		go func() { w.run(ctx, time.Hour); done <- struct{}{} }()
		go func() { w.rest(ctx, func() { rested.Add(1) }); done <- struct{}{} }()
		after := func(d time.Duration, want int32) {
			t.Helper()
			<-time.After(d)
			synctest.Wait()
			if got := rested.Load(); got != want {
				t.Fatalf("it rested %d times, want %d", got, want)
			}
		}
		after(restAfter-time.Second, 0)
		w.inbox.postProgress(workID(0, 0), server.Progress{Acked: 1})
		after(restAfter-time.Second, 0)
		after(2*time.Second, 1)
		after(5*tidyEvery, 1)
		w.inbox.postProgress(workID(0, 0), server.Progress{Acked: 2})
		after(restAfter+time.Second, 2)
		cancel()
		<-done
		<-done
	})
}
