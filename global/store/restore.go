package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zoneforge/zoneforge/backup"
	"github.com/zoneforge/zoneforge/resource"
)

// restoredPart holds the layouts of restored backups, one an epoch, of which current names one. Each has a key begun until it
// is the current one.
const (
	restoredPart = "restored/"
	begunName    = "begun"
	// reachTimeout bounds the start of an embedded etcd, and the first answers of any.
	reachTimeout = time.Minute
)

// Restored says what a Restore did.
type Restored struct {
	// Epoch and Revision of the store from now on.
	Epoch    string
	Revision int64
	// From is the backup's head, and Counts what it held.
	From   backup.Head
	Counts backup.Counts
	// Replaced is the revision of what was there, of the epoch ReplacedEpoch; both are empty for an empty store.
	Replaced      int64
	ReplacedEpoch string
	// Files are the backup's, in plain.
	Files []backup.File
}

// Restore puts a backup in place of whatever the store holds, in a new epoch. It is written beside and comes into force by one
// transaction, so that an interruption leaves the old store as it was. A store that holds something is replaced only if replace
// says so; else the error wraps ErrNotEmpty. No process that has the store open writes into it any more: see ErrReplaced. A key
// that doesn't open the backup gives ErrWrongKey.
func Restore(ctx context.Context, cfg Config, in io.Reader, replace bool) (Restored, error) {
	r, err := backup.NewReader(in)
	if err != nil {
		return Restored{}, err
	}
	h := r.Head()
	if h.Store < 1 || h.Store > formatVersion {
		return Restored{}, fmt.Errorf("store: %w: the backup's store has %d, this version knows %d; upgrade the software", ErrNewerFormat, h.Store, formatVersion)
	}
	if cfg.Seal == nil {
		return Restored{}, fmt.Errorf("store: %w: a backup is sealed; configure its key file", ErrWrongKey)
	}
	if _, err := cfg.Seal.Open(h.Mark, []byte(markName)); err != nil {
		return Restored{}, fmt.Errorf("store: %w: %w; the backup needs the key file of the global that made it", ErrWrongKey, err)
	}
	opening, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	s, err := connect(opening, cfg)
	if err != nil {
		return Restored{}, err
	}
	defer s.Close()
	old, err := s.standing(opening)
	if err != nil {
		return Restored{}, err
	}
	return s.restore(ctx, r, old, replace)
}

// standing is what a restore meets.
type standing struct {
	current   int64 // mod revision of the key current; 0 when there is none
	prefix    string
	epoch     string
	ancestors []string
	revision  int64
}

func (s *Store) restore(ctx context.Context, r *backup.Reader, old standing, replace bool) (Restored, error) {
	h := r.Head()
	if old.revision > 0 && !replace {
		return Restored{}, fmt.Errorf("store: %w: it is at revision %d of epoch %s, and the backup at revision %d of epoch %s", ErrNotEmpty,
			old.revision, old.epoch, h.Revision, h.Epoch)
	}
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return Restored{}, fmt.Errorf("store: make an epoch: %w", err)
	}
	out := Restored{Epoch: hex.EncodeToString(raw[:]), From: h, Replaced: old.revision, ReplacedEpoch: old.epoch}
	place := restoredPart + out.Epoch + "/"
	s.prefix = s.base + place
	if err := s.fill(ctx, r, old, &out); err != nil {
		// A sweep finds what this leaves when etcd is away.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, dropErr := s.cli.Delete(ctx, s.prefix, clientv3.WithPrefix())
		return Restored{}, errors.Join(err, dropErr)
	}
	if s.beforeSwitch != nil {
		if err := s.beforeSwitch(); err != nil {
			return Restored{}, err
		}
	}
	then := []clientv3.Op{
		clientv3.OpPut(s.base+"current", place), clientv3.OpPut(s.base+"format", strconv.Itoa(formatMoved)),
		clientv3.OpDelete(s.prefix + begunName),
	}
	if old.prefix != "" {
		then = append(then, clientv3.OpDelete(old.prefix+"head"))
	}
	// What was written may have been swept as nobody's, and another restore may have been faster.
	res, err := s.cli.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(s.base+"current"), "=", old.current),
		clientv3.Compare(clientv3.CreateRevision(s.prefix+begunName), ">", 0)).Then(then...).Commit()
	if err != nil {
		return Restored{}, fmt.Errorf("store: %w: %w", ErrUnknownOutcome, err)
	}
	if !res.Succeeded {
		return Restored{}, fmt.Errorf("store: %w: another backup was restored meanwhile; look what is there now", ErrConflict)
	}
	return out, s.sweepRestored(ctx)
}

// standing reads what is there, which may be damaged: only what newer software wrote is refused.
func (s *Store) standing(ctx context.Context) (standing, error) {
	res, err := s.cli.Get(ctx, s.base+"current")
	if err != nil {
		return standing{}, fmt.Errorf("store: reach etcd: %w", err)
	}
	var out standing
	if len(res.Kvs) == 1 {
		out.current = res.Kvs[0].ModRevision
	}
	place, err := s.place(ctx)
	if err != nil {
		return standing{}, err
	}
	get := func(key string) string {
		r, getErr := s.cli.Get(ctx, key)
		err = errors.Join(err, getErr)
		if getErr != nil || len(r.Kvs) == 0 {
			return ""
		}
		return string(r.Kvs[0].Value)
	}
	format, epoch, ancestors, headText := get(place+"format"), get(place+"epoch"), get(place+"ancestors"), get(place+"head")
	if err != nil {
		return standing{}, fmt.Errorf("store: read what is there: %w", err)
	}
	if v, err := strconv.Atoi(format); err == nil && v > formatVersion {
		return standing{}, fmt.Errorf("store: %w: %d, this version knows %d; upgrade the software", ErrNewerFormat, v, formatVersion)
	}
	if format == "" {
		return out, nil
	}
	out.prefix, out.epoch, out.revision = place, epoch, 1
	_ = json.Unmarshal([]byte(ancestors), &out.ancestors) // damaged ones are about to be replaced
	if h, err := decodeHead([]byte(headText)); err == nil {
		out.revision = h.Revision
	}
	return out, nil
}

// fill writes the layout of the new epoch from the backup.
func (s *Store) fill(ctx context.Context, r *backup.Reader, old standing, out *Restored) error {
	h := out.From
	b := &batch{s: s}
	b.put(ctx, begunName, time.Now().UTC().Format(time.RFC3339))
	b.flush(ctx)
	var digest resource.Digest
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch {
		case e.Resource != nil:
			k := resource.Key{Kind: e.Resource.Kind, Mesh: e.Resource.Mesh, Name: e.Resource.Name}
			digest.Add(stored(e.Resource.Content).hash(k))
			b.put(ctx, strings.TrimPrefix(s.resKey(k), s.prefix), resValue(e.Resource.Revision, e.Resource.Content))
		case e.Change != nil:
			b.put(ctx, strings.TrimPrefix(s.changeKey(e.Change.Seq), s.prefix), string(e.Change.Value))
		case e.Chunk != nil:
			b.put(ctx, strings.TrimPrefix(s.opsKey(e.Chunk.ID, e.Chunk.N), s.prefix), string(e.Chunk.Value))
		case e.File != nil:
			plain, err := s.cfg.Seal.Open(e.File.Content, fileSeal(e.File.Name))
			if err != nil {
				return fmt.Errorf("store: open %s of the backup: %w: %w", e.File.Name, ErrWrongKey, err)
			}
			out.Files = append(out.Files, backup.File{Name: e.File.Name, Content: plain})
		}
	}
	out.Counts = r.Counts()
	was := head{Sum: h.Sum, Count: h.Count}
	if digest != was.digest() {
		return fmt.Errorf("store: %w: its resources are not those of its head; take another backup", backup.ErrDamaged)
	}
	mark, err := s.cfg.Seal.Seal([]byte(markText), []byte(s.prefix+"seal"))
	if err != nil {
		return fmt.Errorf("store: seal: %w", err)
	}
	ancestors := append([]string{h.Epoch}, h.Ancestors...)
	if old.epoch != "" {
		ancestors = append(append(ancestors, old.epoch), old.ancestors...)
	}
	lineage, err := json.Marshal(unique(ancestors))
	if err != nil {
		return err
	}
	out.Revision = h.Revision + 1
	next := head{Revision: out.Revision, Seq: h.Seq + 1, Sum: h.Sum, Count: h.Count}
	headText, err := encodeHead(next)
	if err != nil {
		return err
	}
	message := fmt.Sprintf("restored the backup of %s, at revision %d of epoch %s", h.Time.Format(time.RFC3339), h.Revision, h.Epoch)
	if old.revision > 0 {
		message += fmt.Sprintf("; it replaces revision %d of epoch %s", old.revision, old.epoch)
	}
	entry, err := json.Marshal(changeRecord{Seq: next.Seq, Revision: next.Revision, Author: "zoneforge restore", Message: message, Time: time.Now().UTC()})
	if err != nil {
		return err
	}
	b.put(ctx, strings.TrimPrefix(s.changeKey(next.Seq), s.prefix), string(entry))
	b.put(ctx, "ancestors", string(lineage))
	b.put(ctx, "seal", string(mark))
	b.put(ctx, "epoch", out.Epoch)
	b.put(ctx, "head", headText)
	b.put(ctx, "format", strconv.Itoa(h.Store))
	b.flush(ctx)
	return b.err
}

// batch gathers puts into transactions.
type batch struct {
	s    *Store
	ops  []clientv3.Op
	size int
	err  error // the first
}

func (b *batch) put(ctx context.Context, name, value string) {
	if n := len(name) + len(value); len(b.ops) == maxTxnOps || b.size+n > maxTxnBytes {
		b.flush(ctx)
	}
	b.ops, b.size = append(b.ops, clientv3.OpPut(b.s.prefix+name, value)), b.size+len(name)+len(value)
}

func (b *batch) flush(ctx context.Context) {
	if b.err == nil && len(b.ops) > 0 {
		if _, err := b.s.cli.Txn(ctx).Then(b.ops...).Commit(); err != nil {
			b.err = fmt.Errorf("store: write the backup's content: %w", err)
		}
	}
	b.ops, b.size = nil, 0
}

func unique(in []string) (out []string) {
	seen := map[string]bool{}
	for _, one := range in {
		if one != "" && !seen[one] {
			out = append(out, one)
		}
		seen[one] = true
	}
	return out
}

// place is the prefix of the layout that is in force.
func (s *Store) place(ctx context.Context) (string, error) {
	res, err := s.cli.Get(ctx, s.base+"current")
	if err != nil {
		return "", fmt.Errorf("store: reach etcd: %w", err)
	}
	if len(res.Kvs) == 0 {
		return s.base, nil
	}
	place := string(res.Kvs[0].Value)
	if !strings.HasPrefix(place, restoredPart) || !strings.HasSuffix(place, "/") || strings.Count(place, "/") != 2 {
		return "", fmt.Errorf("store: %scurrent is %q, not a place; delete all keys below %s and restore a backup", s.base, place, s.base)
	}
	return s.base + place, nil
}

// sweepRestored removes the layouts that a restored one has replaced, and those that were begun and given up. In a cluster another
// process may be restoring right now, so there only old ones count.
func (s *Store) sweepRestored(ctx context.Context) error {
	for {
		res, err := s.cli.Get(ctx, s.base+"current")
		if err != nil {
			return fmt.Errorf("store: reach etcd: %w", err)
		}
		inForce := clientv3.Compare(clientv3.ModRevision(s.base+"current"), "=", 0)
		if len(res.Kvs) == 1 {
			inForce = clientv3.Compare(clientv3.ModRevision(s.base+"current"), "=", res.Kvs[0].ModRevision)
		}
		if place, err := s.place(ctx); err != nil || place != s.prefix {
			return err // replaced meanwhile: what to remove is for who replaced it
		}
		removals, err := s.replaced(ctx)
		if err != nil || len(removals) == 0 {
			return err
		}
		done, err := s.cli.Txn(ctx).If(inForce).Then(removals...).Commit()
		if err != nil {
			return fmt.Errorf("store: remove what was replaced: %w", err)
		}
		if done.Succeeded {
			return nil
		}
	}
}

// replaced gives the removals of all layouts but the one in force.
func (s *Store) replaced(ctx context.Context) ([]clientv3.Op, error) {
	var out []clientv3.Op
	if s.prefix != s.base {
		for _, part := range []string{"res/", "change/", "ops/", "staging/", "claim/"} {
			out = append(out, clientv3.OpDelete(s.base+part, clientv3.WithPrefix()))
		}
		for _, key := range []string{"epoch", "seal", "head", "ancestors", "backup"} {
			out = append(out, clientv3.OpDelete(s.base+key))
		}
	}
	end := clientv3.GetPrefixRangeEnd(s.base + restoredPart)
	for from := s.base + restoredPart; len(out) < maxTxnOps; {
		res, err := s.cli.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(1))
		if err != nil {
			return nil, fmt.Errorf("store: look for replaced backups: %w", err)
		}
		if len(res.Kvs) == 0 {
			break
		}
		epoch, _, _ := strings.Cut(strings.TrimPrefix(string(res.Kvs[0].Key), s.base+restoredPart), "/")
		other := s.base + restoredPart + epoch + "/"
		from = clientv3.GetPrefixRangeEnd(other)
		if other == s.prefix {
			continue
		}
		begun, err := s.cli.Get(ctx, other+begunName)
		if err != nil {
			return nil, fmt.Errorf("store: look for replaced backups: %w", err)
		}
		if len(begun.Kvs) == 1 && s.cfg.DataDir == "" {
			if at, err := time.Parse(time.RFC3339, string(begun.Kvs[0].Value)); err == nil && time.Since(at) < stagingLife {
				continue
			}
		}
		out = append(out, clientv3.OpDelete(other, clientv3.WithPrefix()))
	}
	return out, nil
}
