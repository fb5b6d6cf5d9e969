package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Guarantee is a validator by its name in docs/guarantees.md; Check gives what breaks it.
type Guarantee struct {
	Name  string
	Check func(*History) []string
}

// Guarantees are all of them.
var Guarantees = []Guarantee{
	{"Converges", converges},
	{"NeverBackwards", neverBackwards},
	{"WholeChanges", wholeChanges},
	{"RejectIsolated", rejectIsolated},
	{"LastGoodKept", lastGoodKept},
	{"NoForeignMesh", noForeignMesh},
	{"EndpointsNeverEmptied", endpointsNeverEmptied},
	{"NoLostAck", noLostAck},
	{"RequestsServed", requestsServed},
}

// Judge runs all validators, and gives what is broken by guarantee.
func (h *History) Judge() map[string][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	broken := map[string][]string{}
	for _, g := range Guarantees {
		if b := g.Check(h); len(b) > 0 {
			broken[g.Name] = b
		}
	}
	return broken
}

// converges: every zone holds exactly what global means it to hold, and every proxy was given the newest generation of each policy.
func converges(h *History) (broken []string) {
	if len(h.Zones) == 0 {
		return []string{"no zone was looked at"}
	}
	for _, z := range h.Zones {
		if z.Held != z.Wanted {
			broken = append(broken, fmt.Sprintf("zone %s holds %s, global means %s", z.Zone, z.Held, z.Wanted))
		}
	}
	newest := map[string]Seen{}
	for _, s := range h.Seen {
		newest[s.Proxy+" "+s.Resource] = s
	}
	for key, s := range newest {
		// Without its policy, or gone: that is LastGoodKept's.
		if want := h.Final[s.Policy]; s.Generation != want && s.Generation != 0 && !slices.Contains(h.Left, s.Proxy) {
			broken = append(broken, fmt.Sprintf("%s is of generation %d of %s, global has %d", key, s.Generation, s.Policy, want))
		}
	}
	slices.Sort(broken)
	return broken
}

// neverBackwards: within an epoch no zone's revision falls, and no proxy is given an older generation after a newer one.
func neverBackwards(h *History) (broken []string) {
	at := map[string]uint64{}
	for _, s := range h.Samples {
		key := s.Zone + " " + s.Epoch
		if s.Revision < at[key] {
			broken = append(broken, fmt.Sprintf("zone %s went from revision %d to %d in epoch %s", s.Zone, at[key], s.Revision, s.Epoch))
		}
		at[key] = s.Revision
	}
	had := map[string]Seen{}
	for _, s := range h.Seen {
		if s.Generation == 0 {
			continue
		}
		key := s.Proxy + " " + s.Resource
		if before := had[key]; s.Generation < before.Generation {
			broken = append(broken, fmt.Sprintf("%s went from generation %d (stream %d) to %d (stream %d)", key, before.Generation, before.Stream, s.Generation, s.Stream))
		}
		had[key] = s
	}
	return broken
}

// wholeChanges: what one change wrote is in one configuration revision of a proxy, or none of it is.
func wholeChanges(h *History) (broken []string) {
	type configuration struct {
		proxy    string
		stream   int
		revision uint64
		policy   string
	}
	first := map[configuration]Seen{}
	for _, s := range h.Seen {
		if s.Generation == 0 {
			continue
		}
		key := configuration{s.Proxy, s.Stream, s.Revision, s.Policy}
		before, ok := first[key]
		if !ok {
			first[key] = s
		} else if before.Generation != s.Generation {
			broken = append(broken, fmt.Sprintf("%s, stream %d, revision %d: %s is of generation %d and %s of %d",
				s.Proxy, s.Stream, s.Revision, before.Resource, before.Generation, s.Resource, s.Generation))
		}
	}
	return broken
}

// rejectIsolated: each zone names exactly the records that it can't use, and the change that came last is live beside them.
func rejectIsolated(h *History) (broken []string) {
	for _, z := range h.Zones {
		if !slices.Equal(z.Rejected, h.Bad) {
			broken = append(broken, fmt.Sprintf("zone %s rejects %v, want %v", z.Zone, z.Rejected, h.Bad))
		}
		if !z.Live {
			broken = append(broken, fmt.Sprintf("zone %s: the last change is not live", z.Zone))
		}
	}
	return broken
}

// lastGoodKept: a proxy that was given a resource under a policy is never given it without one, nor is the resource taken from it:
// the policies of the run are never deleted, only replaced, at times by what no zone can use, at times by what a proxy rejects.
func lastGoodKept(h *History) (broken []string) {
	had := map[string]Seen{}
	for _, s := range h.Seen {
		key := s.Proxy + " " + s.Resource
		if before := had[key]; s.Generation == 0 && before.Generation != 0 {
			broken = append(broken, fmt.Sprintf("%s lost generation %d of %s (stream %d) and has none (stream %d)", key, before.Generation, s.Policy, before.Stream, s.Stream))
		}
		had[key] = s
	}
	return broken
}

// noForeignMesh: what belongs to one mesh is given to nobody of another.
func noForeignMesh(h *History) (broken []string) {
	of := map[string]Owned{}
	for _, o := range h.Owned {
		if before, ok := of[o.What]; ok && before.Mesh != o.Mesh {
			broken = append(broken, fmt.Sprintf("%s was given to %s of mesh %s and to %s of mesh %s", o.What, before.By, before.Mesh, o.By, o.Mesh))
			continue
		}
		of[o.What] = o
	}
	return broken
}

// endpointsNeverEmptied: a proxy that had endpoints of a service is never given none, as its backends live all the time.
func endpointsNeverEmptied(h *History) (broken []string) {
	had := map[string][]string{}
	for _, a := range h.Assigned {
		key := a.Proxy + " " + a.Name
		service, _, _ := strings.Cut(a.Name, ".")
		if len(a.Addresses) == 0 && len(had[key]) > 0 && !slices.Contains(h.Vanishing, service) {
			broken = append(broken, fmt.Sprintf("%s was given no endpoint after %v", key, had[key]))
		}
		had[key] = a.Addresses
	}
	return broken
}

// noLostAck: a change that was answered with success is in the history with that number and revision, and of each resource global
// has what the last such change wrote, or what one of unknown outcome wrote after it.
func noLostAck(h *History) (broken []string) {
	byMessage := map[string]Written{}
	for _, w := range h.Changes {
		byMessage[w.Message] = w
	}
	possible := map[string][]int{}
	for _, a := range h.Attempts {
		w, there := byMessage[a.Message]
		switch {
		case a.Acked && a.Same:
		case a.Acked && !there:
			broken = append(broken, fmt.Sprintf("change %q was acknowledged as %d and is not in the history", a.Message, a.Answer.Change))
		case a.Acked && (w.Change != a.Answer.Change || uint64(w.Revision) != a.Answer.Revision):
			broken = append(broken, fmt.Sprintf("change %q was acknowledged as %+v and is %+v in the history", a.Message, a.Answer, w))
		}
		if a.Acked {
			possible[a.Resource] = nil
		}
		if a.Acked || there {
			possible[a.Resource] = append(possible[a.Resource], a.Generation)
		}
	}
	for _, resource := range slices.Sorted(maps.Keys(possible)) {
		if !slices.Contains(possible[resource], h.Final[resource]) {
			broken = append(broken, fmt.Sprintf("%s is of generation %d at the end, only %v are possible", resource, h.Final[resource], possible[resource]))
		}
	}
	return broken
}

// requestsServed: no request is lost for which a working path existed.
func requestsServed(h *History) (broken []string) {
	for _, r := range h.Requests {
		if r.Lost != "" && r.Without == "" {
			broken = append(broken, fmt.Sprintf("%s lost %d: %s", r.By, r.Count, r.Lost))
		}
	}
	return broken
}
