package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// dying is an etcd client whose process ends with a transaction.
type dying struct {
	clientv3.KV
	left int
	die  func()
}

func (d *dying) Txn(ctx context.Context) clientv3.Txn {
	if d.left--; d.left < 0 {
		d.die()
	}
	return d.KV.Txn(ctx)
}

// sealedStore is one with secrets: of a large change, and such that were changed and deleted since.
func sealedStore(t *testing.T, cfg Config) *Store {
	t.Helper()
	s := filled(t, cfg)
	var many []Op
	for i := range 150 {
		many = append(many, secret(fmt.Sprint("many-", i), fmt.Sprint("hush-", i)))
	}
	commitOps(t, s, many...)
	commitOps(t, s, secret("key", "hush-hush, again"), secret("lost", "hush, lost"))
	commitOps(t, s, Op{Key: secret("lost", "").Key, Delete: true})
	return s
}

// wholeAs checks that nothing was lost and that all is sealed by keys.
func wholeAs(t *testing.T, s *Store, keys ...string) {
	t.Helper()
	if got := secretText(t, s, "key"); got != "hush-hush, again" {
		t.Fatalf("%q", got)
	}
	for i := range 150 {
		if got := secretText(t, s, fmt.Sprint("many-", i)); got != fmt.Sprint("hush-", i) {
			t.Fatalf("%d: %q", i, got)
		}
	}
	list, err := s.History(testContext(t), 100, 0)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, one := range list {
		c, err := s.ShowChange(testContext(t), one.Seq)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range c.Keys {
			for _, r := range []*resource.Resource{k.Before, k.After} {
				if r != nil && k.Key.Kind == "Secret" {
					told[string(resource.Spec[*meshv1.Secret](r).GetData())] = true
				}
			}
		}
	}
	if len(told) != 153 || !told["hush-hush"] || !told["hush, lost"] {
		t.Fatalf("the history knows %d secrets", len(told))
	}
	uses, err := s.KeyUses(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	var used []string
	for _, u := range uses {
		if u.Resources+u.Changes > 0 {
			used = append(used, u.Key)
		}
	}
	slices.Sort(keys)
	if keys != nil && !slices.Equal(used, keys) {
		t.Fatalf("sealed by %+v, want %v", uses, keys)
	}
}

// TestReseal replaces the key of a store by a process that crashes with each of its transactions, one after the other: each time the
// next one finds all that was there, goes on, and in the end nothing needs the former key.
func TestReseal(t *testing.T) {
	key := keyFile(t)
	cfg := sealed(t, key)
	sealedStore(t, cfg).Close()
	s := open(t, cfg)
	old := key.IDs()[0]
	wholeAs(t, s, old)
	text := backUp(t, s)
	former, err := os.ReadFile(key.path)
	if err != nil {
		t.Fatal(err)
	}
	next, err := key.AddKey(true)
	if err != nil || !slices.Equal(key.IDs(), []string{next, old}) {
		t.Fatalf("%v %v", key.IDs(), err)
	}
	s.Close()
	crashes := 0
	for left := 0; ; left++ {
		s = open(t, cfg)
		ctx, cancel := context.WithCancel(testContext(t))
		s.cli.KV = &dying{KV: s.cli.KV, left: left, die: cancel}
		stop := follow(t, s)
		wholeAs(t, s)
		_, err := s.Reseal(ctx)
		cancel()
		stop()
		s.Close()
		if err == nil {
			break
		}
		if crashes++; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if crashes < 3 {
		t.Errorf("%d crashes only", crashes)
	}
	s = open(t, cfg)
	wholeAs(t, s, next)
	if n, err := s.Reseal(testContext(t)); err != nil || n != 0 {
		t.Errorf("%d %v, though nothing was left to do", n, err)
	}
	if err := key.DropKey(next); !errors.Is(err, ErrKeyNeeded) {
		t.Errorf("the key that seals: %v", err)
	}
	if err := key.DropKey(old); err != nil || !slices.Equal(key.IDs(), []string{next}) {
		t.Fatalf("%v %v", key.IDs(), err)
	}
	s.Close()
	wholeAs(t, open(t, cfg), next)

	// The backup from before needs the former key, beside the one that seals now; what comes out of it is sealed anew in turn.
	if _, err := Restore(testContext(t), sealed(t, key), bytes.NewReader(text), true); !errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), old) {
		t.Errorf("without its key: %v", err)
	}
	now, err := os.ReadFile(key.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key.path, append(now, former...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := key.Reload(nil); err != nil {
		t.Fatal(err)
	}
	cfg = sealed(t, key)
	restore(t, cfg, text, false)
	s = open(t, cfg)
	follow(t, s)
	wholeAs(t, s, old, next) // the mark is of the one that seals
	if _, err := s.Reseal(testContext(t)); err != nil {
		t.Fatal(err)
	}
	wholeAs(t, s, next)
}

// A key that resources need is missed at the start, though the store's mark is of another one.
func TestNeededKeyIsMissed(t *testing.T) {
	key := keyFile(t)
	cfg := sealed(t, key)
	s := sealedStore(t, cfg)
	old := key.IDs()[0]
	if _, err := key.AddKey(true); err != nil {
		t.Fatal(err)
	}
	name := s.prefix + sealMark
	mark, err := key.Seal([]byte(markText), []byte(name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.cli.Put(testContext(t), name, string(mark)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := key.DropKey(old); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testContext(t), cfg); !errors.Is(err, ErrWrongKey) || !strings.Contains(err.Error(), old) {
		t.Errorf("%v", err)
	}
}

func TestKeyFileHoldsSeveral(t *testing.T) {
	key := keyFile(t)
	first := key.IDs()[0]
	sealedByFirst, err := key.Seal([]byte("x"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	last, err := key.AddKey(false)
	if err != nil || !slices.Equal(key.IDs(), []string{first, last}) {
		t.Fatalf("%v %v", key.IDs(), err)
	}
	if b, err := key.Seal([]byte("x"), nil); err != nil || key.KeyOf(b) != first {
		t.Errorf("sealed by %s, %v", key.KeyOf(b), err)
	}
	for len(key.IDs()) < maxKeys {
		if _, err := key.AddKey(true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := key.AddKey(true); !errors.Is(err, ErrKeyNeeded) {
		t.Errorf("one more than fit: %v", err)
	}
	if got, err := key.Open(sealedByFirst, []byte("aad")); err != nil || string(got) != "x" {
		t.Errorf("%q %v", got, err)
	}
	if err := key.DropKey("0123456789abcdef"); !errors.Is(err, ErrNoSuchKey) {
		t.Error(err)
	}
	if err := key.DropKey(first); err != nil {
		t.Fatal(err)
	}
	if _, err := key.Open(sealedByFirst, []byte("aad")); !errors.Is(err, ErrNoSuchKey) {
		t.Error(err)
	}
	// What can't be read costs nothing that is there.
	before := key.IDs()
	text, err := os.ReadFile(key.path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"nothing": nil, "half a key": text[:100], "twice": append(slices.Clone(text), text[:65]...)} {
		if err := os.WriteFile(key.path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := key.Reload(nil); err == nil || strings.Contains(err.Error(), string(text[:16])) || !slices.Equal(key.IDs(), before) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
