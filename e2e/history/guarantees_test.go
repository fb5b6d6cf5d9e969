package history

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// good is a history in which everything holds.
func good() *History {
	h := New()
	h.End(Ended{Zone: "east", Held: "p", Wanted: "p", Live: true, Rejected: []string{"bad"}})
	h.Bad = []string{"bad"}
	h.Final["pair"] = 1002
	for i, g := range []int{1001, 1002} {
		h.Attempted(Attempt{Message: fmt.Sprint(g), Resource: "pair", Generation: g, Acked: true, Answer: Committed{int64(i + 1), uint64(g)}})
		h.Changes = append(h.Changes, Written{int64(i + 1), int64(g), fmt.Sprint(g)})
		h.Saw(Seen{"p", 1, uint64(i), "cluster", "pair", g})
		h.Saw(Seen{"p", 1, uint64(i), "route", "pair", g})
		h.Sampled(Sample{"east", "e", uint64(g)})
		h.Assign(Assigned{"p", "web", []string{"a"}})
	}
	h.Saw(Seen{"p", 1, 2, "never under a policy", "pair", 0})
	h.Refuses(Refused{"p", "cluster", 1003})
	h.Owns(Owned{"p", "default", "endpoint a"})
	h.Owns(Owned{"r", "tenant", "endpoint b"})
	h.Asked(Request{By: "client", Count: 100})
	h.Asked(Request{By: "client", Count: 1, Lost: "503", Without: "the only backend was killed"})
	return h
}

// TestGuarantees: each guarantee is broken by the history that breaks it, and by no other.
func TestGuarantees(t *testing.T) {
	tried := map[string]bool{}
	for _, c := range []struct {
		breaks string
		change func(*History)
	}{
		{"", func(*History) {}},
		{"", func(h *History) { h.Sampled(Sample{"east", "another", 1}) }},
		{"", func(h *History) { h.Attempted(Attempt{Message: "lost", Resource: "pair", Generation: 1003}) }},
		{"", func(h *History) {
			h.Attempted(Attempt{Message: "gone", Resource: "other", Acked: true, Answer: Committed{3, 1003}})
			h.Changes = append(h.Changes, Written{3, 1003, "gone"})
		}},
		{"", func(h *History) {
			h.Attempted(Attempt{Message: "again", Resource: "pair", Generation: 1002, Acked: true, Same: true})
		}},
		{"Converges", func(h *History) { h.Zones[0].Held = "q" }},
		{"Converges", func(h *History) { h.Zones = nil }},
		{"Converges", func(h *History) { h.Saw(Seen{"q", 2, 1, "cluster", "pair", 1001}) }},
		{"", func(h *History) {
			h.Saw(Seen{"q", 2, 1, "cluster", "pair", 1001})
			h.Gone("q")
		}},
		{"NeverBackwards", func(h *History) { h.Sampled(Sample{"east", "e", 1}) }},
		{"NeverBackwards", func(h *History) {
			h.Saw(Seen{"p", 2, 9, "cluster", "pair", 1001})
			h.Saw(Seen{"p", 2, 10, "cluster", "pair", 1002})
		}},
		{"WholeChanges", func(h *History) {
			h.Saw(Seen{"q", 2, 1, "route", "pair", 1001})
			h.Saw(Seen{"q", 2, 1, "cluster", "pair", 1002})
			h.Saw(Seen{"q", 2, 2, "route", "pair", 1002})
		}},
		{"", func(h *History) {
			h.Final["breaker"] = 1001
			h.Saw(Seen{"q", 2, 1, "cluster", "breaker", 1001})
			h.Saw(Seen{"q", 2, 1, "route", "pair", 1002})
		}},
		{"RejectIsolated", func(h *History) { h.Zones[0].Live = false }},
		{"RejectIsolated", func(h *History) { h.Zones[0].Rejected = nil }},
		{"LastGoodKept", func(h *History) { h.Saw(Seen{"p", 2, 3, "cluster", "pair", 0}) }},
		{"LastGoodKept", func(h *History) {
			h.Saw(Seen{"p", 2, 3, "cluster", "pair", 0})
			h.Saw(Seen{"p", 2, 4, "cluster", "pair", 1002})
		}},
		{"NoForeignMesh", func(h *History) { h.Owns(Owned{"r", "tenant", "endpoint a"}) }},
		{"EndpointsNeverEmptied", func(h *History) { h.Assign(Assigned{"p", "web", nil}) }},
		{"", func(h *History) {
			h.Vanishing = []string{"caller"}
			h.Assign(Assigned{"p", "caller.default", []string{"a"}})
			h.Assign(Assigned{"p", "caller.default", nil})
		}},
		{"NoLostAck", func(h *History) { h.Changes = h.Changes[:1] }},
		{"NoLostAck", func(h *History) { h.Changes[1].Revision++ }},
		{"NoLostAck", func(h *History) {
			h.Final["other"] = 1001
			h.Attempted(Attempt{Message: "1001", Resource: "other", Generation: 1005})
		}},
		{"NoLostAck", func(h *History) {
			h.Final["other"] = 1001 // a delete that came back
			h.Attempted(Attempt{Message: "gone", Resource: "other", Acked: true, Answer: Committed{3, 1003}})
			h.Changes = append(h.Changes, Written{3, 1003, "gone"})
		}},
		{"NoLostAck", func(h *History) {
			h.Attempted(Attempt{Message: "again", Resource: "pair", Generation: 1001, Acked: true, Same: true})
		}},
		{"RequestsServed", func(h *History) { h.Asked(Request{By: "client", Count: 1, Lost: "503"}) }},
	} {
		h := good()
		c.change(h)
		broken := slices.Collect(maps.Keys(h.Judge()))
		if c.breaks == "" && len(broken) > 0 || c.breaks != "" && !slices.Equal(broken, []string{c.breaks}) {
			t.Errorf("a history that breaks %q broke %v", c.breaks, h.Judge())
		}
		tried[c.breaks] = true
	}
	for _, g := range Guarantees {
		if !tried[g.Name] {
			t.Errorf("no history breaks %s", g.Name)
		}
	}
}

// TestFile: a history is left as lines, each of them JSON.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	h := good()
	h.Note("step %d", 1)
	if err := h.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if want := len(h.entries) + 1; len(lines) != want {
		t.Errorf("%d lines, want %d", len(lines), want)
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}
