package store

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// image reads all keys of a store, and gives what restores them.
func image(t *testing.T, s *Store) (restore func()) {
	t.Helper()
	res, err := s.cli.Get(testContext(t), s.prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if _, err := s.cli.Delete(testContext(t), s.prefix, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		for _, kv := range res.Kvs {
			if _, err := s.cli.Put(testContext(t), string(kv.Key), string(kv.Value)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A backup is restored behind a replica's back: it begins an epoch above all that it saw, before it writes anything.
func TestRestoreBeginsAnEpoch(t *testing.T) {
	s := open(t, embedded(t))
	commitOps(t, s, put("kept", "1"))
	restore := image(t, s)
	seen := commitOps(t, s, put("kept", "2"), put("lost", "1"))
	before := s.Epoch()
	follow(t, s)
	wait(t, s, seen.Revision)
	restore()
	c := commitOps(t, s, put("after", "1"))
	if c.Revision != seen.Revision+leap+1 {
		t.Errorf("revision %d may be one that was lost, up to %d", c.Revision, seen.Revision)
	}
	snap := s.Snapshot()
	for snap.Epoch() == before || snap.Revision() < c.Revision {
		select {
		case <-snap.Stale():
			snap = s.Snapshot()
		case <-testContext(t).Done():
			t.Fatal("the new epoch does not come")
		}
	}
	if _, lost := snap.Get(timeoutKey("lost")); lost || label(snap, "kept") != "1" || label(snap, "after") != "1" {
		t.Error("it is not what the backup has")
	}
	if !snap.Follows(before) || snap.Follows("another") {
		t.Error("the former epoch isn't known, or another is")
	}
	if keys, ok := snap.Since(seen.Revision); ok {
		t.Errorf("the log reaches over the restore: %v", keys)
	}
	history, err := s.History(testContext(t), 2, 0)
	if err != nil || history[1].Author != "zoneforge" || history[1].Count != 0 {
		t.Errorf("%+v %v", history, err)
	}
}

// A store that went back is found at the start, by what was noted before.
func TestRestoreIsFoundAtStart(t *testing.T) {
	cfg := embedded(t)
	s := open(t, cfg)
	c := commitOps(t, s, put("a", "1"))
	epoch := s.Epoch()
	s.Close()
	cfg.Known = Known{epoch, c.Revision}
	s = open(t, cfg)
	if s.Epoch() != epoch {
		t.Error("a store that is as it was has another epoch")
	}
	s.Close()
	cfg.Known.Revision += 7
	s = open(t, cfg)
	if s.Epoch() == epoch || s.Snapshot().Revision() <= cfg.Known.Revision || !s.Snapshot().Follows(epoch) {
		t.Errorf("epoch %s, revision %d", s.Epoch(), s.Snapshot().Revision())
	}
	s.Close()
	s = open(t, cfg) // the mark is still the old one
	if s.Snapshot().Revision() != cfg.Known.Revision+leap {
		t.Errorf("the epoch began twice: revision %d", s.Snapshot().Revision())
	}
}

func TestClaims(t *testing.T) {
	s := open(t, Config{Endpoints: []string{cluster(t)}})
	follow(t, s)
	claim := func() Claim {
		c, err := s.Claim(testContext(t), "zone/east/one")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	write := func(c Claim, value string) error {
		_, err := s.Commit(testContext(t), Change{Ops: []Op{put("a", value)}, Claims: []Claim{c}, Internal: true})
		return err
	}
	first := claim()
	if err := write(first, "1"); err != nil {
		t.Fatal(err)
	}
	second := claim()
	if err := write(first, "2"); !errors.Is(err, ErrSuperseded) {
		t.Errorf("a former holder wrote: %v", err)
	}
	if err := s.Release(testContext(t), first); err != nil {
		t.Error(err)
	}
	if err := write(second, "3"); err != nil {
		t.Errorf("the release of a former claim took the newer one: %v", err)
	}
	if err := s.Release(testContext(t), second); err != nil || keysBelow(t, s, "claim/") != 0 {
		t.Errorf("a claim stays: %v", err)
	}
}

// lossy loses the answers of some transactions, once they are carried out.
type lossy struct {
	clientv3.KV
	lose func() bool
}

type lossyTxn struct {
	clientv3.Txn
	lose func() bool
}

func (l lossy) Txn(ctx context.Context) clientv3.Txn { return &lossyTxn{l.KV.Txn(ctx), l.lose} }

func (x *lossyTxn) If(cs ...clientv3.Cmp) clientv3.Txn { x.Txn = x.Txn.If(cs...); return x }
func (x *lossyTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	x.Txn = x.Txn.Then(ops...)
	for _, op := range ops {
		if op.IsPut() {
			return x
		}
	}
	return x.Txn
}
func (x *lossyTxn) Commit() (*clientv3.TxnResponse, error) {
	res, err := x.Txn.Commit()
	if err == nil && x.lose() {
		return nil, context.DeadlineExceeded
	}
	return res, err
}

func (x *lossyTxn) Else(ops ...clientv3.Op) clientv3.Txn { x.Txn = x.Txn.Else(ops...); return x }

// The answer to a commit is lost, as with a member of etcd that stops: it happened once, and the writer is told where.
func TestLostAnswerIsFound(t *testing.T) {
	s := open(t, embedded(t))
	var answers atomic.Int64 // since the last reset, of which the first is lost
	answers.Store(1)
	s.cli.KV = lossy{s.cli.KV, func() bool { return answers.Add(1) == 1 }}
	follow(t, s)
	for n, ops := range [][]Op{{put("a", "1")}, manyOps(300, "1")} {
		answers.Store(0)
		before := s.Snapshot().Revision()
		c := commitOps(t, s, ops...)
		if snap := wait(t, s, c.Revision); answers.Load() == 0 || c.Seq == 0 || snap.Revision() != before+1 {
			t.Errorf("%d: committed as %+v after revision %d, now at %d, %d answers", n, c, before, snap.Revision(), answers.Load())
		}
	}
	history, err := s.History(testContext(t), 0, 0)
	if err != nil || len(history) != 2 {
		t.Errorf("%+v %v", history, err)
	}
}
