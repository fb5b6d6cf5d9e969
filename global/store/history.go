package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/resource"
)

// maxHistory bounds one page, as entries carry contents.
const maxHistory = 200

// ChangeInfo is a history entry without its contents.
type ChangeInfo struct {
	Seq, Revision   int64
	Author, Message string
	Time            time.Time
	// Count of the keys touched.
	Count int
}

// KeyChange is one key of a shown change. A resource is nil where the key didn't exist, or where it can't be read any more,
// which the hashes tell apart.
type KeyChange struct {
	Key           resource.Key
	Before, After *resource.Resource
	// Hashes over the stored bytes; zero where the key didn't exist.
	BeforeHash, AfterHash resource.Hash
}

// ShownChange is a history entry with its contents; sensitive resources are included in clear.
type ShownChange struct {
	ChangeInfo
	Keys []KeyChange
}

func (r changeRecord) info() ChangeInfo {
	return ChangeInfo{Seq: r.Seq, Revision: r.Revision, Author: r.Author, Message: r.Message, Time: r.Time, Count: r.Count}
}

// History lists changes, newest first: up to limit (at most 200, which 0 also means) with a number below before, where 0 means
// from the newest.
func (s *Store) History(ctx context.Context, limit int, before int64) ([]ChangeInfo, error) {
	if limit <= 0 || limit > maxHistory {
		limit = maxHistory
	}
	first := s.prefix + "change/"
	end := clientv3.GetPrefixRangeEnd(first)
	if before > 0 {
		end = s.changeKey(before)
	}
	var out []ChangeInfo
	for len(out) < limit {
		// Few at a time, as each may carry a megabyte.
		var res *clientv3.GetResponse
		if err := s.attempt(ctx, func(ctx context.Context) (err error) {
			res, err = s.cli.Get(ctx, first, clientv3.WithRange(end), clientv3.WithLimit(int64(min(16, limit-len(out)))),
				clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
			return err
		}); err != nil {
			return nil, fmt.Errorf("store: read the history: %w", err)
		}
		for _, kv := range res.Kvs {
			var r changeRecord
			if err := json.Unmarshal(kv.Value, &r); err != nil {
				return nil, fmt.Errorf("store: %s is malformed: %w", kv.Key, err)
			}
			out = append(out, r.info())
			end = string(kv.Key)
		}
		if !res.More {
			break
		}
	}
	return out, nil
}

// ShowChange reads one history entry with its contents, ErrNotFound when there is none.
func (s *Store) ShowChange(ctx context.Context, seq int64) (*ShownChange, error) {
	var res *clientv3.GetResponse
	if err := s.attempt(ctx, func(ctx context.Context) (err error) {
		res, err = s.cli.Get(ctx, s.changeKey(seq))
		return err
	}); err != nil {
		return nil, fmt.Errorf("store: read change %d: %w", seq, err)
	}
	if len(res.Kvs) == 0 {
		return nil, fmt.Errorf("store: change %d: %w", seq, ErrNotFound)
	}
	var r changeRecord
	if err := json.Unmarshal(res.Kvs[0].Value, &r); err != nil {
		return nil, fmt.Errorf("store: change %d is malformed: %w", seq, err)
	}
	for n := range r.Chunks {
		ops, err := s.readChunk(ctx, r.ID, n)
		if err != nil {
			return nil, err
		}
		r.Ops = append(r.Ops, ops...)
	}
	out := &ShownChange{ChangeInfo: r.info()}
	for _, op := range r.Ops {
		kc := KeyChange{Key: op.key()}
		kc.Before, kc.BeforeHash = s.shown(kc.Key, op.Before, seq)
		kc.After, kc.AfterHash = s.shown(kc.Key, op.After, seq)
		out.Keys = append(out.Keys, kc)
	}
	return out, nil
}

func (s *Store) shown(k resource.Key, b stored, seq int64) (*resource.Resource, resource.Hash) {
	if b == nil {
		return nil, resource.Hash{}
	}
	r, _, err := s.decode(k, b)
	if err != nil {
		s.log.Warn("resource in the history cannot be read", zap.String("kind", k.Kind), zap.String("mesh", k.Mesh),
			zap.String("name", k.Name), zap.Int64("revision", seq), zap.Error(err))
		return nil, b.hash(k)
	}
	return r, b.hash(k)
}
