package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/resource"
)

const pageSize = 500

// Snapshot is the newest state that this process knows. It advances while Run runs.
func (s *Store) Snapshot() *Snapshot { return s.cur.Load() }

// Wait returns a snapshot of at least the given revision, for a writer that wants to read what it committed. Run must be running.
func (s *Store) Wait(ctx context.Context, revision int64) (*Snapshot, error) {
	for {
		snap := s.Snapshot()
		if snap.revision >= revision {
			return snap, nil
		}
		select {
		case <-snap.stale:
		case <-ctx.Done():
			return snap, fmt.Errorf("store: wait for revision %d, at %d: %w", revision, snap.revision, ctx.Err())
		}
	}
}

// publish makes snap the newest; only Run calls it.
func (s *Store) publish(snap *Snapshot) {
	old := s.cur.Swap(snap)
	close(old.stale)
}

// Run follows the store until ctx ends, and then returns nil. Lost connections, compaction and lost events are mended
// by reloading; meanwhile the last snapshot stays. The error wraps ErrReplaced when there is nothing to follow any more.
func (s *Store) Run(ctx context.Context) error {
	const first, most = 50 * time.Millisecond, 2 * time.Second
	delay := first
	for ctx.Err() == nil {
		progress, err := s.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, ErrReplaced) {
			return err
		}
		s.log.Debug("reloading the store", zap.Error(err))
		if progress {
			delay = first
			continue
		}
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		delay = min(2*delay, most)
	}
	return nil
}

var errReload = errors.New("state differs from head")

// follow reloads when needed and applies what is committed until something is wrong. progress says that something new was learnt, so
// that a repetition needs no delay.
func (s *Store) follow(ctx context.Context) (progress bool, err error) {
	snap, at, err := s.load(ctx, s.Snapshot())
	if err != nil {
		return false, err
	}
	if snap != s.Snapshot() {
		s.publish(snap)
	}
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// All keys, as one transaction's events arrive together only within one watch.
	events := s.cli.Watch(wctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(at+1))
	tick := time.NewTicker(s.cfg.CheckInterval)
	defer tick.Stop()
	behind := int64(-1)
	for {
		select {
		case <-ctx.Done():
			return progress, ctx.Err()
		case res, ok := <-events:
			if !ok {
				return progress, errors.New("store: watch ended")
			}
			if err := res.Err(); err != nil {
				return progress, fmt.Errorf("store: watch: %w", err)
			}
			for _, ev := range res.Events {
				s.tally.read(ev.Kv.Key, ev.Kv.Value)
			}
			if err := s.apply(ctx, res.Events); err != nil {
				return progress, err
			}
			progress = true
		case <-tick.C:
			if behind, err = s.compare(ctx, behind); err != nil {
				return progress, err
			}
		}
	}
}

// compare finds events that never came. It returns the revision here when that is behind head, and -1 otherwise. Being behind is
// normal while changes are on their way, and a mismatch only when nothing moved since the last comparison, whose result is was.
func (s *Store) compare(ctx context.Context, was int64) (behind int64, err error) {
	snap := s.Snapshot() // before head, so that it can't be ahead of it
	h, err := s.readHead(ctx)
	if err != nil {
		return -1, err
	}
	switch {
	case snap.epoch != h.epoch:
		return -1, errNewEpoch
	case snap.revision == h.Revision && snap.digest == h.digest():
		return -1, nil
	case snap.revision < h.Revision && snap.revision != was:
		return snap.revision, nil
	}
	s.mismatches.Add(1)
	s.log.Warn("state differs from the store; reloading", zap.Int64("revision", snap.revision))
	return -1, errReload
}

// apply takes events of whole transactions, ordered.
func (s *Store) apply(ctx context.Context, events []*clientv3.Event) error {
	for len(events) > 0 {
		n := 1
		for n < len(events) && events[n].Kv.ModRevision == events[0].Kv.ModRevision {
			n++
		}
		if err := s.applyTxn(ctx, events[:n]); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// applyTxn applies one transaction. Without a new revision in head it is staging or roll-out, which changes nothing.
func (s *Store) applyTxn(ctx context.Context, events []*clientv3.Event) error {
	var h head
	seen := false
	for _, ev := range events {
		if string(ev.Kv.Key) == s.prefix+"epoch" {
			return errNewEpoch
		}
		if string(ev.Kv.Key) == s.prefix+"head" {
			if ev.Type == clientv3.EventTypeDelete {
				return fmt.Errorf("store: head is gone: %w", errReload)
			}
			var err error
			if h, err = decodeHead(ev.Kv.Value); err != nil {
				return err
			}
			seen = true
		}
	}
	cur := s.Snapshot()
	if !seen || h.Revision == cur.revision {
		return nil
	}
	if h.Revision != cur.revision+1 {
		s.mismatches.Add(1)
		return fmt.Errorf("store: revision %d follows %d: %w", h.Revision, cur.revision, errReload)
	}
	b := build(cur)
	if h.Pending != nil {
		if err := s.overlay(ctx, b, h); err != nil {
			return err
		}
	}
	for _, ev := range events {
		k, ok := s.parseResKey(string(ev.Kv.Key))
		if !ok || s.loseEvent != nil && s.loseEvent(k) {
			continue
		}
		if ev.Type == clientv3.EventTypeDelete {
			b.remove(k)
		} else {
			s.put(b, k, ev.Kv.Value)
		}
	}
	if b.digest != h.digest() {
		s.mismatches.Add(1)
		s.log.Warn("state differs from the store; reloading", zap.Int64("revision", h.Revision))
		return errReload
	}
	s.publish(b.finish(h.Revision, cur.epoch))
	s.recount(b)
	return nil
}

// overlay puts a pending change over the resource keys.
func (s *Store) overlay(ctx context.Context, b *builder, h head) error {
	for n := range h.Pending.Chunks {
		records, err := s.readChunk(ctx, h.Pending.ID, n)
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.After == nil {
				b.remove(r.key())
			} else {
				s.put(b, r.key(), []byte(resValue(h.Revision, r.After)))
			}
		}
	}
	return nil
}

// put adds a resource from its value. One that can't be read costs itself and nothing else.
func (s *Store) put(b *builder, k resource.Key, value []byte) {
	rev, content, err := splitValue(value)
	e := Entry{Revision: rev, stored: content.hash(k)}
	if err == nil {
		var plain []byte
		if e.Resource, plain, err = s.decode(k, content); err == nil {
			e.Hash = resource.HashOf(k, plain)
		}
	}
	if errors.Is(err, ErrNoSuchKey) {
		key := s.cfg.Seal.KeyOf(content[1:])
		s.lacking.Store(&key)
	}
	if err != nil {
		e.Resource = nil
		s.log.Warn("resource in the store cannot be read", zap.String("kind", k.Kind), zap.String("mesh", k.Mesh),
			zap.String("name", k.Name), zap.Int64("revision", rev), zap.Error(err))
	}
	b.put(k, e)
}

func (s *Store) recount(b *builder) { s.unreadable.Add(uint64(int64(b.unreadable))) }

// load reads everything as of one revision of etcd, which it returns. Where nothing differs from old, it returns old.
func (s *Store) load(ctx context.Context, old *Snapshot) (*Snapshot, int64, error) {
	h, err := s.readHead(ctx)
	if err != nil {
		return nil, 0, err
	}
	if old != nil && h.wentBack(Known{old.epoch, old.revision}) {
		if err := s.beginEpoch(ctx, Known{old.epoch, old.revision}); err != nil {
			return nil, 0, err
		}
		if h, err = s.readHead(ctx); err != nil {
			return nil, 0, err
		}
	}
	if old != nil && old.epoch == h.epoch && old.revision == h.Revision && old.digest == h.digest() {
		return old, h.at, nil
	}
	if old != nil {
		s.reloads.Add(1)
	}
	b := build(nil)
	b.tally = &s.tally
	from := s.prefix + "res/"
	end := clientv3.GetPrefixRangeEnd(from)
	for {
		var res *clientv3.GetResponse
		if err := s.attempt(ctx, func(ctx context.Context) (err error) {
			res, err = s.cli.Get(ctx, from, clientv3.WithRange(end), clientv3.WithRev(h.at), clientv3.WithLimit(pageSize))
			return err
		}); err != nil {
			return nil, 0, fmt.Errorf("store: load: %w", err)
		}
		for _, kv := range res.Kvs {
			k, ok := s.parseResKey(string(kv.Key))
			if !ok {
				s.log.Warn("key in the store is not a resource's", zap.String("name", strings.TrimPrefix(string(kv.Key), s.prefix)))
				continue
			}
			s.put(b, k, kv.Value)
		}
		if !res.More || len(res.Kvs) == 0 {
			break
		}
		from = string(res.Kvs[len(res.Kvs)-1].Key) + "\x00"
	}
	if h.Pending != nil {
		if err := s.overlay(ctx, b, h); err != nil {
			return nil, 0, err
		}
	}
	snap := b.finish(h.Revision, h.epoch)
	if old != nil && old.epoch == h.epoch {
		snap.ancestors = old.ancestors
	} else if snap.ancestors, err = s.readAncestors(ctx); err != nil {
		return nil, 0, err
	}
	if snap.digest != h.digest() {
		// Somebody wrote to etcd behind our back, or etcd lost something.
		s.mismatches.Add(1)
		s.log.Error("resources in etcd differ from the digest in head; restore a backup", zap.Int64("revision", h.Revision))
	}
	if old != nil && old.epoch == snap.epoch {
		snap.log = extend(old.log, logEntry{from: old.revision, to: snap.revision, keys: changedKeys(old, snap)})
	}
	s.unreadable.Store(uint64(b.unreadable))
	return snap, h.at, nil
}
