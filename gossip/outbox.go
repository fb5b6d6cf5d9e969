package gossip

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

// outbox is what one other member has to be sent. Each has its own, so that one that takes nothing delays no other. What waits
// coalesces: it grows with the owners there are.
type outbox struct {
	g    *Gossip
	wake chan struct{} // holds one token when there may be something to send

	// Guarded by g.mu.
	node *memberlist.Node // a copy, never changed: memberlist's own is its own
	told uint64           // version of the own records up to which the member was sent all changes; 0 when it doesn't know of any
	asks map[string]bool  // owners whose records it is asked for
	owed map[string]want  // what it asked for, by owner
}

func newOutbox(g *Gossip, node *memberlist.Node) *outbox {
	o := &outbox{g: g, node: copyOf(node), wake: make(chan struct{}, 1), asks: map[string]bool{}, owed: map[string]want{}}
	o.signal()
	return o
}

func copyOf(n *memberlist.Node) *memberlist.Node {
	return &memberlist.Node{Name: n.Name, Addr: slices.Clone(n.Addr), Port: n.Port}
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run sends until ctx ends. A member that comes, or that a frame didn't reach, is told what there is, and asks for what it lacks.
func (o *outbox) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		}
		f, node, some := o.next()
		if !some {
			continue
		}
		b, err := encode(f)
		if err != nil {
			o.g.config.Logger.Error("records can't be encoded", zap.Error(err))
			continue
		}
		if err := o.g.list.SendReliable(node, b); err == nil {
			continue
		} else if ctx.Err() == nil {
			o.g.config.Logger.Debug("records not sent", zap.String("replica", node.Name), zap.Error(err))
		}
		o.g.mu.Lock()
		o.told = 0
		o.g.mu.Unlock()
		again := time.NewTimer(sendAgain)
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-again.C:
			o.signal()
		}
	}
}

// next takes what is to be sent.
func (o *outbox) next() (f frame, to *memberlist.Node, some bool) {
	o.g.mu.Lock()
	defer o.g.mu.Unlock()
	s := o.g.state
	f = frame{From: s.self}
	if version := s.own().version; o.told == 0 || o.told < version {
		if d, ok := s.since(o.told); ok {
			f.Delta = &d
		} else {
			f.Summaries = s.summaries()
		}
		o.told, some = max(version, 1), true
	}
	for _, owner := range slices.Sorted(maps.Keys(o.asks)) {
		f.Wants = append(f.Wants, *s.wants(owner))
	}
	for _, owner := range slices.Sorted(maps.Keys(o.owed)) {
		if c, ok := s.answer(o.owed[owner]); ok {
			f.Contents = append(f.Contents, c)
		}
	}
	clear(o.asks)
	clear(o.owed)
	return f, o.node, some || len(f.Wants)+len(f.Contents) > 0
}
