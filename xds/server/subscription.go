package server

import (
	"slices"
	"sort"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// wildcard is the name by which a client asks for every resource of a type.
const wildcard = "*"

const (
	// absent is the version of a resource that does not exist: the proxy was told that there is none.
	absent = ""
	// unknown is the version of a resource that the proxy has from another stream, which did not say which.
	unknown = "unknown"
)

// subscription is what one stream asked for and holds of one type.
//
// Invariants: a name is confirmed only when the client told us so, by an ACK with the matching nonce or when its stream
// began; a name in rejected is sent again at that version only by retry; at most one response is in flight; a name of which the
// wanted and the confirmed version differ is in open or in rejected. Maps and slices are nil while they are empty, as they mostly are.
type subscription struct {
	requested bool
	// all is a wildcard subscription.
	all bool
	// firstDue says that the wildcard's first answer, empty or not, is still owed: Envoy's start waits for it.
	firstDue bool
	// table holds the names that were asked for, and what was confirmed.
	table table
	// due names are owed an answer whatever the proxy is known to hold of them.
	due      map[string]bool
	rejected map[string]string
	// retrying are versions that were rejected and are being tried once more; their refusals stand until the proxy takes them.
	retrying map[string]string
	// maybe is what the proxy may hold beside what it confirmed, as it refused a response without saying what of it.
	maybe    map[string][]*xds.Resource
	inflight *inflight
	// nonce is that of the newest response.
	nonce string
	// open are the names that may be owed something, so that a change of one costs nothing for the thousand others.
	open nameSet
	// batch is how many names the next response may have while a bad one is looked for, 0 for any number. It doubles with
	// each ACK.
	batch int
	// world is the newest acknowledged response of a state-of-the-world wildcard.
	world *world
}

type inflight struct {
	nonce string
	sent  cargo
	world *world
	// bytes is the size of its response.
	bytes int
}

// change is what differs between what a proxy should hold and what it holds.
type change struct {
	upserts []*xds.Resource
	// answers are names asked for that do not exist and were never held: nothing can break by saying so at once.
	answers []string
	// removals are names the proxy holds and should lose.
	removals []string
}

func (s *subscription) typeURL() string { return s.table.typeURL() }

// limit cuts a response to the batch, and ends the search when all fits.
func (s *subscription) limit(upserts []*xds.Resource, removed []string) ([]*xds.Resource, []string) {
	if len(upserts)+len(removed) <= s.batch {
		s.batch = 0
	}
	if s.batch == 0 {
		return upserts, removed
	}
	upserts = upserts[:min(len(upserts), s.batch)]
	return upserts, removed[:min(len(removed), s.batch-len(upserts))]
}

// wildcards says whether a client may ask for all of a type without naming them.
func (s *subscription) wildcards() bool {
	return s.typeURL() == xds.TypeCluster || s.typeURL() == xds.TypeListener
}

// lingers says whether resources of the type are never removed: the proxy unsubscribes when it is done with them.
func (s *subscription) lingers() bool {
	return s.typeURL() == xds.TypeRoute || s.typeURL() == xds.TypeExtension
}

func (s *subscription) wants(name string) bool { return s.all || s.table.asksFor(name) }

// subscribe takes the subscription part of a request. It says whether a wildcard began, which opens every name.
func (s *subscription) subscribe(req *discoveryv3.DeltaDiscoveryRequest) bool {
	first := !s.requested
	s.requested = true
	everything := false
	if first {
		versions := req.GetInitialResourceVersions()
		held := make([]xds.Resource, len(versions)) // in one piece, as all of them go when what they stand for is known
		names := sortedKeys(versions)
		s.table.change(names, func(r *row) {
			held[0].Name, held[0].Version = r.name(), versions[r.name()]
			r.set(&held[0])
			held = held[1:]
		})
		s.open.addAll(names)
		// The legacy wildcard: the first request of the type names nothing.
		everything = s.wildcards() && len(req.GetResourceNamesSubscribe()) == 0
	}
	fewer, without := namesOf(req.GetResourceNamesUnsubscribe())
	if without {
		s.all, s.firstDue = false, false
	}
	s.table.change(fewer, func(r *row) {
		if r.asked = false; !s.all {
			r.set(nil)
		}
	})
	if !s.all {
		for _, name := range fewer {
			s.release(name)
		}
	}
	more, with := namesOf(req.GetResourceNamesSubscribe())
	everything = everything || with && s.wildcards() && !s.all
	s.table.change(more, func(r *row) {
		r.asked = true
		if !first || r.has() == nil {
			mark(&s.due, r.name())
		}
	})
	s.open.addAll(more)
	if everything {
		s.all, s.firstDue = true, true
	}
	if !s.all {
		s.table.keep(func(r row) bool {
			if !r.asked {
				s.release(r.name())
			}
			return r.asked
		})
		if first || without || len(fewer) > 0 {
			s.open = slices.DeleteFunc(s.open, func(name string) bool { return !s.table.asksFor(name) })
		}
	}
	return everything
}

// namesOf are the names of a request, sorted and each once, and whether the wildcard was among them.
func namesOf(list []string) (names []string, all bool) {
	names = slices.Sorted(slices.Values(list))
	names = slices.Compact(names)
	if at, found := slices.BinarySearch(names, wildcard); found {
		return slices.Delete(names, at, at+1), true
	}
	return names, false
}

// reopen has a name looked at again, if the proxy wants it, which it says.
func (s *subscription) reopen(name string) (wanted bool) {
	if wanted = s.wants(name); wanted {
		s.open.add(name)
	}
	return wanted
}

// release forgets what is left to do for a name that the proxy does not ask for any more, but for that it is open.
func (s *subscription) release(name string) {
	delete(s.due, name)
	delete(s.rejected, name)
	delete(s.retrying, name)
	delete(s.maybe, name)
}

// retry opens what was rejected and is still wanted. It says whether there is any.
func (s *subscription) retry(desired func(typeURL, name string) *xds.Resource) bool {
	found := false
	for name, version := range s.rejected {
		if version != absent && versionOf(desired(s.typeURL(), name)) == version {
			delete(s.rejected, name)
			if s.retrying == nil {
				s.retrying = map[string]string{}
			}
			s.retrying[name] = version
			s.open.add(name)
			found = true
		}
	}
	return found
}

// refuses says whether the proxy refused a version and has not taken it since.
func (s *subscription) refuses(name, version string, desired func(typeURL, name string) *xds.Resource) bool {
	if v, ok := s.rejected[name]; ok && v == version {
		return true
	}
	v, ok := s.retrying[name]
	return ok && v == version && versionOf(desired(s.typeURL(), name)) == version
}

// diff compares what the proxy holds with the wanted resources, in the order of names, and closes the names that are
// settled. What has become empty is let go of, as it keeps the room of all that was in it.
func (s *subscription) diff(desired func(typeURL, name string) *xds.Resource) change {
	var c change
	open := s.open[:0]
	for _, name := range s.open {
		if s.compare(name, desired(s.typeURL(), name), &c) {
			open = append(open, name)
		}
	}
	clear(s.open[len(open):])
	if s.open = open; len(open) == 0 {
		s.open = nil
	}
	if len(s.due) == 0 {
		s.due = nil
	}
	return c
}

// compare adds to a change what is to be done for a name, of which the proxy should hold a resource or nil. It says whether the name is to
// stay open.
func (s *subscription) compare(name string, resource *xds.Resource, c *change) bool {
	version := versionOf(resource)
	if bad, ok := s.rejected[name]; ok {
		if bad == version {
			delete(s.due, name)
			return false
		}
		delete(s.rejected, name)
	}
	onItsWay := false // this version or another
	if s.inflight != nil {
		var sent *xds.Resource
		if sent, onItsWay = s.inflight.sent.get(name); onItsWay && versionOf(sent) == version && !s.due[name] {
			return true
		}
	}
	known := s.table.of(name)
	has := known.has()
	switch {
	case has != nil && has.Version == version && !s.due[name]:
		if contentOf(has) == nil && resource != nil {
			s.table.confirm(name, resource)
		}
		return onItsWay
	case resource != nil && (s.all || known.asked):
		if c.upserts == nil {
			c.upserts = make([]*xds.Resource, 0, len(s.open))
		}
		c.upserts = append(c.upserts, resource)
	case resource != nil:
		return onItsWay
	case versionOf(has) != absent && s.lingers():
		delete(s.due, name)
	case versionOf(has) != absent, s.due[name] && !known.asked:
		// A name due without having been asked for was in a refused response of which the proxy may have taken it.
		c.removals = append(c.removals, name)
	case s.due[name]:
		c.answers = append(c.answers, name)
	default:
		return onItsWay
	}
	return true
}

// stale appends what the proxy holds, or may hold, of the type and should hold no more. It says false when it holds
// something of which only the version is known.
func (s *subscription) stale(to []*xds.Resource, desired func(typeURL, name string) *xds.Resource) ([]*xds.Resource, bool) {
	allKnown := true
	look := func(name string) {
		want := versionOf(desired(s.typeURL(), name))
		if has := s.table.has(name); versionOf(has) != absent && has.Version != want {
			if content := contentOf(has); content == nil {
				allKnown = false
			} else {
				to = append(to, content)
			}
		}
		if s.inflight != nil {
			if sent, _ := s.inflight.sent.get(name); sent != nil && sent.Version != want {
				to = append(to, sent)
			}
		}
		for _, r := range s.maybe[name] {
			if r.Version != want {
				to = append(to, r)
			}
		}
	}
	for _, name := range s.open {
		look(name)
	}
	for name := range s.rejected {
		if !s.open.has(name) {
			look(name)
		}
	}
	return to, allKnown
}

// acknowledge moves the confirmed versions to what the response carried.
func (s *subscription) acknowledge() {
	s.batch *= 2
	names := slices.DeleteFunc(s.inflight.sent.names(), func(name string) bool { return !s.wants(name) })
	s.open.addAll(names)
	s.table.change(names, func(r *row) {
		delete(s.maybe, r.name())
		delete(s.retrying, r.name())
		switch sent, _ := s.inflight.sent.get(r.name()); {
		case sent != nil:
			r.set(sent)
		case s.all && !r.asked:
			// Nothing to remember of a resource that a wildcard subscriber no longer has.
			r.set(nil)
		default:
			r.set(ofVersion(r.name(), absent))
		}
	})
	if s.inflight.world != nil {
		s.world = s.inflight.world
	}
	s.inflight = nil
}

// reject takes a NACK and returns the names that it is about, none when that is yet to be found out. Where Envoy names
// resources in its message it took the others, so only those count as rejected. Where it names none it may have refused
// all for the sake of one, so they are sent again by halves until the bad one is alone. Either way the others are sent
// again, and it ends, as a response of one resource is either taken or leaves that one out.
func (s *subscription) reject(message string) []string {
	all := s.inflight.sent.names()
	var culprits []string
	for _, name := range all {
		if mentions(message, name) {
			culprits = append(culprits, name)
		}
	}
	if len(culprits) == 0 {
		if len(all) > 1 {
			s.batch = len(all) / 2
		} else {
			culprits = all
		}
	}
	for _, name := range all {
		sent, _ := s.inflight.sent.get(name)
		if !s.wants(name) {
			continue
		}
		s.open.add(name)
		if slices.Contains(culprits, name) {
			if s.rejected == nil {
				s.rejected = map[string]string{}
			}
			s.rejected[name] = versionOf(sent)
			delete(s.retrying, name)
			delete(s.due, name)
			if others := slices.DeleteFunc(s.maybe[name], func(r *xds.Resource) bool { return r.Version == versionOf(sent) }); len(others) > 0 {
				s.maybe[name] = others
			} else {
				delete(s.maybe, name)
			}
			continue
		}
		mark(&s.due, name)
		if sent != nil && !slices.Contains(s.maybe[name], sent) {
			if s.maybe == nil {
				s.maybe = map[string][]*xds.Resource{}
			}
			s.maybe[name] = append(s.maybe[name], sent)
		}
	}
	return culprits
}

// answered says whether the proxy was told about the name: it holds it, knows that there is none, or refused it.
func (s *subscription) answered(name string) bool {
	if !s.wants(name) || s.due[name] {
		return false
	}
	_, rejected := s.rejected[name]
	return rejected || s.table.has(name) != nil
}

// holds says whether the proxy has some version of the name.
func (s *subscription) holds(name string) bool { return versionOf(s.table.has(name)) != absent }

// mentions reports whether the message names the resource as a whole word, so that "web" is not found in "web-2".
func mentions(message, name string) bool {
	if name == "" {
		return false
	}
	for from := 0; ; {
		at := strings.Index(message[from:], name)
		if at < 0 {
			return false
		}
		at += from
		end := at + len(name)
		if (at == 0 || !nameByte(message[at-1])) && (end == len(message) || !nameByte(message[end])) {
			return true
		}
		from = at + 1
	}
}

func nameByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("-_./", b) >= 0
}

func versionOf(r *xds.Resource) string {
	if r == nil {
		return absent
	}
	return r.Version
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
