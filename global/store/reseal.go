package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zoneforge/zoneforge/resource"
)

// KeyUse says what a key of the key file has sealed.
type KeyUse struct {
	Key string `json:"key"`
	// Resources that are there now, and changes of the history with some of their contents.
	Resources int `json:"resources"`
	Changes   int `json:"changes"`
}

// sealMark is bound to its place; the key that sealed it opens the store.
const sealMark = "seal"

// resealBatch is how many resources are sealed anew in one commit.
const resealBatch = 20

// KeyUses reads the whole store, and says for each key that something is sealed with what that is, ordered by key. The mark of the store counts
// for a resource.
func (s *Store) KeyUses(ctx context.Context) ([]KeyUse, error) {
	uses := map[string]*KeyUse{}
	use := func(sealed []byte) *KeyUse {
		key := s.cfg.Seal.KeyOf(sealed)
		if uses[key] == nil {
			uses[key] = &KeyUse{Key: key}
		}
		return uses[key]
	}
	if s.cfg.Seal == nil {
		return nil, errors.New("store: it has no sealing key; configure a key file")
	}
	h, err := s.settledHead(ctx)
	if err != nil {
		return nil, err
	}
	err = s.sealedOf(ctx, h.at, func(_ resource.Key, _ int64, sealed []byte) { use(sealed).Resources++ }, func(v historic) error {
		of := map[*KeyUse]bool{}
		for _, sealed := range v.sealed() {
			of[use(sealed)] = true
		}
		for u := range of {
			u.Changes++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	mark, err := s.cli.Get(ctx, s.prefix+sealMark)
	if err != nil {
		return nil, fmt.Errorf("store: read: %w", err)
	}
	for _, kv := range mark.Kvs {
		use(kv.Value).Resources++
	}
	out := make([]KeyUse, 0, len(uses))
	for _, key := range slices.Sorted(maps.Keys(uses)) {
		out = append(out, *uses[key])
	}
	return out, nil
}

// Reseal seals with the first key all that is sealed with another one, and returns how much that was. What it did stands, so that it goes
// on from there when it is called again, by any replica. Others may write meanwhile. What this version can't read it leaves.
func (s *Store) Reseal(ctx context.Context) (done int, err error) {
	if s.cfg.Seal == nil {
		return 0, errors.New("store: it has no sealing key; configure a key file")
	}
	resources, err := s.resealResources(ctx)
	if err != nil {
		return resources, err
	}
	changes, err := s.resealHistory(ctx)
	if done = resources + changes; err != nil {
		return done, err
	}
	// Last, as the mark is what a start asks for.
	name := s.prefix + sealMark
	res, err := s.cli.Get(ctx, name)
	if err != nil {
		return done, fmt.Errorf("store: read %s: %w", name, err)
	}
	for _, kv := range res.Kvs {
		if !s.old(kv.Value) {
			continue
		}
		sealed, err := s.resealed(kv.Value, []byte(name))
		if err == nil {
			err = s.replace(ctx, kv.ModRevision, name, sealed)
		}
		if err != nil {
			return done, fmt.Errorf("store: seal %s: %w", name, err)
		}
		done++
	}
	return done, nil
}

// old says that sealed bytes are of another key than the one that seals now.
func (s *Store) old(sealed []byte) bool { return s.cfg.Seal.KeyOf(sealed) != s.cfg.Seal.IDs()[0] }

func (s *Store) resealed(sealed, aad []byte) ([]byte, error) {
	plain, err := s.cfg.Seal.Open(sealed, aad)
	if err != nil {
		return nil, err
	}
	return s.cfg.Seal.Seal(plain, aad)
}

// resealResources puts resources as they are, by commits like any other: their digest is over what is sealed.
func (s *Store) resealResources(ctx context.Context) (done int, err error) {
	for tries := 0; ; tries++ {
		h, err := s.settledHead(ctx)
		if err != nil {
			return done, err
		}
		var ops []Op
		conflicts := 0
		commit := func() error {
			if len(ops) == 0 {
				return nil
			}
			n := len(ops)
			_, err := s.Commit(ctx, Change{Author: "zoneforge", Message: "sealed anew", Ops: ops, Internal: true})
			if ops = nil; errors.Is(err, ErrConflict) {
				conflicts++ // somebody wrote one of them; what is left is found in the next round
				return nil
			}
			if err == nil {
				done += n
			}
			return err
		}
		var failed error
		if err := s.sealedOf(ctx, h.at, func(k resource.Key, revision int64, sealed []byte) {
			if failed != nil || !s.old(sealed) {
				return
			}
			r, _, err := s.decode(k, append(stored{storedSealed}, sealed...))
			if err != nil {
				return // KeyUses still tells of it
			}
			if ops = append(ops, Op{Key: k, Put: r, IfRevision: &revision}); len(ops) >= resealBatch {
				failed = commit()
			}
		}, nil); err != nil {
			return done, err
		}
		if failed == nil {
			failed = commit()
		}
		if failed != nil || conflicts == 0 {
			return done, failed
		}
		if tries >= 10 {
			return done, fmt.Errorf("store: %w: resources change all the time; repeat it", ErrConflict)
		}
	}
}

// resealHistory rewrites the contents of changes, which nothing else does.
func (s *Store) resealHistory(ctx context.Context) (done int, err error) {
	h, err := s.settledHead(ctx)
	if err != nil {
		return 0, err
	}
	err = s.sealedOf(ctx, h.at, nil, func(v historic) error {
		value, changed, err := v.reseal(s)
		if err != nil || !changed {
			return err
		}
		if err := s.replace(ctx, v.mod, v.key, value); err != nil {
			return fmt.Errorf("store: seal %s: %w", v.key, err)
		}
		done++
		return nil
	})
	return done, err
}

// replace writes a key that nobody wrote since; one that is gone stays so.
func (s *Store) replace(ctx context.Context, mod int64, key string, value []byte) error {
	return s.attempt(ctx, func(ctx context.Context) error {
		_, err := s.cli.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", mod)).Then(clientv3.OpPut(key, string(value))).Commit()
		return err
	})
}

// historic is a value of the history: a change, or a chunk of the contents of a large one.
type historic struct {
	key    string
	mod    int64
	record *changeRecord // nil for a chunk
	ops    []opRecord
}

func (v historic) sealed() (out [][]byte) {
	for _, op := range v.ops {
		for _, b := range []stored{op.Before, op.After} {
			if len(b) > 0 && b[0] == storedSealed {
				out = append(out, b[1:])
			}
		}
	}
	return out
}

// reseal gives the value with the contents sealed by the first key. Contents that can't be opened stay, and so does a value that
// holds what this version doesn't know.
func (v historic) reseal(s *Store) (value []byte, changed bool, err error) {
	for i := range v.ops {
		aad := v.ops[i].key().Path()
		for _, b := range []*stored{&v.ops[i].Before, &v.ops[i].After} {
			if len(*b) == 0 || (*b)[0] != storedSealed || !s.old((*b)[1:]) {
				continue
			}
			sealed, err := s.resealed((*b)[1:], aad)
			if err != nil {
				continue // KeyUses still tells of it
			}
			*b, changed = append(stored{storedSealed}, sealed...), true
		}
	}
	if !changed {
		return nil, false, nil
	}
	if v.record != nil {
		v.record.Ops = v.ops
		value, err = json.Marshal(v.record)
	} else {
		value, err = json.Marshal(v.ops)
	}
	return value, true, err
}

// sealedOf reads the sealed resources and the history as of one revision of etcd; either function may be nil.
func (s *Store) sealedOf(ctx context.Context, at int64, resources func(k resource.Key, revision int64, sealed []byte), history func(historic) error) error {
	if resources != nil {
		if err := s.page(ctx, "res/", at, backupPage, func(key string, value []byte, _ int64) error {
			k, ok := s.parseResKey(key)
			revision, content, err := splitValue(value)
			if ok && err == nil && len(content) > 0 && content[0] == storedSealed {
				resources(k, revision, content[1:])
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if history == nil {
		return nil
	}
	for _, part := range []string{"change/", "ops/"} {
		if err := s.page(ctx, part, at, backupLargePage, func(key string, value []byte, mod int64) error {
			v := historic{key: key, mod: mod}
			var into any = &v.ops
			if part == "change/" {
				v.record = &changeRecord{}
				into = v.record
			}
			known := json.NewDecoder(bytes.NewReader(value))
			known.DisallowUnknownFields()
			if err := known.Decode(into); err != nil {
				return fmt.Errorf("store: %s can't be read: %w; use the version that wrote it", key, err)
			}
			if v.record != nil {
				v.ops = v.record.Ops
			}
			return history(v)
		}); err != nil {
			return err
		}
	}
	return nil
}
