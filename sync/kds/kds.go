// Package kds owns the protocol between global and zones as two pure machines, Global and Zone, over the frames of
// proto/kds/v1, and the Set of records whose digests both compare.
//
// It never does I/O, starts no goroutine, reads no clock and takes no logger: frames and time go in, and Ready says which
// frames to send, which delta to apply and what happened. Nothing here but Memo is safe for concurrent use; one goroutine drives a
// machine. Records and encoded frames are shared and never changed.
package kds

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Protocol is the newest version of the protocol that this software speaks. It grows when an end would be misunderstood by one that
// ignores what it doesn't know; docs/kds.md says what each brought.
const Protocol uint32 = 1

// protocols are all versions that this software speaks, newest first. That of the minor version before stays, so that zones and
// global can be upgraded one after the other.
var protocols = []uint32{Protocol}

// common is the newest version that both speak.
func common(ours, theirs []uint32) (version uint32, ok bool) {
	for _, p := range ours {
		if slices.Contains(theirs, p) && p > version {
			version, ok = p, true
		}
	}
	return version, ok
}

// Limits and defaults.
const (
	// DefaultMaxChunk is the size in bytes that a chunk stays under, unless it carries a single larger record.
	DefaultMaxChunk = 1<<20 - 1<<10
	// limitChunk is what a zone accepts at most of a chunk that could have been cut.
	limitChunk = 1 << 20
	// DefaultMaxDelta bounds the bytes of records that a zone collects for one delta.
	DefaultMaxDelta = 1 << 30
	// MaxOffer bounds the bytes of records that a zone offers, some 40,000 services. With as many keys that go at once, a report
	// stays below 16 MiB.
	MaxOffer = 8 << 20
	// DefaultInterval is the time between heartbeats.
	DefaultInterval = 5 * time.Second
	// SilentIntervals is how many intervals without any frame end a stream.
	SilentIntervals = 3
	// auditBytes is how much of its records a zone hashes again at each heartbeat, which takes some milliseconds.
	auditBytes = 8 << 20
	// maxInventory bounds the entries that global collects from one zone.
	maxInventory = 4 << 20
	// maxKinds bounds the kinds of an inventory, and maxKey the bytes of one of its keys.
	maxKinds = 256
	maxKey   = 1 << 10
	// maxProtocols bounds what a refusal says of a zone's protocols.
	maxProtocols = 8
	// inventoryPart is how many entries go into one Inventory frame.
	inventoryPart = 4096
)

// Why a stream ended; the errors in Ready wrap them.
var (
	ErrBadFrame = errors.New("malformed frame or frame out of place")
	ErrSilent   = errors.New("peer is silent")
	ErrRefused  = errors.New("refused")
	// ErrLost: frames went lost or came twice on their way, so that neither end can know what the other waits for. A new stream
	// begins from what each of them holds.
	ErrLost = errors.New("frames are missing or came twice")
)

// KeyFrom reads a key as it travels. The error says what is missing.
func KeyFrom(k *kdsv1.Key) (resource.Key, error) {
	key := resource.Key{Kind: k.GetKind(), Mesh: k.GetMesh(), Name: k.GetName()}
	if key.Kind == "" || key.Name == "" {
		return key, fmt.Errorf("key %q lacks its kind or name", key)
	}
	return key, nil
}

// KeyProto is a key as it travels.
func KeyProto(k resource.Key) *kdsv1.Key {
	return &kdsv1.Key{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name}
}

// NewRecord makes the record of a resource's canonical bytes. It keeps payload.
func NewRecord(key resource.Key, payload []byte) *kdsv1.Record {
	h := resource.HashOf(key, payload)
	return &kdsv1.Record{Key: KeyProto(key), Payload: payload, Hash: h[:]}
}

// check reads a record's key and hash, and verifies that the hash is that of its bytes.
func check(r *kdsv1.Record) (resource.Key, resource.Hash, error) {
	key, err := KeyFrom(r.GetKey())
	if err != nil {
		return key, resource.Hash{}, err
	}
	h := resource.HashOf(key, r.GetPayload())
	if !bytes.Equal(h[:], r.GetHash()) {
		return key, h, fmt.Errorf("record %s: its hash is not that of its bytes", key)
	}
	return key, h, nil
}

// Position says which state an end holds.
type Position struct {
	// Epoch changes with a restore; empty for a zone that never received anything.
	Epoch    string
	Revision uint64
	Digest   resource.Digest
}

// PositionFrom reads a position as it travels; nil gives the empty one. It fails when the digest is malformed.
func PositionFrom(p *kdsv1.Position) (Position, error) {
	digest, err := digestFrom(p.GetDigest())
	return Position{Epoch: p.GetEpoch(), Revision: p.GetRevision(), Digest: digest}, err
}

// Proto is the position as it travels.
func (p Position) Proto() *kdsv1.Position {
	return &kdsv1.Position{Epoch: p.Epoch, Revision: p.Revision, Digest: digestProto(p.Digest)}
}

// String is epoch/revision and the digest, for people.
func (p Position) String() string {
	return fmt.Sprintf("%s/%d %d records %s", cmp.Or(p.Epoch, "-"), p.Revision, p.Digest.Count(), p.Digest)
}

// digestFrom reads a digest as it travels; nil gives that of nothing.
func digestFrom(d *kdsv1.Digest) (resource.Digest, error) {
	if d == nil {
		return resource.Digest{}, nil
	}
	digest, ok := resource.DigestFrom(d.GetSum(), d.GetCount())
	if !ok {
		return resource.Digest{}, fmt.Errorf("digest has %d bytes, not 32", len(d.GetSum()))
	}
	return digest, nil
}

func digestProto(d resource.Digest) *kdsv1.Digest {
	return &kdsv1.Digest{Sum: d.Sum(), Count: d.Count()}
}

// View is what one zone should hold at one revision. It never changes; a newer state is another View.
type View interface {
	// Position is of this view.
	Position() Position
	// Kinds has the digest of each kind of which there are records. Read-only.
	Kinds() map[string]resource.Digest
	// Memo is where the machines of all streams that serve this view keep what they make of it.
	Memo() *Memo
	// Since lists the keys that changed or went after a revision of an epoch; ok is false when the log doesn't reach there.
	Since(epoch string, revision uint64) (keys []resource.Key, ok bool)
	// Get finds a record; ok is false when the view has none of the key.
	Get(key resource.Key) (r *kdsv1.Record, ok bool)
	// Each calls fn for the records of a kind ("" for all), ordered by key, until it returns false.
	Each(kind string, fn func(resource.Key, *kdsv1.Record) bool)
}
