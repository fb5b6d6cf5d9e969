package federation_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A generation is written into durations and counts of policies, so that a proxy's configuration tells which change it is of.
const (
	firstGeneration = 1001
	lastGeneration  = 4999
)

func generationOf(d time.Duration) int {
	if n := int(d / time.Millisecond); n >= firstGeneration && n <= lastGeneration {
		return n
	}
	return 0
}

// attempt is a change that was sent.
type attempt struct {
	message string
	// resource and generation that it wrote.
	resource   string
	generation int
	// acked says that it was answered with success; else nothing is known.
	acked  bool
	answer committed
}

// written is what was found in global's history at the end.
type written struct {
	Change   int64
	Revision int64
	Message  string
}

// sample is a zone's revision as global told it.
type sample struct {
	zone, epoch string
	revision    uint64
}

// seen is a generation that a proxy was given.
type seen struct {
	proxy      string
	stream     int
	revision   uint64 // of the proxy's configuration
	resource   string
	generation int
}

// assigned are the endpoints that a proxy was given.
type assigned struct {
	proxy, name string
	addresses   []string
}

// ended is what was found of a zone at the end, after calm.
type ended struct {
	zone         string
	held, wanted string // positions
	live         bool
	rejected     []string
}

// history is what happened. The lists are in the order in which it did.
type history struct {
	mu          sync.Mutex
	streams     int
	attempts    []attempt
	samples     []sample
	generations []seen
	assignments []assigned
	troubles    map[string]string
	// Of the end.
	changes []written
	final   map[string]int // generation by resource, as global has it
	zones   []ended
	// bad are the keys of records that no zone can use.
	bad []string
	// vanishing are services of which the only backend's stream is ended on purpose; its end is the backend's.
	vanishing []string
}

func newHistory() *history { return &history{troubles: map[string]string{}, final: map[string]int{}} }

func (h *history) began() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams++
	return h.streams
}

func (h *history) trouble(proxy string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.troubles[proxy] = fmt.Sprint(err)
}

func (h *history) generation(proxy string, stream int, revision uint64, resource string, generation int) {
	if generation == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.generations = append(h.generations, seen{proxy, stream, revision, resource, generation})
}

func (h *history) endpoints(proxy, name string, addresses []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.assignments = append(h.assignments, assigned{proxy, name, addresses})
}

func (h *history) attempted(a attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attempts = append(h.attempts, a)
}

func (h *history) sampled(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.samples = append(h.samples, s)
}

// newest are the addresses that a proxy has under the part of a name.
func (h *history) newest(proxy, name string) (out []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.assignments {
		if a.proxy == proxy && strings.Contains(a.name, name) {
			out = a.addresses
		}
	}
	return out
}

// guarantees are the validators by their names in docs/guarantees.md; each gives what breaks it.
var guarantees = []struct {
	name  string
	check func(*history) []string
}{
	{"Converges", converges},
	{"NeverBackwards", neverBackwards},
	{"WholeChanges", wholeChanges},
	{"RejectIsolated", rejectIsolated},
	{"EndpointsNeverEmptied", endpointsNeverEmptied},
	{"NoLostAck", noLostAck},
}

// judge runs all validators.
func (h *history) judge(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range guarantees {
		t.Run(g.name, func(t *testing.T) {
			broken := g.check(h)
			for _, b := range broken[:min(len(broken), 10)] {
				t.Error(b)
			}
			if n := len(broken); n > 10 {
				t.Errorf("and %d more", n-10)
			}
		})
	}
}

// converges: every zone holds exactly what global means it to hold, and every proxy was given the newest generation.
func converges(h *history) (broken []string) {
	if len(h.zones) == 0 {
		return []string{"no zone was looked at"}
	}
	for _, z := range h.zones {
		if z.held != z.wanted {
			broken = append(broken, fmt.Sprintf("zone %s holds %s, global means %s", z.zone, z.held, z.wanted))
		}
	}
	newest := map[string]seen{}
	for _, s := range h.generations {
		newest[s.proxy+" "+s.resource] = s
	}
	for key, s := range newest {
		if s.generation != h.final["pair"] {
			broken = append(broken, fmt.Sprintf("%s is of generation %d, global has %d", key, s.generation, h.final["pair"]))
		}
	}
	slices.Sort(broken)
	return broken
}

// neverBackwards: within an epoch no zone's revision falls, and no proxy is given an older generation after a newer one.
func neverBackwards(h *history) (broken []string) {
	at := map[string]uint64{}
	for _, s := range h.samples {
		key := s.zone + " " + s.epoch
		if s.revision < at[key] {
			broken = append(broken, fmt.Sprintf("zone %s went from revision %d to %d in epoch %s", s.zone, at[key], s.revision, s.epoch))
		}
		at[key] = s.revision
	}
	had := map[string]seen{}
	for _, s := range h.generations {
		key := s.proxy + " " + s.resource
		if before := had[key]; s.generation < before.generation {
			broken = append(broken, fmt.Sprintf("%s went from generation %d (stream %d) to %d (stream %d)", key, before.generation, before.stream, s.generation, s.stream))
		}
		had[key] = s
	}
	return broken
}

// wholeChanges: what one change wrote is in one configuration revision of a proxy, or none of it is.
func wholeChanges(h *history) (broken []string) {
	type configuration struct {
		proxy    string
		stream   int
		revision uint64
	}
	first := map[configuration]seen{}
	for _, s := range h.generations {
		key := configuration{s.proxy, s.stream, s.revision}
		before, ok := first[key]
		if !ok {
			first[key] = s
		} else if before.generation != s.generation {
			broken = append(broken, fmt.Sprintf("%s, stream %d, revision %d: %s is of generation %d and %s of %d",
				s.proxy, s.stream, s.revision, before.resource, before.generation, s.resource, s.generation))
		}
	}
	return broken
}

// rejectIsolated: each zone names exactly the records that it can't use, and the change that came last is live beside them.
func rejectIsolated(h *history) (broken []string) {
	for _, z := range h.zones {
		if !slices.Equal(z.rejected, h.bad) {
			broken = append(broken, fmt.Sprintf("zone %s rejects %v, want %v", z.zone, z.rejected, h.bad))
		}
		if !z.live {
			broken = append(broken, fmt.Sprintf("zone %s: the last change is not live", z.zone))
		}
	}
	return broken
}

// endpointsNeverEmptied: a proxy that had endpoints of a service is never given none, as its backends live all the time.
func endpointsNeverEmptied(h *history) (broken []string) {
	had := map[string][]string{}
	for _, a := range h.assignments {
		key := a.proxy + " " + a.name
		service, _, _ := strings.Cut(a.name, ".")
		if len(a.addresses) == 0 && len(had[key]) > 0 && !slices.Contains(h.vanishing, service) {
			broken = append(broken, fmt.Sprintf("%s was given no endpoint after %v", key, had[key]))
		}
		had[key] = a.addresses
	}
	return broken
}

// noLostAck: a change that was answered with success is in the history with that number and revision, and of each resource global
// has what the last such change wrote, or what one of unknown outcome wrote after it.
func noLostAck(h *history) (broken []string) {
	byMessage := map[string]written{}
	for _, w := range h.changes {
		byMessage[w.Message] = w
	}
	possible := map[string][]int{}
	for _, a := range h.attempts {
		w, there := byMessage[a.message]
		switch {
		case a.acked && !there:
			broken = append(broken, fmt.Sprintf("change %q was acknowledged as %d and is not in the history", a.message, a.answer.Change))
		case a.acked && (w.Change != a.answer.Change || uint64(w.Revision) != a.answer.Revision):
			broken = append(broken, fmt.Sprintf("change %q was acknowledged as %+v and is %+v in the history", a.message, a.answer, w))
		}
		if a.acked {
			possible[a.resource] = nil
		}
		if a.acked || there {
			possible[a.resource] = append(possible[a.resource], a.generation)
		}
	}
	for resource, generations := range possible {
		if !slices.Contains(generations, h.final[resource]) {
			broken = append(broken, fmt.Sprintf("%s is of generation %d at the end, only %v are possible", resource, h.final[resource], generations))
		}
	}
	slices.Sort(broken)
	return broken
}

// TestValidators: each guarantee is broken by the history that breaks it, and by no other.
func TestValidators(t *testing.T) {
	good := func() *history {
		h := newHistory()
		h.zones = []ended{{zone: "east", held: "p", wanted: "p", live: true, rejected: []string{"bad"}}}
		h.bad = []string{"bad"}
		h.final["pair"] = 1002
		for i, g := range []int{1001, 1002} {
			h.attempted(attempt{message: fmt.Sprint(g), resource: "pair", generation: g, acked: true, answer: committed{int64(i + 1), uint64(g)}})
			h.changes = append(h.changes, written{int64(i + 1), int64(g), fmt.Sprint(g)})
			h.generation("p", 1, uint64(i), "cluster", g)
			h.generation("p", 1, uint64(i), "route", g)
			h.sampled(sample{"east", "e", uint64(g)})
			h.endpoints("p", "web", []string{"a"})
		}
		return h
	}
	for _, c := range []struct {
		breaks string
		change func(*history)
	}{
		{"", func(*history) {}},
		{"", func(h *history) { h.sampled(sample{"east", "another", 1}) }},
		{"", func(h *history) {
			h.attempted(attempt{message: "lost", resource: "pair", generation: 1003})
		}},
		{"Converges", func(h *history) { h.zones[0].held = "q" }},
		{"Converges", func(h *history) { h.generation("q", 2, 1, "cluster", 1001) }},
		{"NeverBackwards", func(h *history) { h.sampled(sample{"east", "e", 1}) }},
		{"NeverBackwards", func(h *history) {
			h.generation("p", 2, 9, "cluster", 1001)
			h.generation("p", 2, 10, "cluster", 1002)
		}},
		{"WholeChanges", func(h *history) {
			h.generation("q", 2, 1, "route", 1001)
			h.generation("q", 2, 1, "cluster", 1002)
			h.generation("q", 2, 2, "route", 1002)
		}},
		{"RejectIsolated", func(h *history) { h.zones[0].live = false }},
		{"RejectIsolated", func(h *history) { h.zones[0].rejected = nil }},
		{"EndpointsNeverEmptied", func(h *history) { h.endpoints("p", "web", nil) }},
		{"", func(h *history) {
			h.vanishing = []string{"caller"}
			h.endpoints("p", "caller.default", []string{"a"})
			h.endpoints("p", "caller.default", nil)
		}},
		{"NoLostAck", func(h *history) { h.changes = h.changes[:1] }},
		{"NoLostAck", func(h *history) { h.changes[1].Revision++ }},
		{"NoLostAck", func(h *history) {
			h.final["other"] = 1001
			h.attempted(attempt{message: "1001", resource: "other", generation: 1005})
		}},
	} {
		h := good()
		c.change(h)
		for _, g := range guarantees {
			if broken := g.check(h); (len(broken) > 0) != (g.name == c.breaks) {
				t.Errorf("%s on a history that breaks %q: %v", g.name, c.breaks, broken)
			}
		}
	}
}
