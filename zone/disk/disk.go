// Package disk owns what a zone control plane keeps in its data directory: the records it holds of global with their
// position, the zone's identity, the intermediates of its meshes and the registrations of its endpoints, in one file.
//
// It never decides what should be kept, never talks to a peer and never interprets a record: what can't be read is set
// aside whole, as global can give it again.
package disk

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
)

const (
	format   = 1
	fileName = "state.db"
	lockWait = time.Second
	pageSize = 4096
)

// Errors of Open, wrapped.
var (
	ErrNewer   = errors.New("written by newer software")
	ErrLocked  = errors.New("data directory is in use")
	ErrForeign = errors.New("data directory is another's")
	errCorrupt = errors.New("corrupt")
)

var (
	metaBucket         = []byte("meta")
	recordBucket       = []byte("records")
	intermediateBucket = []byte("intermediates")
	registrationBucket = []byte("registrations")
	buckets            = [][]byte{metaBucket, recordBucket, intermediateBucket, registrationBucket}
	sumBucket          = []byte("sums")
	formatKey          = []byte("format")
	positionKey        = []byte("position")
	identityFile       = "identity"
	// globalFile is what a global control plane's data directory holds.
	globalFile    = "zoneforge.json"
	identityBytes = 16
	zoneFile      = "zone"
)

// Store is an open data directory. It is safe for concurrent use until Close.
type Store struct {
	// Identity is random, in hex, made when the directory was first opened.
	Identity string
	// Recovered says what was wrong with the state that was set aside at Open, and where it is; empty when nothing was.
	Recovered string
	// Usable tells whether a record can be in force. Of one that can't, the last version that could is kept beside it, see Good. Set before
	// the first Apply; without it nothing is kept.
	Usable func(*kdsv1.Record) bool

	db   *bolt.DB
	lock *os.File
}

// Intermediate is the issuing key of one mesh with its chain, leaf first, as opaque bytes.
type Intermediate struct {
	Mesh  string   `json:"mesh"`
	Key   []byte   `json:"key"`
	Chain [][]byte `json:"chain"`
}

// Registration is an opaque known endpoint, and when it was last seen, to the nanosecond.
type Registration struct {
	Key   string    `json:"-"`
	Value []byte    `json:"value"`
	Seen  time.Time `json:"seen"`
}

// Open opens a data directory or makes one, and waits up to a second for another process to let go of it. Modes wider
// than 0700 and 0600 are tightened. A corrupt state is set aside, see Recovered. The error wraps ErrForeign,
// ErrLocked or ErrNewer.
func Open(dir string) (*Store, error) { return open(dir, 0) }

func open(dir string, maxSize int) (_ *Store, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory %s: %w", dir, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, globalFile)); err == nil {
		return nil, fmt.Errorf("%w: %s holds %s of a global control plane: choose another data-dir", ErrForeign, dir, globalFile)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory %s must be of mode 0700 and owned by this user: %w", dir, err)
	}
	s := &Store{}
	if s.lock, err = lock(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	path := filepath.Join(dir, fileName)
	if err := os.Chmod(path, 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s must be of mode 0600 and owned by this user: %w", path, err)
	}
	if s.Identity, err = identity(filepath.Join(dir, identityFile)); err != nil {
		return nil, err
	}
	err = s.start(path, maxSize)
	if errors.Is(err, errCorrupt) {
		aside, moveErr := setAside(path)
		if moveErr != nil {
			return nil, moveErr
		}
		s.Recovered = fmt.Sprintf("%v; kept as %s", err, aside)
		err = s.start(path, maxSize)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

// lock takes the lock of the directory before any byte of the state is judged, as a file that is being written looks corrupt.
func lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(50 * time.Millisecond) {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			break
		}
		if time.Now().After(end) {
			holder, _ := os.ReadFile(path)
			_ = f.Close()
			return nil, fmt.Errorf("%w: %s is held, probably by process %s: stop it or use another directory: %w", ErrLocked, path, strings.TrimSpace(string(holder)), err)
		}
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return f, nil
}

// Claim keeps the directory for one zone: with what another one holds, its proxies would be given names that aren't theirs. The
// error wraps ErrForeign.
func (s *Store) Claim(zone string) error {
	path := filepath.Join(filepath.Dir(s.lock.Name()), zoneFile)
	b, err := os.ReadFile(path)
	switch owner := strings.TrimSpace(string(b)); {
	case err == nil && owner == zone:
		return nil
	case err == nil && owner != "":
		return fmt.Errorf("%w: %s says that it is zone %s's, not zone %s's: choose another data-dir, or mend the name", ErrForeign, path, owner, zone)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("read the owner of the data directory: %w", err)
	}
	if err := os.WriteFile(path, []byte(zone+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the owner of the data directory: %w", err)
	}
	return nil
}

// Adopt makes another replica's identity this directory's from the next start on.
func (s *Store) Adopt(id string) error {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != identityBytes {
		return fmt.Errorf("identity %.64q of another replica is none", id)
	}
	return writeIdentity(filepath.Join(filepath.Dir(s.lock.Name()), identityFile), id)
}

// identity has a file of its own, so that it survives the loss of the state.
func identity(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if raw, err := hex.DecodeString(strings.TrimSpace(string(b))); err == nil && len(raw) == identityBytes {
			return hex.EncodeToString(raw), nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read identity: %w", err)
	}
	raw := make([]byte, identityBytes)
	_, _ = rand.Read(raw)
	id := hex.EncodeToString(raw)
	return id, writeIdentity(path, id)
}

func writeIdentity(path, id string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make identity: %w", err)
	}
	_, err = f.WriteString(id + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("make identity: %w", err)
	}
	return nil
}

func setAside(path string) (string, error) {
	for n := 1; ; n++ {
		aside := fmt.Sprintf("%s.corrupt-%d", path, n)
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		if err := os.Rename(path, aside); err != nil {
			return "", fmt.Errorf("set aside corrupt state: %w", err)
		}
		return aside, nil
	}
}

// start checks the pages, opens the file and checks the sums. A broken file may make bbolt panic or fault.
func (s *Store) start(path string, maxSize int) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errCorrupt, p)
		}
	}()
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fresh := err != nil
	if !fresh {
		if err := checkPages(raw); err != nil {
			return fmt.Errorf("%w: %w", errCorrupt, err)
		}
	}
	raw = nil
	s.db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, PageSize: pageSize, MaxSize: maxSize})
	if err != nil {
		s.db = nil
		if errors.Is(err, bolterrors.ErrTimeout) {
			return fmt.Errorf("%w: another program, perhaps a bbolt tool, has the file open: %w", ErrLocked, err)
		}
		return err
	}
	if err = s.db.View(func(tx *bolt.Tx) error {
		fresh = tx.Bucket(metaBucket) == nil && tx.Bucket(recordBucket) == nil
		return nil
	}); err == nil && fresh {
		err = s.db.Update(func(tx *bolt.Tx) error {
			for _, name := range slices.Concat(buckets, [][]byte{goodBucket, sumBucket}) {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return put(tx, metaBucket, formatKey, binary.BigEndian.AppendUint64(nil, format))
		})
	}
	if err == nil {
		err = s.db.View(verify)
	}
	if err == nil && !fresh {
		err = s.db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists(goodBucket)
			return err
		})
	}
	if err != nil {
		_ = s.db.Close()
		s.db = nil
	}
	return err
}

// verify compares each bucket's content with its sum, the format first, as a newer one may sum differently.
func verify(tx *bolt.Tx) error {
	if b := tx.Bucket(metaBucket); b != nil {
		if v := b.Get(formatKey); len(v) == 8 && binary.BigEndian.Uint64(v) > format && binary.BigEndian.Uint64(v) < 1<<16 {
			return fmt.Errorf("%w: format %d, known up to %d: start the newer software or empty the directory", ErrNewer, binary.BigEndian.Uint64(v), format)
		}
	}
	sums := tx.Bucket(sumBucket)
	if sums == nil {
		return fmt.Errorf("%w: no sums", errCorrupt)
	}
	for _, name := range append(slices.Clone(buckets), goodBucket) {
		b := tx.Bucket(name)
		if b == nil && bytes.Equal(name, goodBucket) && sums.Get(name) == nil {
			continue
		}
		if b == nil {
			return fmt.Errorf("%w: no bucket %s", errCorrupt, name)
		}
		var sum [32]byte
		if err := b.ForEach(func(k, v []byte) error { fold(&sum, k, v); return nil }); err != nil {
			return fmt.Errorf("%w: %w", errCorrupt, err)
		}
		if stored := sums.Get(name); !bytes.Equal(stored, sum[:]) && (stored != nil || sum != [32]byte{}) {
			return fmt.Errorf("%w: bucket %s differs from its sum", errCorrupt, name)
		}
	}
	if _, _, err := load(tx); err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return nil
}

// fold adds an entry to a sum, or takes it out again: the sum is kept by one step per change.
func fold(sum *[32]byte, k, v []byte) {
	h := sha256.Sum256(append(append(binary.BigEndian.AppendUint64(nil, uint64(len(k))), k...), v...))
	for i := range sum {
		sum[i] ^= h[i]
	}
}

// put writes an entry, or deletes it when v is nil, with the sum of its bucket.
func put(tx *bolt.Tx, bucket, k, v []byte) error {
	b, sums := tx.Bucket(bucket), tx.Bucket(sumBucket)
	var sum [32]byte
	copy(sum[:], sums.Get(bucket))
	if old := b.Get(k); old != nil {
		fold(&sum, k, old)
	}
	var err error
	if v == nil {
		err = b.Delete(k)
	} else {
		fold(&sum, k, v)
		err = b.Put(k, v)
	}
	return errors.Join(err, sums.Put(bucket, sum[:]))
}

// Close lets go of the directory.
func (s *Store) Close() error {
	var err error
	if s.db != nil {
		err = s.db.Close()
	}
	return errors.Join(err, s.lock.Close())
}

// Apply writes a delta and its position, whole or, with an error, not at all. A snapshot replaces all records.
func (s *Store) Apply(upserts []*kdsv1.Record, deletes []resource.Key, snapshot bool, at kds.Position) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		var deleted [][]byte
		for _, key := range deletes {
			k, err := recordKey(kds.KeyProto(key))
			if err != nil {
				return fmt.Errorf("delete %v: %w", key, err)
			}
			deleted = append(deleted, k)
		}
		all, checked := make([]written, 0, len(upserts)), kds.NewSet()
		for _, r := range upserts {
			// What Load would refuse must not get in.
			if err := checked.Put(r); err != nil {
				return err
			}
			k, err := recordKey(r.GetKey())
			if err != nil {
				return err
			}
			v, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
			if err != nil {
				return err
			}
			all = append(all, written{r, k, v})
		}
		if err := s.keepGood(tx, all, deleted, snapshot); err != nil {
			return fmt.Errorf("keep last good records: %w", err)
		}
		if snapshot {
			if err := errors.Join(tx.DeleteBucket(recordBucket), tx.Bucket(sumBucket).Delete(recordBucket)); err != nil {
				return err
			}
			if _, err := tx.CreateBucket(recordBucket); err != nil {
				return err
			}
		}
		for i, k := range deleted {
			if err := put(tx, recordBucket, k, nil); err != nil {
				return fmt.Errorf("delete %v: %w", deletes[i], err)
			}
		}
		for _, u := range all {
			if err := put(tx, recordBucket, u.k, u.v); err != nil {
				return fmt.Errorf("write %v: %w", u.record.GetKey(), err)
			}
		}
		p, err := proto.MarshalOptions{Deterministic: true}.Marshal(at.Proto())
		if err != nil {
			return err
		}
		if err := put(tx, metaBucket, positionKey, p); err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("apply %v to disk: %w", at, err)
	}
	return nil
}

// recordKey hashes the key, as bbolt bounds the length of its own.
func recordKey(k *kdsv1.Key) ([]byte, error) {
	if _, err := kds.KeyFrom(k); err != nil {
		return nil, err
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(k)
	h := sha256.Sum256(b)
	return h[:], err
}

// Load reads the records and their position; both are empty for a zone that never received anything.
func (s *Store) Load() (set *kds.Set, at kds.Position, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		set, at, err = load(tx)
		return err
	})
	return set, at, err
}

func load(tx *bolt.Tx) (*kds.Set, kds.Position, error) {
	set := kds.NewSet()
	if err := tx.Bucket(recordBucket).ForEach(func(_, v []byte) error {
		r := &kdsv1.Record{}
		if err := proto.Unmarshal(v, r); err != nil {
			return err
		}
		return set.Put(r)
	}); err != nil {
		return nil, kds.Position{}, fmt.Errorf("read records: %w", err)
	}
	p := &kdsv1.Position{}
	if err := proto.Unmarshal(tx.Bucket(metaBucket).Get(positionKey), p); err != nil {
		return nil, kds.Position{}, fmt.Errorf("read position: %w", err)
	}
	// The digests are counted again: what is held counts, not what was said to be.
	return set, set.Position(p.GetEpoch(), p.GetRevision()), nil
}

func (s *Store) putJSON(bucket []byte, key string, value any) error {
	v, err := json.Marshal(value)
	if err == nil {
		err = s.db.Update(func(tx *bolt.Tx) error { return put(tx, bucket, []byte(key), v) })
	}
	if err != nil {
		return fmt.Errorf("write %s %q: %w", bucket, key, err)
	}
	return nil
}

// SaveIntermediate writes or replaces the intermediate of a mesh.
func (s *Store) SaveIntermediate(i Intermediate) error {
	return s.putJSON(intermediateBucket, i.Mesh, i)
}

// LoadIntermediates lists all intermediates, ordered by mesh.
func (s *Store) LoadIntermediates() (all []Intermediate, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(intermediateBucket).ForEach(func(k, v []byte) error {
			var i Intermediate
			if err := json.Unmarshal(v, &i); err != nil {
				return fmt.Errorf("read intermediate of mesh %q: %w", k, err)
			}
			all = append(all, i)
			return nil
		})
	})
	return all, err
}

// SetRegistrations writes or replaces registrations by their keys, and forgets those that are nil: all of them, or with an error none.
// They share a transaction, as each of these waits for the disk.
func (s *Store) SetRegistrations(to map[string]*Registration) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, key := range slices.Sorted(maps.Keys(to)) {
			var v []byte
			if r := to[key]; r != nil {
				var err error
				if v, err = json.Marshal(r); err != nil {
					return fmt.Errorf("%q: %w", key, err)
				}
			}
			if err := put(tx, registrationBucket, []byte(key), v); err != nil {
				return fmt.Errorf("%q: %w", key, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write registrations: %w", err)
	}
	return nil
}

// Registrations lists all, ordered by key.
func (s *Store) Registrations() (all []Registration, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(registrationBucket).ForEach(func(k, v []byte) error {
			r := Registration{Key: string(k)}
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("read registration %q: %w", k, err)
			}
			all = append(all, r)
			return nil
		})
	})
	return all, err
}
