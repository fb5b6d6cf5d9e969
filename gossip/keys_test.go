package gossip

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one, two := base64.StdEncoding.EncodeToString(aes(1)), base64.StdEncoding.EncodeToString(make([]byte, 32))
	write("\n" + one + "\n\n " + two + " \n")
	keys, err := ReadKeys(path)
	if err != nil || len(keys) != 2 || len(keys[0]) != 16 || len(keys[1]) != 32 {
		t.Fatalf("%v %v", keys, err)
	}
	for _, bad := range []string{"", "\n", "not base64!", base64.StdEncoding.EncodeToString([]byte("short")), one + "\nhush-hush\n"} {
		write(bad)
		if _, err := ReadKeys(path); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := ReadKeys(path + "-none"); err == nil {
		t.Error("a missing file gave keys")
	}
}

// A running replica takes the keys that its file holds, and keeps the last ones when it can't.
func TestKeysAreFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(keys ...byte) {
		t.Helper()
		var text strings.Builder
		for _, k := range keys {
			text.WriteString(base64.StdEncoding.EncodeToString(aes(k)) + "\n")
		}
		if err := os.WriteFile(path+".new", []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	var c clock
	a := replica(t, "a", 1, &c)
	write(1)
	run(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go a.FollowKeys(ctx, path, time.Millisecond)
	address := wait(t, a, "itself", sizes(1, 0)).Members[0].Address
	for round, keys := range [][]byte{{1, 2}, {2, 1}, {2}, {}, {3}} {
		write(keys...)
		want := keys
		if len(keys) == 0 {
			want = []byte{2}
		}
		deadline := time.After(patience)
		for {
			if held := a.keyring.GetKeys(); len(held) == len(want) && a.keyring.GetPrimaryKey()[0] == want[0] {
				break
			}
			select {
			case <-time.After(time.Millisecond):
			case <-deadline:
				t.Fatalf("round %d: want %v, has %d keys, the first is %v", round, want, len(a.keyring.GetKeys()), a.keyring.GetPrimaryKey()[0])
			}
		}
	}
	b := replica(t, "b", 3, &c, address)
	run(t, b)
	wait(t, a, "who has the newest key", sizes(2, 0))
}
