package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zoneforge/zoneforge/backup"
	"github.com/zoneforge/zoneforge/resource"
)

var samples = flag.Bool("samples", false, "write samples of the newest formats where there are none; those that are there are never changed")

// Samples of the first formats: the keys of a store with a change that was committed and not rolled out, a backup of it, and the key
// that both are sealed with, which is in use nowhere.
const (
	sampleStore  = "testdata/store-1.json"
	sampleBackup = "testdata/backup-1.backup"
	sampleKey    = "testdata/kek-1"
)

// sampleSeal is the samples' key, in a file that is closed to others.
func sampleSeal(t *testing.T) *KeyFile {
	t.Helper()
	text, err := os.ReadFile(sampleKey)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func writeSamples(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(sampleKey, []byte(strings.Repeat("5a", 32)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t, sealed(t, sampleSeal(t)))
	commitOps(t, s, put("a", "1"), put("gone", "1"), secret("key", "hush-hush"))
	commitOps(t, s, Op{Key: timeoutKey("gone"), Delete: true})
	if err := os.WriteFile(sampleBackup, backUp(t, s, backup.File{Name: "tls/server-ca.crt", Content: []byte("a certificate")}), 0o644); err != nil {
		t.Fatal(err)
	}
	s.beforeRollOut = func() error { return errors.New("crash") }
	commitOps(t, s, manyOps(maxTxnOps+20, "1")...)
	keys := map[string][]byte{}
	res, err := s.cli.Get(testContext(t), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range res.Kvs {
		keys[string(kv.Key)] = kv.Value
	}
	text, err := json.MarshalIndent(keys, "", " ")
	if err == nil {
		err = os.WriteFile(sampleStore, append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What an earlier version left in etcd is read whole, and what it had begun is finished.
func TestStoredStoreIsUnderstood(t *testing.T) {
	if _, err := os.Stat(sampleStore); os.IsNotExist(err) && *samples {
		writeSamples(t)
	}
	text, err := os.ReadFile(sampleStore)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string][]byte
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Endpoints: []string{cluster(t)}, Seal: sampleSeal(t)}
	raw, err := connect(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if _, err := raw.cli.Put(testContext(t), key, string(keys[key])); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time as this version left it
		s := open(t, cfg)
		snap := s.Snapshot()
		if s.Stats().Mismatches+s.Stats().Unreadable != 0 || snap.Revision() != 3 || count(snap, "Timeout", "") != maxTxnOps+21 || label(snap, "a") != "1" || secretText(t, s, "key") != "hush-hush" {
			t.Fatalf("revision %d, %d timeouts, %+v", snap.Revision(), count(snap, "Timeout", ""), s.Stats())
		}
		for e := range snap.Each("Timeout", "") {
			if unknown := resource.Unknown(e.Resource.Spec); len(unknown) > 0 {
				t.Errorf("%s has unknown fields %v", e.Resource.Key, unknown)
			}
		}
		history, err := s.History(testContext(t), 0, 0)
		if err != nil || len(history) != 3 || history[0].Count != maxTxnOps+20 || history[2].Author != "ann" {
			t.Fatalf("%+v, %v", history, err)
		}
		for _, c := range history {
			shown, err := s.ShowChange(testContext(t), c.Seq)
			if err != nil || len(shown.Keys) != c.Count {
				t.Errorf("change %d: %v, %v", c.Seq, shown, err)
			}
		}
	}
}

// A backup that an earlier version made can be restored.
func TestStoredBackupIsUnderstood(t *testing.T) {
	text, err := os.ReadFile(sampleBackup)
	if err != nil {
		t.Fatal(err)
	}
	head, counts, err := backup.Check(bytes.NewReader(text))
	if err != nil || head.Revision != 2 || head.Domain != "zoneforge" || counts != (backup.Counts{Resources: 2, Changes: 2, Files: 1}) {
		t.Fatalf("%+v %+v %v", head, counts, err)
	}
	cfg := embedded(t)
	cfg.Seal = sampleSeal(t)
	r := restore(t, cfg, text, false)
	if len(r.Files) != 1 || string(r.Files[0].Content) != "a certificate" {
		t.Errorf("files %+v", r.Files)
	}
	s := open(t, cfg)
	if label(s.Snapshot(), "a") != "1" || label(s.Snapshot(), "gone") != "" || secretText(t, s, "key") != "hush-hush" || s.Stats().Unreadable != 0 {
		t.Errorf("%+v", s.Stats())
	}
}
