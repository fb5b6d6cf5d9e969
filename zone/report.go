package zone

import (
	"context"
	"sync"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"
)

// reporter hands what goes up to the stream's machine, behind the owner of the state, which waits for no stream. Only the
// newest of each is kept, and the machine sends differences alone.
type reporter struct {
	wake chan struct{}

	mu sync.Mutex
	// Guarded by mu; nil when there is nothing new.
	offer   *kds.Set
	status  *kdsv1.Status
	answers []*kdsv1.Answer
}

func newReporter() *reporter { return &reporter{wake: make(chan struct{}, 1)} }

func (r *reporter) setOffer(s *kds.Set) {
	r.mu.Lock()
	r.offer = s
	r.mu.Unlock()
	r.signal()
}

func (r *reporter) setStatus(s *kdsv1.Status) {
	r.mu.Lock()
	r.status = s
	r.mu.Unlock()
	r.signal()
}

func (r *reporter) answer(parts []*kdsv1.Answer) {
	r.mu.Lock()
	r.answers = append(r.answers, parts...)
	r.mu.Unlock()
	r.signal()
}

func (r *reporter) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reporter) run(ctx context.Context, client *stream.Client) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		r.mu.Lock()
		offer, status, answers := r.offer, r.status, r.answers
		r.offer, r.status, r.answers = nil, nil, nil
		r.mu.Unlock()
		// The only error is that ctx has ended.
		_ = client.Do(ctx, func(z *kds.Zone) {
			if offer != nil {
				z.Offer(offer)
			}
			if status != nil {
				z.SetStatus(status)
			}
			for _, a := range answers {
				z.Answer(a)
			}
		})
	}
}
