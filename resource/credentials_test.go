package resource

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestAPIKeys(t *testing.T) {
	for _, c := range []struct{ name, text, want, err string }{
		{"yaml", "zeta: k3\nacme:\n  - k1\n  - k2\n", "acme=k1 acme=k2 zeta=k3", ""},
		{"json", `{"zeta": "k3", "acme": ["k1", "k2"]}`, "acme=k1 acme=k2 zeta=k3", ""},
		{"numbers are texts", "acme: 0123\nzeta: 1e3\n", "acme=0123 zeta=1e3", ""},
		{"nothing", "", "", "no mapping of clients to keys"},
		{"a list", "- hush\n", "", "no mapping of clients to keys"},
		{"a lone key", "hush", "", "no mapping of clients to keys"},
		{"two documents", "a: hush1\n---\nb: hush2\n", "", "no mapping of clients to keys"},
		{"bad yaml", "a: 'hush\nb: hush2", "", "no mapping of clients to keys"},
		{"no client", "{}", "", "names no client"},
		{"no key", "acme: []\n", "", "line 1: client acme has no key"},
		{"null", "a: hush\nacme:\n", "", "line 2: a key of client acme can't stand in a header"},
		{"space", "acme: hush hush\n", "", "line 1: a key of client acme can't stand in a header"},
		{"nested", "acme: {hush: hush}\n", "", "line 1: a key of client acme can't stand in a header"},
		{"alias", "a: &x hush\nacme: *x\n", "", "line 2: a key of client acme can't stand in a header"},
		{"client twice", "acme: hush1\nacme: hush2\n", "", "line 2: client acme is there already, on line 1"},
		{"key twice", "acme: [hush, hush]\n", "", "line 1: client acme has this key already"},
		{"key of two", "acme: hush\nzeta: hush\n", "", "line 2: clients acme and zeta have the same key"},
		{"client with a line", "\"a\\nb\": hush\n", "", "line 1: the name of a client is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys, err := APIKeys([]byte(c.text))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hush") {
					t.Fatalf("got %v, want an error with %q that quotes no key", err, c.err)
				}
				return
			}
			var got []string
			for _, k := range keys {
				got = append(got, k.Client+"="+k.Key)
			}
			if err != nil || strings.Join(got, " ") != c.want {
				t.Errorf("got %v, %v, want %s", got, err, c.want)
			}
		})
	}
	keys, err := APIKeys([]byte("acme: hush\n"))
	if text := fmt.Sprintf("%v %+v %#v", keys, keys[0], keys); err != nil || strings.Contains(text, "hush") {
		t.Errorf("printing shows the key: %s (%v)", text, err)
	}
}

func TestHtpasswd(t *testing.T) {
	const ann, bob = "ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=", "bob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="
	for _, c := range []struct{ name, text, want, err string }{
		{"sorted", "# users\n\n" + bob + "\r\n" + ann, ann + "\n" + bob + "\n", ""},
		{"nothing", "# none\n", "", "names no user"},
		{"no colon", ann + "\nhush\n", "", "line 2: it is not USER:{SHA}HASH"},
		{"bcrypt", "ann:$2y$05$hush", "", "line 1: the password of user ann is hashed by bcrypt, which Envoy doesn't know: make it with `htpasswd -s`"},
		{"apr1", "ann:$apr1$hush", "", "is hashed by MD5 (apr1)"},
		{"crypt or plain", "ann:hush", "", "is no {SHA} hash"},
		{"damaged", "ann:{SHA}hush", "", "is a damaged {SHA} hash"},
		{"twice", ann + "\n" + ann, "", "line 2: user ann is there already, on line 1"},
		{"no name", ":{SHA}hush", "", "line 1: the name of a user is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Htpasswd([]byte(c.text))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hush") {
					t.Fatalf("got %v, want an error with %q that quotes no hash", err, c.err)
				}
			} else if err != nil || got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// FuzzAPIKeys holds that what is read may stand wherever a key is looked for, and that keys are apart.
func FuzzAPIKeys(f *testing.F) {
	f.Add("acme: [k1, k2]\nzeta: k3\n")
	f.Add(`{"a": "b"}`)
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := APIKeys([]byte(text))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, k := range keys {
			if seen[k.Key] || k.Key == "" || strings.ContainsAny(k.Key, " \t\r\n\",;\\\x00") || strings.ContainsAny(k.Client, "\r\n\x00") {
				raw, _ := json.Marshal(k)
				t.Fatalf("%s is read from %q", raw, text)
			}
			seen[k.Key] = true
		}
	})
}
