package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/e2e/goroutines"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func TestMain(m *testing.M) {
	goroutines.Verify(m)
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// embedded compares with head so seldom that no test sees it: on a machine that stood still, what is on its way looks like a lost event.
func embedded(t *testing.T) Config {
	return Config{DataDir: filepath.Join(t.TempDir(), "data"), CheckInterval: time.Hour}
}

// follow runs s until the test ends or the returned function is called.
func follow(t *testing.T, s *Store) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func timeoutKey(name string) resource.Key {
	return resource.Key{Kind: "Timeout", Mesh: "default", Name: name}
}

// put makes an op that is told apart by its label.
func put(name, label string) Op {
	k := timeoutKey(name)
	return Op{Key: k, Put: &resource.Resource{Key: k, Labels: map[string]string{"v": label}, Spec: &meshv1.Timeout{}}}
}

func (o Op) at(revision int64) Op {
	o.IfRevision = &revision
	return o
}

func commitOps(t *testing.T, s *Store, ops ...Op) Committed {
	t.Helper()
	c, err := s.Commit(testContext(t), Change{Author: "ann", Message: "m", Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wait(t *testing.T, s *Store, revision int64) *Snapshot {
	t.Helper()
	snap, err := s.Wait(testContext(t), revision)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func label(snap *Snapshot, name string) string {
	e, ok := snap.Get(timeoutKey(name))
	if !ok {
		return ""
	}
	return e.Resource.Labels["v"]
}

func count(snap *Snapshot, kind, mesh string) (n int) {
	for range snap.Each(kind, mesh) {
		n++
	}
	return n
}

func TestCommitAndRead(t *testing.T) {
	s := open(t, embedded(t))
	follow(t, s)
	c1 := commitOps(t, s, put("a", "1"), put("b", "1"))
	if c1.Seq != 1 || c1.Revision != 1 {
		t.Fatalf("first commit is %+v", c1)
	}
	first := wait(t, s, c1.Revision)
	c2 := commitOps(t, s, put("a", "2").at(c1.Revision), Op{Key: timeoutKey("b"), Delete: true}, put("c", "1").at(0))
	snap := wait(t, s, c2.Revision)
	if label(snap, "a") != "2" || label(snap, "b") != "" || label(snap, "c") != "1" || count(snap, "Timeout", "") != 2 {
		t.Fatal("the second change is not in the snapshot")
	}
	if label(first, "a") != "1" || label(first, "b") != "1" {
		t.Fatal("an old snapshot changed")
	}
	select {
	case <-first.Stale(): // a moment after the new one is to be had
	case <-testContext(t).Done():
		t.Fatal("an old snapshot is not stale")
	}
	if count(snap, "Timeout", "default") != 2 || count(snap, "Timeout", "other") != 0 {
		t.Fatal("Each does not keep meshes apart")
	}
	if d := snap.Digest("Timeout"); d.Count() != 2 || d == first.Digest("Timeout") {
		t.Fatalf("digest is %v of %d", d, d.Count())
	}
	keys, ok := snap.Since(c1.Revision)
	if !ok || len(keys) != 3 || keys[0] != timeoutKey("a") {
		t.Fatalf("since the first change: %v %v", keys, ok)
	}
	if _, ok := snap.Since(c2.Revision + 1); ok {
		t.Fatal("the future is known")
	}
}

func TestConflictNamesTheKey(t *testing.T) {
	s := open(t, embedded(t))
	c := commitOps(t, s, put("a", "1"))
	for _, op := range []Op{put("a", "2").at(0), put("a", "2").at(c.Revision + 1), {Key: timeoutKey("a"), Delete: true, IfRevision: new(int64)}} {
		_, err := s.Commit(testContext(t), Change{Ops: []Op{put("x", "1"), op}})
		if !errors.Is(err, ErrConflict) || !bytes.Contains([]byte(err.Error()), []byte("Timeout default/a")) {
			t.Fatalf("got %v", err)
		}
	}
	snap, _, err := s.load(testContext(t), nil)
	if err != nil || label(snap, "a") != "1" || label(snap, "x") != "" {
		t.Fatalf("a refused change left something: %v", err)
	}
}

func TestInvalidChanges(t *testing.T) {
	s := open(t, embedded(t))
	big := put("a", string(bytes.Repeat([]byte("x"), maxPayload)))
	secret := resource.Key{Kind: "Secret", Mesh: "default", Name: "s"}
	for name, ops := range map[string][]Op{
		"empty":     nil,
		"twice":     {put("a", "1"), put("a", "2")},
		"neither":   {{Key: timeoutKey("a")}},
		"unknown":   {{Key: resource.Key{Kind: "Nope", Name: "a"}, Delete: true}},
		"mesh":      {{Key: resource.Key{Kind: "Zone", Mesh: "default", Name: "a"}, Delete: true}},
		"too large": {big},
		"no key":    {{Key: secret, Put: &resource.Resource{Key: secret, Spec: &meshv1.Secret{}}}},
	} {
		if _, err := s.Commit(testContext(t), Change{Ops: ops}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Writers on two replicas increment counters by read, compare and set; every success must be there in the end.
func TestConcurrentWriters(t *testing.T) {
	cfg := embedded(t)
	a := open(t, cfg)
	b := replica(t, a)
	follow(t, a)
	follow(t, b)
	const writers, rounds = 6, 10
	var won, lost, own atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			s := a
			if w%2 == 1 {
				s = b
			}
			for i := range rounds {
				key, ctx := timeoutKey("shared"), testContext(t)
				snap := s.Snapshot()
				n, rev := 0, int64(0)
				if e, ok := snap.Get(key); ok {
					rev = e.Revision
					fmt.Sscan(e.Resource.Labels["v"], &n)
				}
				c, err := s.Commit(ctx, Change{Ops: []Op{put("shared", fmt.Sprint(n+1)).at(rev), put(fmt.Sprintf("w%d-%d", w, i), "1")}})
				switch {
				case err == nil:
					won.Add(1)
					_, _ = s.Wait(ctx, c.Revision)
				case errors.Is(err, ErrConflict):
					lost.Add(1)
				default:
					t.Error(err)
				}
				if _, err := s.Commit(ctx, Change{Ops: []Op{put(fmt.Sprintf("own%d-%d", w, i), "1")}}); err != nil {
					t.Errorf("a writer of untouched keys lost: %v", err)
				} else {
					own.Add(1)
				}
			}
		})
	}
	wg.Wait()
	snap := wait(t, b, won.Load()+own.Load())
	if got := label(snap, "shared"); got != fmt.Sprint(won.Load()) {
		t.Fatalf("counter is %s after %d successes and %d conflicts", got, won.Load(), lost.Load())
	}
	if n := count(snap, "Timeout", ""); n != int(1+won.Load()+own.Load()) {
		t.Fatalf("%d resources after %d+%d commits", n, won.Load(), own.Load())
	}
}

// replica is a second store on the first one's embedded etcd.
func replica(t *testing.T, s *Store) *Store {
	t.Helper()
	r := &Store{cfg: s.cfg, base: s.base, log: s.log, cli: s.cli, closeDB: func() {}, turn: make(chan struct{}, 1)}
	if err := r.prepare(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return r
}

func manyOps(n int, label string) []Op {
	ops := make([]Op, n)
	for i := range ops {
		ops[i] = put(fmt.Sprintf("r%05d", i), label)
	}
	return ops
}

func TestLargeChangeAppearsInOneStep(t *testing.T) {
	s := open(t, embedded(t))
	follow(t, s)
	observer := replica(t, s)
	stop := follow(t, observer)
	const n = 1200
	seen := make(chan string, 1)
	go func() {
		for {
			snap := observer.Snapshot()
			if got := count(snap, "Timeout", ""); got != 0 && got != n {
				seen <- fmt.Sprintf("%d of %d resources at revision %d", got, n, snap.Revision())
				return
			} else if snap.Revision() >= 2 {
				seen <- ""
				return
			}
			<-snap.Stale()
		}
	}()
	c := commitOps(t, s, manyOps(n, "1")...)
	last := commitOps(t, s, put("r00000", "2").at(c.Revision))
	if got := <-seen; got != "" {
		t.Fatal(got)
	}
	snap := wait(t, observer, last.Revision)
	if count(snap, "Timeout", "") != n || snap.Revision() != 2 {
		t.Fatalf("revision %d has %d", snap.Revision(), count(snap, "Timeout", ""))
	}
	stop()
	if st := observer.Stats(); st.Mismatches != 0 {
		t.Fatalf("observer: %+v", st)
	}
	shown, err := s.ShowChange(testContext(t), c.Seq)
	if err != nil || len(shown.Keys) != n || shown.Keys[0].Before != nil || shown.Keys[0].After == nil {
		t.Fatalf("shown: %v", err)
	}
}

func TestCrashBeforeRollOutIsFinishedByOpen(t *testing.T) {
	cfg := embedded(t)
	s := open(t, cfg)
	s.beforeRollOut = func() error { return errors.New("crash") }
	const n = 250
	c := commitOps(t, s, manyOps(n, "1")...)
	snap, _, err := s.load(testContext(t), nil)
	if err != nil || count(snap, "Timeout", "") != n || snap.Revision() != c.Revision {
		t.Fatalf("a pending change is not visible: %v", err)
	}
	if _, err := s.Commit(testContext(t), Change{Ops: []Op{put("x", "1")}}); err == nil {
		t.Fatal("committed over a pending change")
	}
	s.Close()

	s = open(t, cfg)
	h, err := s.readHead(testContext(t))
	if err != nil || h.Pending != nil {
		t.Fatalf("still pending: %v", err)
	}
	if got := count(s.Snapshot(), "Timeout", ""); got != n || s.Stats().Mismatches != 0 {
		t.Fatalf("%d resources, %+v", got, s.Stats())
	}
	if got := commitOps(t, s, put("r00007", "2").at(c.Revision)); got.Revision != c.Revision+1 {
		t.Fatalf("next revision is %d", got.Revision)
	}
}

func TestReopenKeepsEverything(t *testing.T) {
	cfg := embedded(t)
	s := open(t, cfg)
	c := commitOps(t, s, put("a", "1"), put("odd/näme %", "1"))
	if _, err := s.Commit(testContext(t), Change{Internal: true, Ops: []Op{put("i", "1")}}); err != nil {
		t.Fatal(err)
	}
	epoch := s.Epoch()
	s.Close()
	if info, err := os.Stat(cfg.DataDir); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("data directory: %v %v", info.Mode(), err)
	}
	s = open(t, cfg)
	snap := s.Snapshot()
	if s.Epoch() != epoch || snap.Revision() != 2 || label(snap, "a") != "1" || label(snap, "odd/näme %") != "1" || label(snap, "i") != "1" {
		t.Fatal("something is lost")
	}
	if e, _ := snap.Get(timeoutKey("a")); e.Revision != c.Revision {
		t.Fatalf("revision of a is %d", e.Revision)
	}
}

func TestHistory(t *testing.T) {
	s := open(t, embedded(t))
	for i := range 20 {
		if _, err := s.Commit(testContext(t), Change{Author: "ann", Message: fmt.Sprint(i), Time: time.Unix(int64(i), 0), Ops: []Op{put("a", fmt.Sprint(i))}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(testContext(t), Change{Internal: true, Ops: []Op{put("i", fmt.Sprint(i))}}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.History(testContext(t), 18, 20)
	if err != nil || len(list) != 18 || list[0].Seq != 19 || list[17].Seq != 2 {
		t.Fatalf("%v %+v", err, list)
	}
	shown, err := s.ShowChange(testContext(t), 20)
	if err != nil {
		t.Fatal(err)
	}
	k := shown.Keys[0]
	if shown.Message != "19" || !shown.Time.Equal(time.Unix(19, 0)) || k.Before.Labels["v"] != "18" || k.After.Labels["v"] != "19" || k.BeforeHash == k.AfterHash {
		t.Fatalf("%+v", shown)
	}
	if _, err := s.ShowChange(testContext(t), 21); !errors.Is(err, ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestLostEventIsFoundByDigest(t *testing.T) {
	s := open(t, embedded(t))
	var lose atomic.Bool
	lose.Store(true)
	s.loseEvent = func(k resource.Key) bool { return k.Name == "a" && lose.Swap(false) }
	follow(t, s)
	commitOps(t, s, put("warm", "1"))
	wait(t, s, 1)
	before := s.Stats() // it may have found the first change when it began
	snap := wait(t, s, commitOps(t, s, put("a", "1"), put("b", "1")).Revision)
	if label(snap, "a") != "1" || label(snap, "b") != "1" {
		t.Fatal("a lost event stayed lost")
	}
	if st := s.Stats(); st.Mismatches != before.Mismatches+1 || st.Reloads != before.Reloads+1 {
		t.Fatalf("%+v, was %+v", st, before)
	}
	if keys, ok := snap.Since(1); !ok || len(keys) != 2 {
		t.Fatalf("since before the reload: %v %v", keys, ok)
	}
}

func TestCompactionIsMendedByReload(t *testing.T) {
	s := open(t, embedded(t))
	commitOps(t, s, put("a", "1"))
	last := commitOps(t, s, put("a", "2"))
	h, err := s.readHead(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.cli.Compact(testContext(t), h.at); err != nil {
		t.Fatal(err)
	}
	// The watch starts behind what is compacted.
	ch := s.cli.Watch(testContext(t), s.prefix, clientv3.WithPrefix(), clientv3.WithRev(1))
	if res := <-ch; res.Err() == nil {
		t.Fatal("the compacted watch gave no error")
	}
	follow(t, s)
	if snap := wait(t, s, last.Revision); label(snap, "a") != "2" {
		t.Fatal("state is old")
	}
	if snap := wait(t, s, commitOps(t, s, put("a", "3")).Revision); label(snap, "a") != "3" {
		t.Fatal("not following after compaction")
	}
}

func TestDataDirIsGuarded(t *testing.T) {
	cfg := embedded(t)
	open(t, cfg)
	if _, err := Open(testContext(t), cfg); !errors.Is(err, ErrLocked) {
		t.Fatalf("locked: %v", err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testContext(t), Config{DataDir: foreign}); !errors.Is(err, ErrForeignDir) {
		t.Fatalf("foreign: %v", err)
	}
	if _, err := Open(testContext(t), Config{DataDir: filepath.Join(foreign, "thesis.tex")}); err == nil {
		t.Fatal("a file was taken for a directory")
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	cfg := embedded(t)
	s := open(t, cfg)
	if _, err := s.cli.Put(testContext(t), s.prefix+"format", "2"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(testContext(t), cfg); !errors.Is(err, ErrNewerFormat) {
		t.Fatalf("got %v", err)
	}
}

func TestSealing(t *testing.T) {
	dir := t.TempDir()
	cfg := embedded(t)
	key, err := OpenKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Seal = key
	s := open(t, cfg)
	k := resource.Key{Kind: "Secret", Mesh: "default", Name: "cert"}
	secret := []byte("correct horse battery staple")
	commitOps(t, s, Op{Key: k, Put: &resource.Resource{Key: k, Spec: &meshv1.Secret{Data: secret}}})
	all, err := s.cli.Get(testContext(t), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		if bytes.Contains(kv.Value, secret) || bytes.Contains(kv.Value, []byte("Y29ycmVjdCBob3JzZSBi")) {
			t.Fatalf("%s holds the secret in clear", kv.Key)
		}
	}
	s.Close()

	again, err := OpenKeyFile(filepath.Join(dir, "key"))
	if err != nil || !slices.Equal(again.IDs(), key.IDs()) {
		t.Fatalf("the key changed: %v", err)
	}
	cfg.Seal = again
	s = open(t, cfg)
	e, ok := s.Snapshot().Get(k)
	if !ok || !proto.Equal(e.Resource.Spec, &meshv1.Secret{Data: secret}) {
		t.Fatal("the secret is lost")
	}
	s.Close()

	if cfg.Seal, err = OpenKeyFile(filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testContext(t), cfg); !errors.Is(err, ErrWrongKey) {
		t.Fatalf("another key: %v", err)
	}
	cfg.Seal = nil
	if _, err := Open(testContext(t), cfg); !errors.Is(err, ErrWrongKey) {
		t.Fatalf("no key: %v", err)
	}
}

func TestKeyFileIsGuarded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	k, err := OpenKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Seal([]byte("x"), []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Open(sealed, []byte("two")); err == nil {
		t.Fatal("moved to another key and opened")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyFile(path); err == nil {
		t.Fatal("a key open to others is accepted")
	}
	if err := os.WriteFile(path+"2", []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyFile(path + "2"); err == nil {
		t.Fatal("half a key is accepted")
	}
}
