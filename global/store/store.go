// Package store owns the authoritative state of a federation: its resources, their history, and the order of changes. It is
// the only user of etcd, which it embeds in a data directory or reaches as a cluster.
//
// Keys in etcd, below Config.Prefix:
//
//	format                       version of this layout; a newer one is refused
//	epoch                        random; a restored backup gets a new one
//	claim/<name>                 who may write in a name, see Claim
//	seal                         a constant sealed with the store's key, by which a wrong key is found at once
//	head                         last revision and history number, digest of all resources, the pending change
//	res/<kind>/<mesh>/<name>     one resource: the revision that wrote it and its canonical bytes, sealed for sensitive kinds
//	change/<20 digits>           one history entry: author, time, message, per key the hashes before and after, and the contents
//	ops/<id>/<8 digits>          contents of a change that is too large for one transaction
//	staging/<id>                 marks such contents until they are committed, so that a dead writer's are swept
//	ancestors                    epochs that this one was restored from, the newest first
//	backup                       when the last backup was made
//	current                      where the whole layout above stands instead, below restored/<epoch>/, once a backup was restored
//
// Every commit is one transaction guarded by head's mod revision. Revisions are counted in head rather than taken from etcd:
// a large change becomes visible by one small transaction that names its staged contents in head, and is rolled out into the
// resource keys afterwards, which must not look like further changes. Whoever finds such a pending change finishes it
// before anything else is committed.
//
// The package never decides who may write what, what a resource means, or where it is sent.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/resource"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrConflict: a resource is not at the revision that the writer expected, or was written meanwhile.
	ErrConflict = errors.New("conflict")
	// ErrNotFound: no such history entry.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the change itself cannot be stored.
	ErrInvalid = errors.New("invalid change")
	// ErrUnknownOutcome: the connection failed during the commit; read the keys to learn whether it happened.
	ErrUnknownOutcome = errors.New("outcome of commit is unknown")
	// ErrNewerFormat: the store was written by a later version of the software.
	ErrNewerFormat = errors.New("store has a newer format")
	// ErrWrongKey: the store was sealed with another key, or needs one.
	ErrWrongKey = errors.New("wrong sealing key")
	// ErrLocked: another process holds the data directory.
	ErrLocked = errors.New("data directory is in use by another process")
	// ErrFull: the disk of the embedded store has too little room.
	ErrFull = errors.New("disk is full")
	// ErrNoSpace: etcd has raised its alarm NOSPACE and takes no writes.
	ErrNoSpace = errors.New("etcd is out of space")
	// ErrUnavailable: etcd does not answer, or has no quorum; nothing was changed.
	ErrUnavailable = errors.New("etcd does not answer")
	// ErrSuperseded: another has the claim in whose name the change was to be written.
	ErrSuperseded = errors.New("another writer took over")
	// ErrForeignDir: the data directory holds something that is not ours.
	ErrForeignDir = errors.New("directory does not belong to zoneforge")
	// ErrReplaced: a backup was restored in place of the store that is open.
	ErrReplaced = errors.New("store was replaced by a backup")
	// ErrNotEmpty: the store holds something that a backup would replace.
	ErrNotEmpty = errors.New("store is not empty")
)

const (
	formatVersion = 1
	// formatMoved stands at the base once current does, so that software from before doesn't take it for an empty store.
	formatMoved = 2
)

// Sealer encrypts the resources of sensitive kinds. aad binds the result to its key. Safe for concurrent use.
type Sealer interface {
	Seal(plain, aad []byte) ([]byte, error)
	Open(sealed, aad []byte) ([]byte, error)
	// IDs name the keys, the one that seals first, and KeyOf that which sealed something.
	IDs() []string
	KeyOf(sealed []byte) string
}

// Config says where the store is.
type Config struct {
	// Endpoints of an etcd cluster; empty for the embedded one.
	Endpoints []string
	// TLS, Username and Password are for Endpoints.
	TLS                *tls.Config
	Username, Password string
	// DataDir of the embedded etcd; made with mode 0700.
	DataDir string
	// Prefix of all keys; default /zoneforge.
	Prefix string
	// Known is the newest state of the store that was seen before; see Known. Zero for none.
	Known Known
	// CheckInterval between comparisons with head, default 3s; changes never wait for it. A store that doesn't answer is noticed
	// by them.
	CheckInterval time.Duration
	// Logger may be nil.
	Logger *zap.Logger
	// Seal is needed as soon as a resource of a sensitive kind is written.
	Seal Sealer
}

// Stats count what went wrong and was mended since Open, and what was done.
type Stats struct {
	// Reloads of the whole state, for whatever reason.
	Reloads uint64
	// Mismatches between the state held here and head's digest.
	Mismatches uint64
	// Unreadable resources in the current snapshot: of a kind that this version doesn't know, or damaged.
	Unreadable uint64
	// Work that was done.
	Work Work
}

// Store is the open store. All methods are safe for concurrent use; Run is called once.
type Store struct {
	// set once
	cfg Config
	// base is the prefix that is configured, and prefix where the layout stands: the same until a backup is restored.
	base, prefix string
	log          *zap.Logger
	cli          *clientv3.Client
	closeDB      func()

	// turn admits one committer of this process at a time, as racing in etcd only costs retries.
	turn chan struct{}
	cur  atomic.Pointer[Snapshot]
	// away says that etcd didn't answer when it was asked last.
	away atomic.Bool

	// lacking is a key that something was found to be sealed with and that is not there; nil for none.
	lacking atomic.Pointer[string]

	reloads, mismatches, unreadable atomic.Uint64
	tally                           tally
	closed                          sync.Once

	roomToWrite uint64

	// Faults for tests: between commit and roll-out, and a resource whose event is lost.
	beforeRollOut func() error
	beforeSwitch  func() error
	loseEvent     func(resource.Key) bool
}

// Open connects, creates the layout where there is none, finishes a pending change and loads the first snapshot. The
// caller calls Close; ctx bounds only the opening.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.cli.KV = counted{s.cli.KV, &s.tally}
	if err := s.prepare(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// connect reaches etcd or starts it, and reads nothing.
func connect(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "/zoneforge"
	}
	if cfg.CheckInterval <= 0 {
		cfg.CheckInterval = 3 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	s := &Store{
		cfg: cfg, base: strings.TrimRight(cfg.Prefix, "/") + "/", log: cfg.Logger,
		turn: make(chan struct{}, 1), roomToWrite: roomToWrite,
	}
	switch {
	case len(cfg.Endpoints) > 0 && cfg.DataDir != "":
		return nil, errors.New("store: both etcd endpoints and a data directory are set; remove one")
	case len(cfg.Endpoints) > 0:
		cli, err := clientv3.New(clientv3.Config{
			Endpoints: cfg.Endpoints, TLS: cfg.TLS, Username: cfg.Username, Password: cfg.Password,
			DialTimeout: 10 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
			Logger: cfg.Logger,
		})
		if err != nil {
			return nil, fmt.Errorf("store: connect to etcd at %s: %w", strings.Join(cfg.Endpoints, ", "), err)
		}
		s.cli, s.closeDB = cli, func() {}
	case cfg.DataDir != "":
		cli, closeDB, err := startEmbedded(ctx, cfg.DataDir, cfg.Logger)
		if err != nil {
			return nil, err
		}
		s.cli, s.closeDB = cli, closeDB
	default:
		return nil, errors.New("store: set etcd endpoints or a data directory")
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context) error {
	var err error
	if s.prefix, err = s.place(ctx); err != nil {
		return err
	}
	if err := s.initLayout(ctx); err != nil {
		return err
	}
	for {
		h, err := s.readHead(ctx)
		if err != nil {
			return err
		}
		if h.Pending == nil {
			break
		}
		if err := s.rollOut(ctx, h); err != nil {
			return fmt.Errorf("store: finish change of revision %d: %w", h.Revision, err)
		}
	}
	if err := s.beginEpoch(ctx, s.cfg.Known); err != nil {
		return err
	}
	if err := errors.Join(s.sweep(ctx), s.sweepRestored(ctx)); err != nil {
		return err
	}
	snap, _, err := s.load(ctx, nil)
	if err != nil {
		return err
	}
	if key := s.lacking.Load(); key != nil {
		return fmt.Errorf("store: %w: resources are sealed with key %s; put it into the key file, behind the others", ErrWrongKey, *key)
	}
	s.cur.Store(snap)
	return nil
}

func (s *Store) initLayout(ctx context.Context) error {
	epoch, err := random()
	if err != nil {
		return err
	}
	head, err := encodeHead(head{})
	if err != nil {
		return err
	}
	_, err = s.cli.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(s.prefix+"format"), "=", 0)).
		Then(clientv3.OpPut(s.prefix+"format", strconv.Itoa(formatVersion)),
			clientv3.OpPut(s.prefix+"epoch", epoch),
			clientv3.OpPut(s.prefix+"head", head)).Commit()
	if err != nil {
		return fmt.Errorf("store: reach etcd: %w", err)
	}
	res, err := s.cli.Txn(ctx).Then(clientv3.OpGet(s.prefix+"format"), clientv3.OpGet(s.prefix+"epoch"),
		clientv3.OpGet(s.prefix+"seal")).Commit()
	if err != nil {
		return fmt.Errorf("store: read the format: %w", err)
	}
	get := func(i int) string {
		if kvs := res.Responses[i].GetResponseRange().GetKvs(); len(kvs) == 1 {
			return string(kvs[0].Value)
		}
		return ""
	}
	v, err := strconv.Atoi(get(0))
	if err != nil || v < 1 {
		return fmt.Errorf("store: %sformat is %q, not a version; choose another prefix or restore a backup", s.prefix, get(0))
	}
	if v > formatVersion {
		return fmt.Errorf("store: %w: %d, this version knows %d; upgrade the software", ErrNewerFormat, v, formatVersion)
	}
	if get(1) == "" {
		return fmt.Errorf("store: %sepoch is missing; restore a backup", s.prefix)
	}
	return s.checkSeal(ctx, get(2))
}

// checkSeal compares the configured key with the one that the store was sealed with.
func (s *Store) checkSeal(ctx context.Context, mark string) error {
	name := s.prefix + "seal"
	if mark != "" {
		if s.cfg.Seal == nil {
			return fmt.Errorf("store: %w: the store holds sealed resources; configure its key file", ErrWrongKey)
		}
		if _, err := s.cfg.Seal.Open([]byte(mark), []byte(name)); err != nil {
			return fmt.Errorf("store: %w: %w; configure the key file that the store was made with", ErrWrongKey, err)
		}
		return nil
	}
	if s.cfg.Seal == nil {
		return nil
	}
	sealed, err := s.cfg.Seal.Seal([]byte("zoneforge"), []byte(name))
	if err != nil {
		return fmt.Errorf("store: seal: %w", err)
	}
	res, err := s.cli.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(name), "=", 0)).
		Then(clientv3.OpPut(name, string(sealed))).Else(clientv3.OpGet(name)).Commit()
	if err != nil {
		return fmt.Errorf("store: write %s: %w", name, err)
	}
	if res.Succeeded {
		return nil
	}
	// Another replica was faster; its key must be ours.
	if kvs := res.Responses[0].GetResponseRange().GetKvs(); len(kvs) == 1 {
		return s.checkSeal(ctx, string(kvs[0].Value))
	}
	return fmt.Errorf("store: %s vanished while it was read", name)
}

// Close ends the connection and the embedded etcd. Run must have returned.
func (s *Store) Close() {
	s.closed.Do(func() {
		_ = s.cli.Close() // all it can report is that the connection is gone
		s.closeDB()
	})
}

// Ping asks etcd whether it takes writes, by one that changes nothing, and whether the state here is the newest; nil when so.
// Errors wrap ErrUnavailable or ErrNoSpace. Run must be running.
func (s *Store) Ping(ctx context.Context) error {
	// The guard fails, as head is there. Etcd refuses such a write too when it has no quorum or no space.
	never := clientv3.Compare(clientv3.CreateRevision(s.prefix+"head"), "=", 0)
	err := s.attempt(ctx, func(ctx context.Context) error {
		_, err := s.cli.Txn(ctx).If(never).Then(clientv3.OpPut(s.prefix+"head", "")).Commit()
		return err
	})
	if err != nil {
		return writeError(err)
	}
	_, err = s.Confirm(ctx)
	return err
}

// Away says that etcd does not answer this replica, so that others may know more.
func (s *Store) Away() bool { return s.away.Load() }

// Epoch is the store's identity; revisions of different epochs can't be compared. It changes when a backup is restored.
func (s *Store) Epoch() string { return s.Snapshot().epoch }

// Ancestors are the epochs that the store was restored from, the newest first. What belonged to one of them belongs to it.
func (s *Store) Ancestors() []string { return s.Snapshot().ancestors }

// Stats are the counters up to now.
func (s *Store) Stats() Stats {
	return Stats{Reloads: s.reloads.Load(), Mismatches: s.mismatches.Load(), Unreadable: s.unreadable.Load(), Work: s.tally.now()}
}
