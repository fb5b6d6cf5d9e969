package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/resource"
)

// etcd refuses transactions above 128 operations or 1.5 MiB; these limits leave room for head and the history entry.
const (
	maxTxnOps   = 100
	maxTxnBytes = 1 << 20
	maxChunk    = 512 << 10
	// maxPayload bounds one resource, so that its contents before and after fit one chunk in base64.
	maxPayload = 384 << 10
	maxMessage = 64 << 10
	// stagingLife is how long after its beginning another replica sweeps what one stages: their clocks may be two hours apart.
	stagingLife = 4 * time.Hour
)

// Op puts or deletes one resource; exactly one of Put and Delete is set.
type Op struct {
	Key    resource.Key
	Put    *resource.Resource
	Delete bool
	// IfRevision, when set, is the revision that the resource must be at; 0 means that it must not exist.
	IfRevision *int64
}

// Change is what is committed whole or not at all.
type Change struct {
	Author, Message string
	// Time of the change; the current time when zero.
	Time time.Time
	Ops  []Op
	// Internal changes, such as what zones report, get no history entry.
	Internal bool
	// Claims in whose names it is written; ErrSuperseded when another has one of them.
	Claims []Claim
}

// Committed says where a change went.
type Committed struct {
	// Seq is the history number; 0 for an internal change.
	Seq int64
	// Revision of the store, and of every resource that the change put. It grows by one with every commit.
	Revision int64
}

// Commit stores a change with its history entry. A resource that isn't at its op's IfRevision, or that another writer
// touched while this commit was under way, gives ErrConflict with the key, and nothing is stored; so it is with ErrUnavailable,
// ErrNoSpace and ErrSuperseded. A change that cannot be stored as it is gives ErrInvalid, and ErrFull says that the embedded
// store's disk has no room left. When etcd is lost in the decisive moment and does not come back it is ErrUnknownOutcome.
func (s *Store) Commit(ctx context.Context, c Change) (Committed, error) {
	if err := check(c); err != nil {
		return Committed{}, err
	}
	if c.Time.IsZero() {
		c.Time = time.Now()
	}
	after := make([]stored, len(c.Ops))
	for i, op := range c.Ops {
		if op.Put == nil {
			continue
		}
		b, err := s.encode(op.Put)
		if err != nil {
			return Committed{}, fmt.Errorf("store: %w", err)
		}
		if len(b) > maxPayload {
			return Committed{}, fmt.Errorf("store: %w: %s has %d bytes, above the limit of %d", ErrInvalid, op.Key, len(b), maxPayload)
		}
		after[i] = b
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return Committed{}, fmt.Errorf("store: commit: %w", ctx.Err())
	}
	if s.cfg.DataDir != "" {
		if err := room(s.cfg.DataDir, s.roomToWrite); err != nil {
			return Committed{}, err
		}
	}
	by, err := random()
	if err != nil {
		return Committed{}, err
	}
	claims := slices.DeleteFunc(slices.Clone(c.Claims), func(c Claim) bool { return c == Claim{} })
	return (&commit{s: s, change: c, claims: claims, after: after, by: by}).run(ctx)
}

func check(c Change) error {
	if len(c.Ops) == 0 {
		return fmt.Errorf("store: %w: it has no operations", ErrInvalid)
	}
	if len(c.Message)+len(c.Author) > maxMessage {
		return fmt.Errorf("store: %w: author and message are above %d bytes", ErrInvalid, maxMessage)
	}
	seen := make(map[resource.Key]bool, len(c.Ops))
	var errs []error
	for _, op := range c.Ops {
		bad := func(why string) { errs = append(errs, fmt.Errorf("store: %w: %s: %s", ErrInvalid, op.Key, why)) }
		kind, ok := resource.Lookup(op.Key.Kind)
		switch {
		case !ok:
			bad("unknown kind")
		case op.Key.Name == "":
			bad("it has no name")
		case kind.Global() != (op.Key.Mesh == ""):
			bad("a mesh is given for a global kind, or missing for another")
		case (op.Put != nil) == op.Delete:
			bad("either put or delete must be set")
		case op.Put != nil && op.Put.Key != op.Key:
			bad("the resource to put is " + op.Put.Key.String())
		case op.Put != nil && op.Put.Spec == nil:
			bad("the resource has no spec")
		case seen[op.Key]:
			bad("it occurs twice")
		}
		seen[op.Key] = true
	}
	return errors.Join(errs...)
}

// commit is one change on its way.
type commit struct {
	s      *Store
	change Change
	claims []Claim // those that guard something
	after  []stored

	first  []found // of each op, as first read; nil before
	id     string  // of the staged chunks; empty before
	chunks int
	by     string // tells this commit from others in the history
	// tried is the head of an attempt whose answer was lost; nil before.
	tried *head
}

// found is a resource as etcd holds it; revision 0 means that it doesn't exist.
type found struct {
	revision int64
	content  stored
}

func (c *commit) run(ctx context.Context) (Committed, error) {
	s := c.s
	for {
		h, err := s.readHead(ctx)
		if err != nil {
			return Committed{}, c.giveUp(ctx, err)
		}
		if k := s.known(); h.wentBack(k) {
			if err := s.beginEpoch(ctx, k); err != nil {
				return Committed{}, c.giveUp(ctx, err)
			}
			continue
		}
		if done, ok, err := c.happened(ctx, h); err != nil || ok {
			return done, err
		}
		if h.Pending != nil {
			if err := s.rollOut(ctx, h); err != nil {
				return Committed{}, c.giveUp(ctx, fmt.Errorf("store: finish change of revision %d first: %w", h.Revision, err))
			}
			continue
		}
		if err := c.guard(ctx, h); err != nil {
			return Committed{}, c.giveUp(ctx, err)
		}
		next, ops, err := c.prepare(ctx, h)
		if err != nil {
			return Committed{}, c.giveUp(ctx, err)
		}
		guards := []clientv3.Cmp{s.ifHead(h)}
		if c.id != "" {
			// Another replica may have swept the chunks as nobody's; with the mark they are all there.
			guards = append(guards, clientv3.Compare(clientv3.CreateRevision(s.stagingKey(c.id)), ">", 0))
			ops = append(ops, clientv3.OpDelete(s.stagingKey(c.id)))
		}
		var otherwise []clientv3.Op
		for _, claim := range c.claims {
			guards = append(guards, claim.holds())
			otherwise = append(otherwise, clientv3.OpGet(claim.key))
		}
		var res *clientv3.TxnResponse
		err = s.once(ctx, func(ctx context.Context) (err error) {
			res, err = s.cli.Txn(ctx).If(guards...).Then(ops...).Else(otherwise...).Commit()
			return err
		})
		switch {
		case err == nil:
		case errors.Is(err, rpctypes.ErrNoSpace):
			return Committed{}, c.giveUp(ctx, writeError(err))
		case transient(err) && ctx.Err() == nil:
			// It may have happened, or may yet happen in a member that was stopped. When another attempt succeeds, or anything
			// else is committed, its guard has failed for good.
			c.tried = &next
			pause(ctx, attemptPause)
			continue
		default:
			// Staged chunks stay, as the commit may have happened and need them.
			return Committed{}, fmt.Errorf("store: %w: %w", ErrUnknownOutcome, err)
		}
		if !res.Succeeded {
			if !held(c.claims, res) {
				return Committed{}, c.giveUp(ctx, fmt.Errorf("store: %w", ErrSuperseded))
			}
			continue
		}
		done := Committed{Revision: next.Revision}
		if !c.change.Internal {
			done.Seq = next.Seq
		}
		if next.Pending != nil {
			next.mod = res.Header.Revision
			if err := s.rollOut(ctx, next); err != nil {
				// It is committed and visible; the next commit or Open of any replica finishes it.
				s.log.Warn("change is committed but not rolled out yet", zap.Int64("revision", next.Revision), zap.Error(err))
			}
		}
		return done, nil
	}
}

// happened finds out whether an attempt whose answer was lost was committed nevertheless. Of an internal change, which has no
// history, it can't: the guards tell then that something was written meanwhile.
func (c *commit) happened(ctx context.Context, h head) (Committed, bool, error) {
	if c.tried == nil || c.change.Internal || h.Revision < c.tried.Revision {
		return Committed{}, false, nil
	}
	var res *clientv3.GetResponse
	if err := c.s.attempt(ctx, func(ctx context.Context) (err error) {
		res, err = c.s.cli.Get(ctx, c.s.changeKey(c.tried.Seq))
		return err
	}); err != nil {
		return Committed{}, false, c.giveUp(ctx, err)
	}
	var r changeRecord
	if len(res.Kvs) == 0 || json.Unmarshal(res.Kvs[0].Value, &r) != nil || r.By != c.by {
		return Committed{}, false, nil
	}
	return Committed{Seq: r.Seq, Revision: r.Revision}, true, nil
}

// giveUp ends a commit that did not happen, as far as is known.
func (c *commit) giveUp(ctx context.Context, err error) error {
	if c.tried != nil && errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("store: %w: %w", ErrUnknownOutcome, err)
	}
	return c.abandon(ctx, err)
}

// abandon removes what was staged and passes err on.
func (c *commit) abandon(ctx context.Context, err error) error {
	if c.id == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, c.s.dropStaged(ctx, c.id))
}

// guard reads the touched keys as of h and compares them with what the change expects.
func (c *commit) guard(ctx context.Context, h head) error {
	now := make([]found, len(c.change.Ops))
	for from := 0; from < len(now); from += maxTxnOps {
		to := min(from+maxTxnOps, len(now))
		gets := make([]clientv3.Op, 0, to-from)
		for _, op := range c.change.Ops[from:to] {
			gets = append(gets, clientv3.OpGet(c.s.resKey(op.Key), clientv3.WithRev(h.at)))
		}
		var res *clientv3.TxnResponse
		if err := c.s.attempt(ctx, func(ctx context.Context) (err error) {
			res, err = c.s.cli.Txn(ctx).Then(gets...).Commit()
			return err
		}); err != nil {
			return fmt.Errorf("store: read the touched resources: %w", err)
		}
		for i, r := range res.Responses {
			kvs := r.GetResponseRange().GetKvs()
			if len(kvs) == 0 {
				continue
			}
			rev, content, err := splitValue(kvs[0].Value)
			if err != nil {
				return fmt.Errorf("store: %s: %w; restore a backup", c.change.Ops[from+i].Key, err)
			}
			now[from+i] = found{revision: rev, content: content}
		}
	}
	for i, op := range c.change.Ops {
		if want := op.IfRevision; want != nil && *want != now[i].revision {
			return fmt.Errorf("store: %w: %s is at revision %d, not %d; read it again and repeat the change",
				ErrConflict, op.Key, now[i].revision, *want)
		}
		if c.first != nil && c.first[i].revision != now[i].revision {
			return fmt.Errorf("store: %w: %s was written by another change meanwhile; read it again and repeat the change",
				ErrConflict, op.Key)
		}
	}
	if c.first == nil {
		c.first = now
	}
	return nil
}

// prepare gives the head after the commit and the writes of its transaction. Contents that don't fit are staged.
func (c *commit) prepare(ctx context.Context, h head) (head, []clientv3.Op, error) {
	s := c.s
	next := head{Revision: h.Revision + 1, Seq: h.Seq}
	if !c.change.Internal {
		next.Seq++
	}
	digest := h.digest()
	records := make([]opRecord, len(c.change.Ops))
	size := 0
	for i, op := range c.change.Ops {
		k := op.Key
		if c.first[i].revision != 0 {
			digest.Remove(c.first[i].content.hash(k))
		}
		if c.after[i] != nil {
			digest.Add(c.after[i].hash(k))
		}
		records[i] = opRecord{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Before: c.first[i].content, After: c.after[i]}
		size += len(c.after[i]) + records[i].size()
	}
	next.setDigest(digest)
	entry := changeRecord{
		Seq: next.Seq, Revision: next.Revision, Author: c.change.Author, Message: c.change.Message,
		Time: c.change.Time.UTC(), Count: len(records), By: c.by,
	}
	var ops []clientv3.Op
	if len(records) <= maxTxnOps && size <= maxTxnBytes {
		entry.Ops = records
		ops = s.writes(next.Revision, records)
	} else {
		if err := c.stage(ctx, records); err != nil {
			return head{}, nil, err
		}
		entry.ID, entry.Chunks = c.id, c.chunks
		next.Pending = &pending{ID: c.id, Chunks: c.chunks, Keep: !c.change.Internal}
	}
	value, err := encodeHead(next)
	if err != nil {
		return head{}, nil, err
	}
	ops = append(ops, clientv3.OpPut(s.prefix+"head", value))
	if !c.change.Internal {
		b, err := json.Marshal(entry)
		if err != nil {
			return head{}, nil, err
		}
		ops = append(ops, clientv3.OpPut(s.changeKey(next.Seq), string(b)))
	}
	return next, ops, nil
}

// writes are the puts and deletes of resource keys.
func (s *Store) writes(revision int64, records []opRecord) []clientv3.Op {
	var ops []clientv3.Op
	for _, r := range records {
		if r.After != nil {
			ops = append(ops, clientv3.OpPut(s.resKey(r.key()), resValue(revision, r.After)))
		} else if r.Before != nil {
			ops = append(ops, clientv3.OpDelete(s.resKey(r.key())))
		}
	}
	return ops
}

// stage writes the contents as chunks. They hold no revision, so a lost race doesn't void them; but they are written anew
// when they are not there any more.
func (c *commit) stage(ctx context.Context, records []opRecord) error {
	s := c.s
	if c.id != "" {
		var res *clientv3.GetResponse
		if err := s.attempt(ctx, func(ctx context.Context) (err error) {
			res, err = s.cli.Get(ctx, s.stagingKey(c.id), clientv3.WithCountOnly())
			return err
		}); err != nil {
			return fmt.Errorf("store: look for staged chunks: %w", err)
		}
		if res.Count > 0 {
			return nil
		}
	}
	id, err := random()
	if err != nil {
		return err
	}
	c.id, c.chunks = id, 0
	if err := s.stagePut(ctx, s.stagingKey(c.id), time.Now().UTC().Format(time.RFC3339)); err != nil {
		return err
	}
	for from := 0; from < len(records); {
		to, size := from, 0
		for to < len(records) && to-from < maxTxnOps && (to == from || size+records[to].size() <= maxChunk) {
			size += records[to].size()
			to++
		}
		b, err := json.Marshal(records[from:to])
		if err != nil {
			return err
		}
		if err := s.stagePut(ctx, s.opsKey(c.id, c.chunks), string(b)); err != nil {
			return err
		}
		c.chunks++
		from = to
	}
	return nil
}

// stagePut may be repeated, as nobody reads what is staged before its commit.
func (s *Store) stagePut(ctx context.Context, key, value string) error {
	if err := s.attempt(ctx, func(ctx context.Context) error {
		_, err := s.cli.Put(ctx, key, value)
		return err
	}); err != nil {
		return fmt.Errorf("store: stage a large change: %w", writeError(err))
	}
	return nil
}

// rollOut writes a pending change's contents into the resource keys, one chunk a transaction, and then clears the mark.
// It may be repeated and run on several replicas at once: every write is the same and guarded by head. That another one
// finished it first is no error.
func (s *Store) rollOut(ctx context.Context, h head) error {
	if s.beforeRollOut != nil {
		if err := s.beforeRollOut(); err != nil {
			return err
		}
	}
	for n := range h.Pending.Chunks {
		records, err := s.readChunk(ctx, h.Pending.ID, n)
		if errors.Is(err, errChunkGone) {
			now, herr := s.readHead(ctx)
			if herr == nil && now.mod != h.mod {
				return nil
			}
		}
		if err != nil {
			return err
		}
		ops := s.writes(h.Revision, records)
		if len(ops) == 0 {
			continue
		}
		var res *clientv3.TxnResponse
		if err := s.attempt(ctx, func(ctx context.Context) (err error) {
			res, err = s.cli.Txn(ctx).If(s.ifHead(h)).Then(ops...).Commit()
			return err
		}); err != nil {
			return fmt.Errorf("store: roll out: %w", writeError(err))
		}
		if !res.Succeeded {
			return nil
		}
	}
	done := h
	done.Pending = nil
	value, err := encodeHead(done)
	if err != nil {
		return err
	}
	ops := []clientv3.Op{clientv3.OpPut(s.prefix+"head", value)}
	if !h.Pending.Keep {
		ops = append(ops, clientv3.OpDelete(s.opsPrefix(h.Pending.ID), clientv3.WithPrefix()))
	}
	if err := s.attempt(ctx, func(ctx context.Context) error {
		_, err := s.cli.Txn(ctx).If(s.ifHead(h)).Then(ops...).Commit()
		return err
	}); err != nil {
		return fmt.Errorf("store: roll out: %w", writeError(err))
	}
	return nil
}

// dropStaged removes chunks that no commit names, as their mark is still there; a mark that is gone means that they are
// committed, or dropped already.
func (s *Store) dropStaged(ctx context.Context, id string) error {
	_, err := s.cli.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(s.stagingKey(id)), ">", 0)).
		Then(clientv3.OpDelete(s.stagingKey(id)), clientv3.OpDelete(s.opsPrefix(id), clientv3.WithPrefix())).Commit()
	if err != nil {
		return fmt.Errorf("store: drop staged chunks: %w", err)
	}
	return nil
}

// sweep drops what was staged and never committed, because a process ended in between. In a cluster another replica may be
// staging right now, so there only old marks count.
func (s *Store) sweep(ctx context.Context) error {
	res, err := s.cli.Get(ctx, s.stagingKey(""), clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("store: look for staged chunks: %w", err)
	}
	for _, kv := range res.Kvs {
		made, err := time.Parse(time.RFC3339, string(kv.Value))
		if s.cfg.DataDir == "" && err == nil && time.Since(made) < stagingLife {
			continue
		}
		if err := s.dropStaged(ctx, strings.TrimPrefix(string(kv.Key), s.stagingKey(""))); err != nil {
			return err
		}
	}
	return nil
}
