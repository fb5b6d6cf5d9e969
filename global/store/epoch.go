package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Known is the newest state that somebody saw before, by which a store that went back is found.
type Known struct {
	Epoch    string
	Revision int64
}

// leap is by how much a new epoch begins above what is known: another replica, or a zone, may know a little more.
const leap = 1_000_000

// maxAncestors bounds the epochs that are remembered.
const maxAncestors = 1000

// random makes a name that nobody else makes.
func random() (string, error) {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("store: no randomness: %w", err)
	}
	return hex.EncodeToString(raw[:]), nil
}

// wentBack says that head is older than what is known of its epoch, which only the restore of a backup does.
func (h head) wentBack(k Known) bool { return h.epoch == k.Epoch && h.Revision < k.Revision }

// known is the newest state that this replica holds.
func (s *Store) known() Known {
	if snap := s.Snapshot(); snap != nil {
		return Known{snap.epoch, snap.revision}
	}
	return s.cfg.Known
}

// beginEpoch begins a new epoch in a store that went back behind what is known, so that no revision of the old one, whose changes
// are lost, is taken for one of those that follow. Its revision is above all of them. Where another replica was faster, its
// epoch stands.
func (s *Store) beginEpoch(ctx context.Context, k Known) error {
	for {
		h, err := s.readHead(ctx)
		if err != nil {
			return err
		}
		if !h.wentBack(k) {
			return nil
		}
		if h.Pending != nil {
			if err := s.rollOut(ctx, h); err != nil {
				return fmt.Errorf("store: finish change of revision %d: %w", h.Revision, err)
			}
			continue
		}
		ops, next, err := s.epochWrites(ctx, h, k)
		if err != nil {
			return err
		}
		var res *clientv3.TxnResponse
		err = s.attempt(ctx, func(ctx context.Context) (err error) {
			res, err = s.cli.Txn(ctx).If(s.ifHead(h)).Then(ops...).Commit()
			return err
		})
		if err != nil {
			return fmt.Errorf("store: begin an epoch: %w", writeError(err))
		}
		if !res.Succeeded {
			continue // another replica did, or this one by an attempt whose answer was lost
		}
		s.log.Error("the store went back, as after the restore of a backup; a new epoch begins, and changes since then are lost",
			zap.Int64("revision", h.Revision), zap.Int64("known", k.Revision), zap.String("former", h.epoch), zap.String("epoch", next))
		return nil
	}
}

func (s *Store) epochWrites(ctx context.Context, h head, k Known) (ops []clientv3.Op, epoch string, err error) {
	ancestors, err := s.readAncestors(ctx)
	if err != nil {
		return nil, "", err
	}
	ancestors = append([]string{h.epoch}, ancestors...)
	ancestors = ancestors[:min(len(ancestors), maxAncestors)]
	if epoch, err = random(); err != nil {
		return nil, "", err
	}
	next := h
	next.Revision, next.Seq = k.Revision+leap, h.Seq+1
	entry, err := json.Marshal(changeRecord{
		Seq: next.Seq, Revision: next.Revision, Author: "zoneforge", Time: time.Now().UTC(), Message: fmt.Sprintf(
			"a backup of revision %d was restored: the changes after it, up to revision %d at least, are lost, and a new epoch begins", h.Revision, k.Revision),
	})
	if err != nil {
		return nil, "", err
	}
	list, err := json.Marshal(ancestors)
	if err != nil {
		return nil, "", err
	}
	value, err := encodeHead(next)
	if err != nil {
		return nil, "", err
	}
	return []clientv3.Op{
		clientv3.OpPut(s.prefix+"epoch", epoch), clientv3.OpPut(s.prefix+"ancestors", string(list)),
		clientv3.OpPut(s.prefix+"head", value), clientv3.OpPut(s.changeKey(next.Seq), string(entry)),
	}, epoch, nil
}

// readAncestors lists the epochs that ended, the newest first.
func (s *Store) readAncestors(ctx context.Context) (ancestors []string, err error) {
	var res *clientv3.GetResponse
	if err := s.attempt(ctx, func(ctx context.Context) (err error) {
		res, err = s.cli.Get(ctx, s.prefix+"ancestors")
		return err
	}); err != nil {
		return nil, fmt.Errorf("store: read ancestors: %w", err)
	}
	if len(res.Kvs) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(res.Kvs[0].Value, &ancestors); err != nil {
		return nil, fmt.Errorf("store: %sancestors is malformed: %w; restore a backup", s.prefix, err)
	}
	return ancestors, nil
}

// Confirm returns the newest snapshot once it is at least as new as what etcd holds now; an error that wraps ErrUnavailable says that
// this replica can't know.
func (s *Store) Confirm(ctx context.Context) (*Snapshot, error) {
	h, err := s.readHead(ctx)
	if err != nil {
		return nil, err
	}
	for {
		snap := s.Snapshot()
		if snap.epoch == h.epoch && snap.revision >= h.Revision {
			return snap, nil
		}
		select {
		case <-snap.stale:
		case <-ctx.Done():
			return nil, fmt.Errorf("store: %w: at revision %d, etcd is at %d: %w", ErrUnavailable, snap.revision, h.Revision, ctx.Err())
		}
	}
}

// errNewEpoch: the state here is of another epoch than the store's.
var errNewEpoch = errors.New("store has a new epoch")
