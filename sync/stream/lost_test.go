package stream

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// losing is a stream of a zone whose frames vanish, as its sides agree.
type losing struct {
	grpc.ClientStream
	up, down *atomic.Bool
}

func (l losing) SendMsg(m any) error {
	if f, ok := m.(*kdsv1.ZoneFrame); ok && f.GetAck() != nil && l.up.Load() {
		return nil
	}
	return l.ClientStream.SendMsg(m)
}

func (l losing) RecvMsg(m any) error {
	for {
		err := l.ClientStream.RecvMsg(m)
		if f, ok := m.(*kdsv1.GlobalFrame); err == nil && ok && f.GetChunk() != nil && l.down.Load() {
			continue
		}
		return err
	}
}

// Each end counts the streams that lost something, and the next one has it.
func TestLostFramesAreCountedAndMended(t *testing.T) {
	var up, down atomic.Bool
	down.Store(true)
	f := startMachine(t, "good", kds.GlobalConfig{Interval: 200 * time.Millisecond}, []grpc.DialOption{grpc.WithStreamInterceptor(
		func(ctx context.Context, d *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(ctx, d, conn, method, opts...)
			return losing{s, &up, &down}, err
		})}, "passthrough:///global")
	go func() {
		for {
			select {
			case <-f.hellos:
			case <-t.Context().Done():
				return
			}
		}
	}()
	for e := range f.events {
		if e.Lost {
			break
		}
	}
	down.Store(false)
	if a := <-f.applies; len(a.Upserts) != 1 {
		t.Fatalf("after the loss came %+v", a)
	}
	up.Store(true)
	// On a machine that stood still a stream may end as a silent one instead, so that there is nothing to miss.
	revision := uint64(1)
	for f.server.Lost() == 0 {
		revision++
		f.set(newView(revision, "a", fmt.Sprint(revision)))
		<-f.closed
	}
	up.Store(false)
	f.set(newView(revision+1, "a", "last"))
	for p := range f.confirmed {
		if p.Revision == revision+1 {
			return
		}
	}
}
