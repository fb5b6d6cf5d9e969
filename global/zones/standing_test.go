package zones

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

func TestStandings(t *testing.T) {
	print := func(b byte) []byte { return slices.Repeat([]byte{b}, 32) }
	says := func(mesh string, behind uint32, trusted, used string) *kdsv1.Status {
		one := &kdsv1.Status_Trust{Mesh: mesh, Behind: behind}
		for _, b := range []byte(trusted) {
			one.Trusted = append(one.Trusted, print(b))
		}
		for _, b := range []byte(used) {
			one.Used = append(one.Used, print(b))
		}
		if behind > 0 {
			one.Waiting = []string{"web-1"}
		}
		return &kdsv1.Status{Trust: []*kdsv1.Status_Trust{{Mesh: "other"}, one}}
	}
	holds := func(proxies uint32, s *kdsv1.Status) *kdsv1.Status {
		s.Trust[1].Proxies = &proxies
		return s
	}
	here := func(name string, s *kdsv1.Status) *replica {
		return &replica{name: name, version: "1.2", session: &session{}, status: s}
	}
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		replicas         []*replica
		problem          string
		trusted, used    string
		behind, waitings int
		idle             bool
	}{
		"one replica":                      {replicas: []*replica{here("a", says("m", 0, "on", "o"))}, trusted: "no", used: "o"},
		"two that differ":                  {replicas: []*replica{here("a", says("m", 1, "on", "n")), here("b", says("m", 2, "o", "o"))}, trusted: "o", used: "no", behind: 3, waitings: 2},
		"one of another replica's":         {replicas: []*replica{{name: "a", peer: "global-2", status: says("m", 0, "on", "n")}}, trusted: "no", used: "n"},
		"one that went beside one that is": {replicas: []*replica{here("a", says("m", 0, "on", "n")), {name: "b", status: says("m", 0, "o", "o")}}, trusted: "no", used: "n"},
		"one that has said nothing":        {replicas: []*replica{here("a", says("m", 0, "on", "n")), here("b", says("x", 0, "", ""))}, problem: "its replica b, of version 1.2, has not said which roots it trusts"},
		"two without proxies":              {replicas: []*replica{here("a", holds(0, says("m", 0, "on", "n"))), here("b", holds(0, says("m", 0, "on", "n")))}, trusted: "no", used: "n", idle: true},
		"one with a proxy":                 {replicas: []*replica{here("a", holds(0, says("m", 0, "on", "n"))), here("b", holds(1, says("m", 0, "on", "n")))}, trusted: "no", used: "n"},
		"gone without proxies":             {replicas: []*replica{{name: "a", since: since, status: holds(0, says("m", 0, "on", "n"))}}, problem: "it is not connected since 2026-01-02T03:04:05Z"},
		"gone":                             {replicas: []*replica{{name: "a", since: since, status: says("m", 0, "on", "n")}}, problem: "it is not connected since 2026-01-02T03:04:05Z"},
	} {
		z := newZone()
		for _, rep := range c.replicas {
			z.replicas[rep.name] = rep
		}
		got := z.standing("east", "m")
		first := func(prints [][32]byte) string {
			var out []string
			for _, p := range prints {
				out = append(out, string(p[:1]))
			}
			slices.Sort(out)
			return strings.Join(out, "")
		}
		if got.Zone != "east" || got.Problem != c.problem || first(got.Trusted) != c.trusted || first(got.Used) != c.used || got.Behind != c.behind || got.Idle != c.idle || len(got.Waiting) != c.waitings {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := (*zone)(nil).standing("east", "m"); got.Problem == "" {
		t.Errorf("%+v", got)
	}
}

// What a zone says of roots is bounded, and what is no fingerprint does not count.
func TestTrustIsBounded(t *testing.T) {
	many := &kdsv1.Status_Trust{Mesh: "m", Trusted: slices.Repeat([][]byte{{1}}, 100), Waiting: slices.Repeat([]string{strings.Repeat("x", 10_000)}, 100)}
	got := boundTrust(slices.Repeat([]*kdsv1.Status_Trust{many}, 2000))
	if len(got) != maxTrust || len(got[0].GetTrusted()) != maxNames || len(got[0].GetWaiting()) != maxNames || len(got[0].GetWaiting()[0]) > maxText+3 {
		t.Errorf("%d meshes, %d roots, %d names of %d bytes", len(got), len(got[0].GetTrusted()), len(got[0].GetWaiting()), len(got[0].GetWaiting()[0]))
	}
	if p := prints(many.GetTrusted()); !reflect.DeepEqual(p, map[[32]byte]bool{}) {
		t.Errorf("%v", p)
	}
}
