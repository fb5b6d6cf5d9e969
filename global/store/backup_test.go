package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/backup"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func keyFile(t *testing.T) *KeyFile {
	t.Helper()
	k, err := OpenKeyFile(filepath.Join(t.TempDir(), "kek"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func secret(name, text string) Op {
	k := resource.Key{Kind: "Secret", Mesh: "default", Name: name}
	return Op{Key: k, Put: &resource.Resource{Key: k, Spec: &meshv1.Secret{Data: []byte(text)}}}
}

func secretText(t *testing.T, s *Store, name string) string {
	t.Helper()
	e, ok := s.Snapshot().Get(resource.Key{Kind: "Secret", Mesh: "default", Name: name})
	if !ok {
		t.Fatalf("no secret %s", name)
	}
	return string(resource.Spec[*meshv1.Secret](e.Resource).GetData())
}

// filled is a store with plain and sealed resources, a change too large for one transaction, and a deletion.
func filled(t *testing.T, cfg Config) *Store {
	t.Helper()
	s := open(t, cfg)
	commitOps(t, s, put("a", "1"), put("gone", "1"), secret("key", "hush-hush"))
	commitOps(t, s, manyOps(250, "1")...)
	commitOps(t, s, Op{Key: timeoutKey("gone"), Delete: true})
	if _, err := s.Commit(testContext(t), Change{Ops: []Op{put("internal", "1")}, Internal: true}); err != nil {
		t.Fatal(err)
	}
	return s
}

func backUp(t *testing.T, s *Store, files ...backup.File) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.Backup(testContext(t), &b, backup.Head{Software: "test", Domain: "zoneforge"}, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func restore(t *testing.T, cfg Config, text []byte, replace bool) Restored {
	t.Helper()
	r, err := Restore(testContext(t), cfg, bytes.NewReader(text), replace)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// restoreOpen is what Restore does with a store that it has opened.
func restoreOpen(t *testing.T, s *Store, r *backup.Reader) error {
	t.Helper()
	old, err := s.standing(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.restore(testContext(t), r, old, true)
	return err
}

func sealed(t *testing.T, key *KeyFile) Config {
	cfg := embedded(t)
	cfg.Seal = key
	return cfg
}

func TestRestoreIntoAnEmptyStore(t *testing.T) {
	key := keyFile(t)
	old := filled(t, sealed(t, key))
	file := backup.File{Name: "tls/server-ca.key", Content: []byte("the key of the authority")}
	text := backUp(t, old, file)
	if strings.Contains(string(text), "hush-hush") || strings.Contains(string(text), "the key of") {
		t.Fatal("the backup shows a secret")
	}
	if m, err := old.LastBackup(testContext(t)); err != nil || m.Revision != old.Snapshot().Revision() && m.Revision != 4 || m.Time.IsZero() {
		t.Errorf("last backup: %+v, %v", m, err)
	}
	cfg := sealed(t, key)
	r := restore(t, cfg, text, false)
	if len(r.Files) != 1 || r.Files[0].Name != file.Name || !bytes.Equal(r.Files[0].Content, file.Content) {
		t.Errorf("files: %+v", r.Files)
	}
	if r.Epoch == old.Epoch() || r.Revision != 5 || r.Counts.Resources != 253 || r.Replaced != 0 {
		t.Errorf("%+v", r)
	}
	s := open(t, cfg)
	follow(t, s)
	if s.Epoch() != r.Epoch || !slices.Equal(s.Ancestors(), []string{old.Epoch()}) || s.Stats().Mismatches+s.Stats().Unreadable != 0 {
		t.Fatalf("epoch %s, ancestors %v, %+v", s.Epoch(), s.Ancestors(), s.Stats())
	}
	snap := s.Snapshot()
	if snap.Revision() != 5 || count(snap, "Timeout", "") != 252 || label(snap, "gone") != "" || label(snap, "internal") != "1" || secretText(t, s, "key") != "hush-hush" {
		t.Fatalf("revision %d, %d timeouts", snap.Revision(), count(snap, "Timeout", ""))
	}
	// The history is there with its contents, and says what happened.
	all, err := s.History(testContext(t), 0, 0)
	if err != nil || len(all) != 4 || all[0].Count != 0 || !strings.Contains(all[0].Message, old.Epoch()) {
		t.Fatalf("%+v, %v", all, err)
	}
	large, err := s.ShowChange(testContext(t), all[2].Seq)
	if err != nil || len(large.Keys) != 250 || large.Keys[0].After == nil {
		t.Fatalf("%v", err)
	}
	// Life goes on, also through a start.
	c := commitOps(t, s, put("a", "2").at(1))
	if c.Revision != 6 || c.Seq != all[0].Seq+1 || label(wait(t, s, 6), "a") != "2" {
		t.Fatalf("%+v", c)
	}
}

func TestRestoreInPlace(t *testing.T) {
	key := keyFile(t)
	cfg := sealed(t, key)
	s := filled(t, cfg)
	text := backUp(t, s)
	before := s.Epoch()
	commitOps(t, s, put("a", "newer"), secret("key", "other"))
	s.Close()
	if _, err := Restore(testContext(t), cfg, bytes.NewReader(text), false); !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), "revision 5") {
		t.Fatalf("a store that is not empty: %v", err)
	}
	r := restore(t, cfg, text, true)
	if r.Replaced != 5 || r.ReplacedEpoch != before {
		t.Errorf("%+v", r)
	}
	s = open(t, cfg)
	if label(s.Snapshot(), "a") != "1" || secretText(t, s, "key") != "hush-hush" || s.Epoch() == before || !slices.Equal(s.Ancestors(), []string{before}) {
		t.Fatalf("a is %s, ancestors %v", label(s.Snapshot(), "a"), s.Ancestors())
	}
	// And once more, from a backup of what was restored.
	commitOps(t, s, put("b", "1"))
	second, middle := backUp(t, s), s.Epoch()
	s.Close()
	restore(t, cfg, second, true)
	s = open(t, cfg)
	if label(s.Snapshot(), "b") != "1" || !slices.Equal(s.Ancestors(), []string{middle, before}) {
		t.Fatalf("ancestors %v, of %s and %s", s.Ancestors(), middle, before)
	}
	// Nothing is left of what was replaced, and software from before finds a format that it doesn't know.
	res, err := s.cli.Get(testContext(t), s.base+"format")
	if err != nil || string(res.Kvs[0].Value) != "2" {
		t.Errorf("format at the base: %v, %v", res, err)
	}
	if keys := keysOutside(t, s); len(keys) != 0 {
		t.Errorf("left behind: %v", keys)
	}
}

// keysOutside are those that belong to no layout in force.
func keysOutside(t *testing.T, s *Store) (out []string) {
	t.Helper()
	all := &Store{cli: s.cli, prefix: s.base}
	h, err := s.readHead(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := all.page(testContext(t), "", h.at, 1000, func(key string, _ []byte, _ int64) error {
		if name := strings.TrimPrefix(key, s.base); name != "current" && name != "format" && !strings.HasPrefix(key, s.prefix) || name == "restored/"+s.Epoch()+"/begun" {
			out = append(out, key)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// A restore that ends anywhere before its switch leaves the old store, and what it wrote goes with the next start.
func TestInterruptedRestoreLeavesTheOldStore(t *testing.T) {
	key := keyFile(t)
	cfg := sealed(t, key)
	s := filled(t, cfg)
	text := backUp(t, s)
	epoch := s.Epoch()
	commitOps(t, s, put("a", "newer"))
	s.Close()
	crash := errors.New("crash")
	for name, end := range map[string]func(*Store, *backup.Reader) error{
		"before the switch": func(s *Store, r *backup.Reader) error {
			s.beforeSwitch = func() error { return crash }
			return restoreOpen(t, s, r)
		},
		"while it writes": func(s *Store, r *backup.Reader) error {
			s.prefix = s.base + restoredPart + "0123/"
			b := &batch{s: s}
			b.put(testContext(t), begunName, "2000-01-01T00:00:00Z")
			b.put(testContext(t), "epoch", "0123")
			b.flush(testContext(t))
			return errors.Join(crash, b.err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := backup.NewReader(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			s, err := connect(testContext(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			err = end(s, r)
			s.Close()
			if !errors.Is(err, crash) {
				t.Fatal(err)
			}
			s = open(t, cfg)
			defer s.Close()
			if s.Epoch() != epoch || label(s.Snapshot(), "a") != "newer" || s.Snapshot().Revision() != 5 {
				t.Fatalf("epoch %s, a %s", s.Epoch(), label(s.Snapshot(), "a"))
			}
			if n := keysBelow(t, s, restoredPart); n != 0 {
				t.Errorf("%d keys left", n)
			}
		})
	}
}

// A replica that runs while a backup is restored into its cluster writes nothing any more, and ends.
func TestReplicasEndWhenTheirStoreIsReplaced(t *testing.T) {
	cfg := Config{Endpoints: []string{cluster(t)}, Seal: keyFile(t)}
	for range 2 { // the second time in place of a restored one
		s := open(t, cfg)
		commitOps(t, s, put("a", "1"))
		text := backUp(t, s)
		ended := make(chan error, 1)
		go func() { ended <- s.Run(testContext(t)) }()
		r := restore(t, cfg, text, true)
		if _, err := s.Commit(testContext(t), Change{Ops: []Op{put("a", "lost")}}); !errors.Is(err, ErrReplaced) {
			t.Errorf("a commit into the old store: %v", err)
		}
		if err := <-ended; !errors.Is(err, ErrReplaced) {
			t.Errorf("following the old store: %v", err)
		}
		next := open(t, cfg)
		if next.Epoch() != r.Epoch || label(next.Snapshot(), "a") != "1" || len(keysOutside(t, next)) != 0 {
			t.Errorf("epoch %s, %v", next.Epoch(), keysOutside(t, next))
		}
	}
}

// What another process is restoring is not swept, and of two restores at once one wins whole.
func TestRestoresAtOnce(t *testing.T) {
	cfg := Config{Endpoints: []string{cluster(t)}, Seal: keyFile(t)}
	s := open(t, cfg)
	commitOps(t, s, put("a", "1"))
	text := backUp(t, s)
	slow, err := connect(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	var won Restored
	slow.beforeSwitch = func() error {
		open(t, cfg)
		if n, err := slow.cli.Get(testContext(t), slow.prefix+"head"); err != nil || len(n.Kvs) != 1 {
			t.Errorf("swept while it was restored: %v", err)
		}
		won = restore(t, cfg, text, true)
		return nil
	}
	r, err := backup.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := restoreOpen(t, slow, r); !errors.Is(err, ErrConflict) {
		t.Fatalf("the slower one: %v", err)
	}
	if next := open(t, cfg); next.Epoch() != won.Epoch {
		t.Errorf("epoch %s, want %s", next.Epoch(), won.Epoch)
	}
}

func TestRestoreRefuses(t *testing.T) {
	key := keyFile(t)
	s := filled(t, sealed(t, key))
	text := backUp(t, s)
	lines := strings.SplitAfter(string(text), "\n")
	flipped := bytes.Clone(text)
	flipped[len(flipped)/2] ^= 1
	for name, test := range map[string]struct {
		text []byte
		seal Sealer
		is   error
		says string
	}{
		"another key":     {text, keyFile(t), ErrWrongKey, "the key file of the global that made it"},
		"no key":          {text, nil, ErrWrongKey, "configure its key file"},
		"cut off":         {text[:len(text)-10], key, backup.ErrDamaged, "cut off"},
		"a missing line":  {[]byte(strings.Join(slices.Delete(slices.Clone(lines), 5, 6), "")), key, backup.ErrDamaged, "a line is missing"},
		"a flipped bit":   {flipped, key, backup.ErrDamaged, "checksum differs"},
		"newer software":  {bytes.Replace(text, []byte("zoneforge-backup 1\n"), []byte("zoneforge-backup 9\n"), 1), key, backup.ErrNewer, "reads up to 1"},
		"something else":  {[]byte("apiVersion: v1\nkind: ConfigMap\n"), key, backup.ErrForeign, "zoneforge backup"},
		"an empty file":   {nil, key, backup.ErrForeign, "line 1"},
		"one that failed": {failing(t, s), key, backup.ErrDamaged, "was not finished"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := embedded(t)
			if cfg.Seal = test.seal; test.seal == nil {
				cfg.Seal = nil
			}
			_, err := Restore(testContext(t), cfg, bytes.NewReader(test.text), true)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("%v", err)
			}
			if _, err := os.Stat(cfg.DataDir); err != nil {
				return // it didn't even come so far
			}
			cfg.Seal = key
			if s := open(t, cfg); s.Snapshot().Revision() != 0 {
				t.Error("something is in force")
			}
		})
	}
}

// failing is a backup during which the store went away.
func failing(t *testing.T, s *Store) []byte {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	var b bytes.Buffer
	out := writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte(`"r00010"`)) {
			cancel()
		}
		return b.Write(p)
	})
	if _, err := s.Backup(ctx, out, backup.Head{}, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("a backup whose store goes away: %v", err)
	}
	return b.Bytes()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
