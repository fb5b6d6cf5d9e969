package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
)

const (
	lockName = "zoneforge.lock"
	etcdName = "etcd"
)

// startEmbedded starts a single etcd in dir that listens on nothing: its only client is in this process.
func startEmbedded(ctx context.Context, dir string, log *zap.Logger) (*clientv3.Client, func(), error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, nil, err
	}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, etcdName)
	need := uint64(roomToOpen)
	if _, err := os.Lstat(cfg.Dir); errors.Is(err, os.ErrNotExist) {
		need = roomToMake
	}
	if err := room(dir, need); err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	// While it starts, etcd warns of listening on one port and of having no peers, as it is meant to be here.
	level := zap.NewAtomicLevelAt(zap.ErrorLevel)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log.WithOptions(zap.IncreaseLevel(level)))
	// The history is kept in keys of its own, so etcd's old revisions serve only watchers that are briefly behind.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("store: start etcd in %s: %w", cfg.Dir, err), lock.Close())
	}
	stop := func() {
		e.Close()
		_ = lock.Close() // the lock ends with the file, whatever Close says
	}
	select {
	case <-e.Server.ReadyNotify():
		level.SetLevel(zap.WarnLevel)
	case err := <-e.Err():
		stop()
		return nil, nil, fmt.Errorf("store: etcd in %s: %w", cfg.Dir, err)
	case <-ctx.Done():
		stop()
		return nil, nil, fmt.Errorf("store: etcd in %s is not ready: %w", cfg.Dir, ctx.Err())
	}
	return v3client.New(e.Server), stop, nil
}

// lockDir makes dir, makes sure that it is ours alone, and locks it. etcd's own lock would make a second process wait
// silently, so ours comes first.
func lockDir(dir string) (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: make data directory %s: %w; choose one that is writable", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("store: read data directory %s: %w", dir, err)
	}
	for _, e := range entries {
		if n := e.Name(); n != lockName && n != etcdName {
			return nil, fmt.Errorf("store: data directory %s holds %q: %w; choose an empty directory", dir, n, ErrForeignDir)
		}
	}
	// Before the mode is changed, so that a directory of another user is refused as it is.
	lock, err := fileutil.TryLockFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("store: %s: %w; stop it or choose another directory", dir, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("store: data directory %s is not writable: %w", dir, err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("store: close data directory %s to others: %w", dir, err), lock.Close())
	}
	return lock, nil
}
