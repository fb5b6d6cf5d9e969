package store

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// cluster starts an etcd on a port of loopback that the system picks, and gives its address.
func cluster(t *testing.T) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(t.TempDir(), "etcd")
	cfg.ListenPeerUrls = nil
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return e.Clients[0].Addr().String()
}

func TestReplicasOnACluster(t *testing.T) {
	cfg := Config{Endpoints: []string{cluster(t)}, Prefix: "/a/"}
	one, two := open(t, cfg), open(t, cfg)
	cfg.Prefix = "/b"
	other := open(t, cfg)
	follow(t, one)
	follow(t, two)
	c := commitOps(t, one, manyOps(300, "1")...)
	if n := count(wait(t, two, c.Revision), "Timeout", ""); n != 300 {
		t.Fatalf("the other replica has %d", n)
	}
	c = commitOps(t, two, put("r00001", "2").at(c.Revision))
	if label(wait(t, one, c.Revision), "r00001") != "2" {
		t.Fatal("a replica is behind")
	}
	if one.Epoch() != two.Epoch() || one.Epoch() == other.Epoch() || other.Snapshot().Revision() != 0 {
		t.Fatal("prefixes are mixed up")
	}
	if wait(t, two, c.Revision).Digest("Timeout") != wait(t, one, c.Revision).Digest("Timeout") {
		t.Fatal("replicas differ")
	}
}

// A change is interrupted between commit and roll-out; another replica that lives on finishes it before its own commit.
func TestAnotherReplicaFinishesAPendingChange(t *testing.T) {
	one := open(t, embedded(t))
	two := replica(t, one)
	follow(t, two)
	one.beforeRollOut = func() error { return errors.New("crash") }
	c := commitOps(t, one, manyOps(250, "1")...)
	if n := count(wait(t, two, c.Revision), "Timeout", ""); n != 250 {
		t.Fatalf("a pending change shows %d of its resources", n)
	}
	c = commitOps(t, two, put("r00009", "2").at(c.Revision))
	snap := wait(t, two, c.Revision)
	if label(snap, "r00009") != "2" || count(snap, "Timeout", "") != 250 || two.Stats().Mismatches != 0 {
		t.Fatalf("%+v", two.Stats())
	}
}

func keysBelow(t *testing.T, s *Store, part string) int64 {
	t.Helper()
	res, err := s.cli.Get(testContext(t), s.prefix+part, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return res.Count
}

func TestStagedContentsAreNotLeftBehind(t *testing.T) {
	cfg := embedded(t)
	s := open(t, cfg)
	commitOps(t, s, put("a", "1"))
	// Refused, committed without history, and abandoned by a writer that died.
	if _, err := s.Commit(testContext(t), Change{Ops: append(manyOps(150, "1"), put("a", "2").at(9))}); !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	if _, err := s.Commit(testContext(t), Change{Ops: manyOps(150, "1"), Internal: true}); err != nil {
		t.Fatal(err)
	}
	if n := keysBelow(t, s, "ops/") + keysBelow(t, s, "staging/"); n != 0 {
		t.Fatalf("%d keys left", n)
	}
	dead := &commit{s: s}
	if err := dead.stage(testContext(t), []opRecord{{Kind: "Timeout", Name: "x"}}); err != nil {
		t.Fatal(err)
	}
	// A replica in a cluster leaves what is young.
	r := &Store{prefix: s.prefix, cli: s.cli}
	if err := r.sweep(testContext(t)); err != nil || keysBelow(t, s, "ops/") != 1 {
		t.Fatalf("swept another's chunks: %v", err)
	}
	// By its own clock, which may be two hours ahead of the other's.
	if _, err := s.cli.Put(testContext(t), s.stagingKey(dead.id), time.Now().Add(-2*time.Hour).Format(time.RFC3339)); err != nil {
		t.Fatal(err)
	}
	if err := r.sweep(testContext(t)); err != nil || keysBelow(t, s, "ops/") != 1 {
		t.Fatalf("swept another's chunks by a wrong clock: %v", err)
	}
	s.Close()
	s = open(t, cfg)
	if n := keysBelow(t, s, "ops/") + keysBelow(t, s, "staging/"); n != 0 {
		t.Fatalf("%d keys left", n)
	}
}

// What changes behind the store's back, or while a watch is away, is found by the comparison with head.
func TestPeriodicComparisonFindsWhatTheWatchMissed(t *testing.T) {
	cfg := embedded(t)
	cfg.CheckInterval = 20 * time.Millisecond
	s := open(t, cfg)
	follow(t, s)
	snap := wait(t, s, commitOps(t, s, put("a", "1")).Revision)
	before := s.Stats().Mismatches // a machine that is slow enough looks like a lost event, too
	wrong := *snap
	wrong.digest.Add(stored("p").hash(timeoutKey("never"))) // as if an event had been applied wrongly
	wrong.stale = make(chan struct{})
	s.cur.Store(&wrong)
	<-wrong.stale
	if got := s.Snapshot(); got.digest != snap.digest || label(got, "a") != "1" || s.Stats().Mismatches <= before {
		t.Fatalf("%+v", s.Stats())
	}
}

// Compaction takes away revisions that the watch still needs, while writing goes on.
func TestCompactionDuringWatch(t *testing.T) {
	s := open(t, embedded(t))
	follow(t, s)
	var last Committed
	for i := range 60 {
		last = commitOps(t, s, put("a", fmt.Sprint(i)))
		h, err := s.readHead(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.cli.Compact(testContext(t), h.at); err != nil {
			t.Fatal(err)
		}
	}
	if snap := wait(t, s, last.Revision); label(snap, "a") != "59" {
		t.Fatal("state is old")
	}
}
