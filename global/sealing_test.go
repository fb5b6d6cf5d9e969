package global

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/global/rest"
	"github.com/zoneforge/zoneforge/global/store"
)

func (r *running) sealed() (s rest.Sealed) {
	r.Helper()
	if err := json.Unmarshal([]byte(r.want(200, r.admin(), "GET", "/v1/kek", "")), &s); err != nil {
		r.Fatal(err)
	}
	return s
}

// usesOnly is nil when all is sealed with one key.
func usesOnly(s rest.Sealed, key string) error {
	if len(s.Uses) != 1 || s.Uses[0].Key != key || s.Uses[0].Resources < 5 || s.Uses[0].Changes < 1 {
		return errors.New("sealed otherwise")
	}
	return nil
}

// TestKeyEncryptionKeyIsReplaced goes from key to key, with a start between the steps, and never loses what is sealed.
func TestKeyEncryptionKeyIsReplaced(t *testing.T) {
	cfg := config(t.TempDir())
	r := start(t, cfg)
	admin := r.admin()
	r.want(200, admin, "POST", "/v1/changes", `{"resources":[{"type":"Secret","mesh":"default","name":"s","data":"aHVzaA=="}]}`)
	backup := r.want(200, admin, "GET", "/v1/backup", "")
	viewer := r.token(admin, "user", `{"name":"vera","role":"viewer"}`)
	old := r.sealed().Keys[0]
	if s := r.sealed(); !s.Alone || !slices.Equal(s.Replicas["one"], []string{old}) || usesOnly(s, old) != nil {
		t.Fatalf("%+v", s)
	}
	former := r.file("kek")
	r.want(201, admin, "POST", "/v1/kek/keys", "{}")
	next := r.sealed().Keys[0]
	if s := r.sealed(); next == old || !slices.Equal(s.Keys, []string{next, old}) || usesOnly(s, old) != nil {
		t.Fatalf("%+v", s)
	}
	r.want(409, admin, "DELETE", "/v1/kek/keys/"+old, "", "key_needed", "resources")
	r.want(409, admin, "DELETE", "/v1/kek/keys/"+next, "", "key_needed")

	// A start in between knows both, and one without the former misses it.
	restart := func() {
		t.Helper()
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		r = start(t, cfg)
	}
	restart()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	both := r.file("kek")
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "kek"), bytes.Split(both, []byte("\n"))[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := runError(t, cfg); !errors.Is(err, store.ErrWrongKey) || !strings.Contains(err.Error(), old) {
		t.Errorf("without the former key: %v", err)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "kek"), both, 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg)
	r.want(200, admin, "POST", "/v1/kek/reseal", "{}", `"more":false`)
	if s := r.sealed(); usesOnly(s, next) != nil {
		t.Fatalf("%+v", s)
	}
	r.want(204, admin, "DELETE", "/v1/kek/keys/"+old, "")
	restart()
	if s := r.sealed(); !slices.Equal(s.Keys, []string{next}) || usesOnly(s, next) != nil {
		t.Fatalf("%+v", s)
	}
	// Roots, signing keys and secrets are what they were.
	r.want(200, viewer, "GET", "/v1/meshes", "")
	r.want(200, admin, "POST", "/v1/changes", `{"resources":[{"type":"Secret","mesh":"default","name":"s","data":"aHVzaA=="}]}`, `"unchanged":[{"kind":"Secret"`)

	// A key that is put into the file by hand is taken at once where it is asked for; one that is needed is not let go.
	byHand := strings.Repeat("5c", 32)
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "kek"), []byte(byHand+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.want(409, admin, "POST", "/v1/kek/reseal", "{}", "key_needed", next)
	if s := r.sealed(); !slices.Equal(s.Keys, []string{next}) {
		t.Fatalf("%+v", s)
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "kek"), append([]byte(byHand+"\n"), former...), 0o600); err != nil {
		t.Fatal(err)
	}
	r.want(409, admin, "POST", "/v1/kek/reseal", "{}", "key_needed", next)
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "kek"), slices.Concat([]byte(byHand+"\n"), both), 0o600); err != nil {
		t.Fatal(err)
	}
	r.want(200, admin, "POST", "/v1/kek/reseal", "{}")
	third := r.sealed().Keys[0]
	if s := r.sealed(); !slices.Equal(s.Keys, []string{third, next, old}) || usesOnly(s, third) != nil {
		t.Fatalf("%+v", s)
	}
	if len(backup) == 0 || strings.Contains(backup, byHand) {
		t.Error("a backup holds a key")
	}
}

// Replicas seal with one key: none seals anew before all have it first.
func TestReplicasReplaceTheirKeyTogether(t *testing.T) {
	first, second := twoReplicas(t)
	one := start(t, first)
	if err := os.MkdirAll(second.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	share := func(from, to Config, text []byte) {
		t.Helper()
		if text == nil {
			var err error
			if text, err = os.ReadFile(filepath.Join(from.DataDir, "kek")); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(to.DataDir, "kek"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	share(first, second, nil)
	two := start(t, second)
	admin := one.admin()
	old := one.sealed().Keys[0]
	one.eventually(200, admin, "/v1/kek", `"two":["`+old+`"]`)
	one.want(201, admin, "POST", "/v1/kek/keys", "{}")
	s := one.sealed()
	if s.Alone || len(s.Keys) != 2 || s.Keys[0] != old {
		t.Fatalf("%+v", s)
	}
	next := s.Keys[1]
	share(first, second, nil)
	one.eventually(200, admin, "/v1/kek", `"two":["`+old+`","`+next+`"]`)
	lines := strings.Fields(string(one.file("kek")))
	turned := []byte(lines[1] + "\n" + lines[0] + "\n")
	share(first, first, turned)
	one.want(409, admin, "POST", "/v1/kek/reseal", "{}", "replicas_differ", "two")
	one.want(200, admin, "GET", "/v1/meshes", "")
	share(first, second, turned)
	one.eventually(200, admin, "/v1/kek", `"two":["`+next+`","`+old+`"]`)
	one.want(200, admin, "POST", "/v1/kek/reseal", "{}")
	one.want(200, admin, "POST", "/v1/changes", `{"resources":[{"type":"Secret","mesh":"default","name":"s","data":"aHVzaA=="}]}`)
	two.eventually(200, admin, "/v1/meshes/default/secrets/s", `"name":"s"`)
	for _, r := range []*running{one, two} {
		r.want(204, admin, "DELETE", "/v1/kek/keys/"+old, "")
		if s := r.sealed(); !slices.Equal(s.Keys, []string{next}) || usesOnly(s, next) != nil {
			t.Fatalf("%+v", s)
		}
	}
}
