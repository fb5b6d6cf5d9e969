package pki

import (
	"errors"
	"strings"
	"testing"
)

func TestParseID(t *testing.T) {
	for in, want := range map[string]ID{
		"spiffe://east.default.mesh.local/backend": {TrustDomain{"east", "default", "mesh.local"}, "backend"},
		"spiffe://e-1.m2.local/back_end.v1":        {TrustDomain{"e-1", "m2", "local"}, "back_end.v1"},
		"spiffe://1.2.3/Demo_svc_8080":             {TrustDomain{"1", "2", "3"}, "Demo_svc_8080"},
		"spiffe://a.b.c/...":                       {TrustDomain{"a", "b", "c"}, "..."},
	} {
		got, err := ParseID(in)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "spiffe://", "spiffe:///a", "http://a.b.c/x", "SPIFFE://a.b.c/x", "spiffe://a.b/x", "spiffe://a.b.c", "spiffe://a.b.c/",
		"spiffe://A.b.c/x", "spiffe://a.b.c:80/x", "spiffe://u@a.b.c/x", "spiffe://a..c/x", "spiffe://a.b.c./x", "spiffe://.a.b.c/x",
		"spiffe://a.b.c/x/", "spiffe://a.b.c/x/y", "spiffe://a.b.c//x", "spiffe://a.b.c/.", "spiffe://a.b.c/..", "spiffe://a.b.c/x?q",
		"spiffe://a.b.c/x#f", "spiffe://a.b.c/%41", "spiffe://a.b.c/ä", "spiffe://a_b.b.c/x", "spiffe://-a.b.c/x", "spiffe://a-.b.c/x",
		"spiffe://a.b.c/x y", "spiffe://a.b.c/x\x00",
		"spiffe://" + strings.Repeat("a", 64) + ".b.c/x",
		"spiffe://a.b." + strings.Repeat("c.", 130) + "c/x",
		"spiffe://a.b.c/" + strings.Repeat("x", 2048),
	} {
		if got, err := ParseID(in); !errors.Is(err, ErrInvalidID) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("spiffe://east.default.mesh.local/backend")
	f.Add("spiffe://a.b/x")
	f.Add("spiffe://a.b.c/%2e%2e")
	f.Fuzz(func(t *testing.T, in string) {
		id, err := ParseID(in)
		if err != nil {
			if !errors.Is(err, ErrInvalidID) || id != (ID{}) {
				t.Fatalf("%q: %v with %v", in, id, err)
			}
			return
		}
		if id.String() != in || id.URI().String() != in {
			t.Fatalf("%q has a second spelling: %q, %q", in, id, id.URI())
		}
	})
}
