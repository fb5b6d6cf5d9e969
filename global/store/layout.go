package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zoneforge/zoneforge/resource"
)

// head is the one key that orders commits.
type head struct {
	Revision int64    `json:"revision"`
	Seq      int64    `json:"seq"`
	Sum      []byte   `json:"sum"`
	Count    uint64   `json:"count"`
	Pending  *pending `json:"pending,omitempty"`

	epoch string // of the store, read with head
	mod   int64  // etcd's mod revision of head
	at    int64  // etcd's revision when it was read
}

// pending is a committed change whose contents are not in the resource keys yet.
type pending struct {
	ID     string `json:"id"`
	Chunks int    `json:"chunks"`
	// Keep says that the history refers to the chunks.
	Keep bool `json:"keep,omitempty"`
}

func encodeHead(h head) (string, error) {
	b, err := json.Marshal(h)
	return string(b), err
}

func decodeHead(b []byte) (head, error) {
	var h head
	if err := json.Unmarshal(b, &h); err != nil {
		return head{}, fmt.Errorf("store: head is malformed: %w; restore a backup", err)
	}
	return h, nil
}

func (h head) digest() resource.Digest {
	d, _ := resource.DigestFrom(h.Sum, h.Count) // an empty store has no sum yet, and the zero digest is right
	return d
}

func (h *head) setDigest(d resource.Digest) { h.Sum, h.Count = d.Sum(), d.Count() }

// readHead reads it as a quorum of etcd has it.
func (s *Store) readHead(ctx context.Context) (h head, err error) {
	err = s.attempt(ctx, func(ctx context.Context) error {
		res, err := s.cli.Txn(ctx).Then(s.getHead()...).Commit()
		if err == nil {
			h, err = s.headOf(res)
		}
		return err
	})
	if errors.Is(err, errNoHead) {
		if place, err := s.place(ctx); err == nil && place != s.prefix {
			return head{}, fmt.Errorf("store: %w; start again", ErrReplaced)
		}
	}
	if err != nil {
		return head{}, fmt.Errorf("store: read head: %w", err)
	}
	return h, nil
}

var errNoHead = errors.New("head or epoch is missing; restore a backup")

// getHead asks for head with its epoch.
func (s *Store) getHead() []clientv3.Op {
	return []clientv3.Op{clientv3.OpGet(s.prefix + "head"), clientv3.OpGet(s.prefix + "epoch")}
}

// headOf reads the answers to getHead.
func (s *Store) headOf(res *clientv3.TxnResponse) (head, error) {
	kvs, epoch := res.Responses[0].GetResponseRange().GetKvs(), res.Responses[1].GetResponseRange().GetKvs()
	if len(kvs) == 0 || len(epoch) == 0 {
		return head{}, errNoHead
	}
	h, err := decodeHead(kvs[0].Value)
	h.epoch, h.mod, h.at = string(epoch[0].Value), kvs[0].ModRevision, res.Header.Revision
	return h, err
}

// stored is what etcd holds of a resource: a byte that says whether it is sealed, and its bytes.
type stored []byte

const (
	storedPlain  = 'p'
	storedSealed = 's'
)

// hash is over the bytes in etcd, so that a sealed resource's content can't be guessed from it.
func (b stored) hash(k resource.Key) resource.Hash { return resource.HashOf(k, b) }

func (s *Store) encode(r *resource.Resource) (stored, error) {
	plain, err := resource.Marshal(r)
	if err != nil {
		return nil, err
	}
	kind, ok := resource.Lookup(r.Kind)
	if !ok {
		return nil, fmt.Errorf("%w: %s: unknown kind", ErrInvalid, r.Key)
	}
	if !kind.Sensitive {
		return append(stored{storedPlain}, plain...), nil
	}
	if s.cfg.Seal == nil {
		return nil, fmt.Errorf("%w: %s is sensitive and the store has no sealing key; configure a key file", ErrInvalid, r.Key)
	}
	sealed, err := s.cfg.Seal.Seal(plain, r.Key.Path())
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", r.Key, err)
	}
	return append(stored{storedSealed}, sealed...), nil
}

// decode gives the resource and its canonical bytes.
func (s *Store) decode(k resource.Key, b stored) (*resource.Resource, []byte, error) {
	if len(b) == 0 {
		return nil, nil, fmt.Errorf("%s: empty value", k)
	}
	plain := []byte(b[1:])
	switch b[0] {
	case storedPlain:
	case storedSealed:
		if s.cfg.Seal == nil {
			return nil, nil, fmt.Errorf("%s: %w: it is sealed; configure the key file", k, ErrWrongKey)
		}
		var err error
		if plain, err = s.cfg.Seal.Open(plain, k.Path()); err != nil {
			return nil, nil, fmt.Errorf("unseal %s: %w", k, err)
		}
	default:
		return nil, nil, fmt.Errorf("%s: unknown encoding %q", k, b[0])
	}
	r, err := resource.Unmarshal(k, plain)
	return r, plain, err
}

// resValue is a resource key's value: the revision that wrote it, then the stored bytes.
func resValue(revision int64, b stored) string {
	return string(append(binary.BigEndian.AppendUint64(nil, uint64(revision)), b...))
}

func splitValue(v []byte) (int64, stored, error) {
	if len(v) < 9 {
		return 0, nil, fmt.Errorf("value of %d bytes is too short", len(v))
	}
	return int64(binary.BigEndian.Uint64(v)), stored(v[8:]), nil
}

func (s *Store) resKey(k resource.Key) string {
	return s.prefix + "res/" + url.PathEscape(k.Kind) + "/" + url.PathEscape(k.Mesh) + "/" + url.PathEscape(k.Name)
}

func (s *Store) parseResKey(key string) (resource.Key, bool) {
	rest, ok := strings.CutPrefix(key, s.prefix+"res/")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return resource.Key{}, false
	}
	for i, p := range parts {
		u, err := url.PathUnescape(p)
		if err != nil {
			return resource.Key{}, false
		}
		parts[i] = u
	}
	return resource.Key{Kind: parts[0], Mesh: parts[1], Name: parts[2]}, true
}

func (s *Store) changeKey(seq int64) string  { return fmt.Sprintf("%schange/%020d", s.prefix, seq) }
func (s *Store) stagingKey(id string) string { return s.prefix + "staging/" + id }
func (s *Store) opsPrefix(id string) string  { return s.prefix + "ops/" + id + "/" }
func (s *Store) opsKey(id string, n int) string {
	return fmt.Sprintf("%s%08d", s.opsPrefix(id), n)
}

// opRecord is one key of a change, in history entries and staged chunks. Nil contents mean absence.
type opRecord struct {
	Kind   string `json:"kind"`
	Mesh   string `json:"mesh,omitempty"`
	Name   string `json:"name"`
	Before stored `json:"before,omitempty"`
	After  stored `json:"after,omitempty"`
}

func (o opRecord) key() resource.Key { return resource.Key{Kind: o.Kind, Mesh: o.Mesh, Name: o.Name} }

// size estimates a record's bytes in JSON, where contents are in base64.
func (o opRecord) size() int {
	return 128 + len(o.Kind) + len(o.Mesh) + len(o.Name) + (len(o.Before)+len(o.After))*4/3
}

// changeRecord is a history entry. Its contents are in Ops or, for a large one, in Chunks chunks of ID.
type changeRecord struct {
	Seq      int64      `json:"seq"`
	Revision int64      `json:"revision"`
	Author   string     `json:"author"`
	Message  string     `json:"message"`
	Time     time.Time  `json:"time"`
	Ops      []opRecord `json:"ops,omitempty"`
	ID       string     `json:"id,omitempty"`
	Chunks   int        `json:"chunks,omitempty"`
	Count    int        `json:"count"`
	// By tells the commit that wrote it, when its answer was lost.
	By string `json:"by,omitempty"`
}

// readChunk reads one chunk of staged contents; they never change once written.
func (s *Store) readChunk(ctx context.Context, id string, n int) ([]opRecord, error) {
	key := s.opsKey(id, n)
	var res *clientv3.GetResponse
	if err := s.attempt(ctx, func(ctx context.Context) (err error) {
		res, err = s.cli.Get(ctx, key)
		return err
	}); err != nil {
		return nil, fmt.Errorf("store: read %s: %w", key, err)
	}
	if len(res.Kvs) == 0 {
		return nil, fmt.Errorf("store: %s: %w", key, errChunkGone)
	}
	var ops []opRecord
	if err := json.Unmarshal(res.Kvs[0].Value, &ops); err != nil {
		return nil, fmt.Errorf("store: %s is malformed: %w; restore a backup", key, err)
	}
	return ops, nil
}

// errChunkGone: the chunk was removed after a roll-out by another replica; a reload finds the result.
var errChunkGone = errors.New("chunk is gone")

// ifHead is the guard of every write.
func (s *Store) ifHead(h head) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(s.prefix+"head"), "=", h.mod)
}
