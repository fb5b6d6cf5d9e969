package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/backup"
)

// Pages of a backup; values of changes and chunks are up to a megabyte each.
const (
	backupPage      = 100
	backupLargePage = 8
)

// BackupMark is what the store knows of the last backup that was read to its end.
type BackupMark struct {
	Time     time.Time `json:"time"`
	Revision int64     `json:"revision"`
}

// markText is what is sealed to tell keys apart, and markName what binds it to its use.
const (
	markText = "zoneforge"
	markName = "backup"
)

// Backup writes the state as of now, at one revision while others go on writing: resources, history and what seals know of
// their key, with secrets as they are in etcd. Files are plain and sealed here. Of about, the caller sets Software and Domain.
// When it fails midway it says so in the stream.
func (s *Store) Backup(ctx context.Context, out io.Writer, about backup.Head, files []backup.File) (backup.Head, error) {
	if s.cfg.Seal == nil {
		return backup.Head{}, errors.New("store: a backup needs the sealing key; configure a key file")
	}
	h, err := s.settledHead(ctx)
	if err != nil {
		return backup.Head{}, err
	}
	mark, err := s.cfg.Seal.Seal([]byte(markText), []byte(markName))
	if err != nil {
		return backup.Head{}, fmt.Errorf("store: seal: %w", err)
	}
	ancestors, err := s.readAncestors(ctx)
	if err != nil {
		return backup.Head{}, err
	}
	about.Time = time.Now().UTC().Truncate(time.Second)
	about.Epoch, about.Ancestors, about.Revision, about.Seq, about.Store = h.epoch, ancestors, h.Revision, h.Seq, formatVersion
	about.Sum, about.Count, about.Mark = h.Sum, h.Count, mark
	w, err := backup.NewWriter(out, about)
	if err == nil {
		err = s.write(ctx, w, h.at, files)
	}
	if err != nil {
		if w != nil {
			_ = w.Fail("the store failed while it was read") // who hung up doesn't hear it
		}
		return backup.Head{}, err
	}
	if err := w.Close(); err != nil {
		return backup.Head{}, err
	}
	done, err := json.Marshal(BackupMark{Time: about.Time, Revision: about.Revision})
	if err == nil {
		_, err = s.cli.Put(ctx, s.prefix+"backup", string(done))
	}
	if err != nil {
		s.log.Warn("when the last backup was made is not noted", zap.Error(err))
	}
	return about, nil
}

// LastBackup says when a backup of this store was last read to its end; the zero mark when never.
func (s *Store) LastBackup(ctx context.Context) (BackupMark, error) {
	res, err := s.cli.Get(ctx, s.prefix+"backup")
	var m BackupMark
	if err == nil && len(res.Kvs) == 1 {
		err = json.Unmarshal(res.Kvs[0].Value, &m)
	}
	if err != nil {
		return BackupMark{}, fmt.Errorf("store: read when the last backup was made: %w", err)
	}
	return m, nil
}

// settledHead is a head without a pending change.
func (s *Store) settledHead(ctx context.Context) (head, error) {
	for {
		h, err := s.readHead(ctx)
		if err != nil || h.Pending == nil {
			return h, err
		}
		if err := s.rollOut(ctx, h); err != nil {
			return head{}, fmt.Errorf("store: finish change of revision %d first: %w", h.Revision, err)
		}
	}
}

// write writes all entries as of one revision of etcd.
func (s *Store) write(ctx context.Context, w *backup.Writer, at int64, files []backup.File) error {
	for _, f := range files {
		sealed, err := s.cfg.Seal.Seal(f.Content, fileSeal(f.Name))
		if err == nil {
			err = w.Write(backup.Entry{File: &backup.File{Name: f.Name, Content: sealed}})
		}
		if err != nil {
			return fmt.Errorf("store: %s: %w", f.Name, err)
		}
	}
	if err := s.page(ctx, "res/", at, backupPage, func(key string, value []byte, _ int64) error {
		k, ok := s.parseResKey(key)
		if !ok {
			return nil // somebody else's, as load says
		}
		revision, content, err := splitValue(value)
		if err != nil {
			return fmt.Errorf("store: %s: %w", k, err)
		}
		return w.Write(backup.Entry{Resource: &backup.Resource{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Revision: revision, Content: content}})
	}); err != nil {
		return err
	}
	return s.page(ctx, "change/", at, backupLargePage, func(key string, value []byte, _ int64) error {
		var r changeRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("store: %s is malformed: %w", key, err)
		}
		for n := range r.Chunks {
			res, err := s.cli.Get(ctx, s.opsKey(r.ID, n), clientv3.WithRev(at))
			if err != nil {
				return fmt.Errorf("store: read the contents of change %d: %w", r.Seq, err)
			}
			if len(res.Kvs) != 1 {
				return fmt.Errorf("store: contents of change %d are missing", r.Seq)
			}
			if err := w.Write(backup.Entry{Chunk: &backup.Chunk{ID: r.ID, N: n, Value: res.Kvs[0].Value}}); err != nil {
				return err
			}
		}
		return w.Write(backup.Entry{Change: &backup.Change{Seq: r.Seq, Value: slices.Clone(value)}})
	})
}

// page reads all keys below a part of the layout as of one revision of etcd.
func (s *Store) page(ctx context.Context, part string, at int64, size int64, each func(key string, value []byte, mod int64) error) error {
	from := s.prefix + part
	end := clientv3.GetPrefixRangeEnd(from)
	for {
		res, err := s.cli.Get(ctx, from, clientv3.WithRange(end), clientv3.WithRev(at), clientv3.WithLimit(size))
		if err != nil {
			return fmt.Errorf("store: read: %w", err)
		}
		for _, kv := range res.Kvs {
			if err := each(string(kv.Key), kv.Value, kv.ModRevision); err != nil {
				return err
			}
		}
		if !res.More || len(res.Kvs) == 0 {
			return nil
		}
		from = string(res.Kvs[len(res.Kvs)-1].Key) + "\x00"
	}
}

func fileSeal(name string) []byte { return []byte("backup file " + name) }
