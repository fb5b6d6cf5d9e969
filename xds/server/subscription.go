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

// absent is the version of a resource that does not exist: the proxy was told that there is none.
const absent = ""

// subscription is what one stream asked for and holds of one type.
//
// Invariants: a name is in confirmed only when the client told us so, by an ACK with the matching nonce or by
// initial_resource_versions; a name in rejected is never sent again at that version; at most one response is in flight.
type subscription struct {
	typeURL   string
	requested bool
	// all is a wildcard subscription.
	all bool
	// firstDue says that the wildcard's first answer, empty or not, is still owed: Envoy's start waits for it.
	firstDue bool
	names    map[string]bool
	// due names are owed an answer whatever the proxy is known to hold of them.
	due       map[string]bool
	confirmed map[string]string
	rejected  map[string]string
	inflight  *inflight
	// batch is how many names the next response may have while a bad one is looked for, 0 for any number. It doubles with
	// each ACK.
	batch int
}

type inflight struct {
	nonce    string
	versions map[string]string
}

// change is what differs between what a proxy should hold and what it holds.
type change struct {
	upserts []*xds.Resource
	// answers are names asked for that do not exist and were never held: nothing can break by saying so at once.
	answers []string
	// removals are names the proxy holds and should lose.
	removals []string
}

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

func newSubscription(typeURL string) *subscription {
	return &subscription{
		typeURL: typeURL, names: map[string]bool{}, due: map[string]bool{},
		confirmed: map[string]string{}, rejected: map[string]string{},
	}
}

func (s *subscription) wants(name string) bool { return s.all || s.names[name] }

// subscribe takes the subscription part of a request.
func (s *subscription) subscribe(req *discoveryv3.DeltaDiscoveryRequest, wildcardType bool) {
	first := !s.requested
	s.requested = true
	if first {
		for name, version := range req.GetInitialResourceVersions() {
			s.confirmed[name] = version
		}
		// The legacy wildcard: the first request of the type names nothing.
		if wildcardType && len(req.GetResourceNamesSubscribe()) == 0 {
			s.all, s.firstDue = true, true
		}
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		if name == wildcard {
			s.all, s.firstDue = false, false
			continue
		}
		delete(s.names, name)
		if !s.all {
			s.forget(name)
		}
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		if name == wildcard {
			if wildcardType && !s.all {
				s.all, s.firstDue = true, true
			}
			continue
		}
		s.names[name] = true
		if _, held := s.confirmed[name]; !first || !held {
			s.due[name] = true
		}
	}
	for name := range s.confirmed {
		if !s.wants(name) {
			s.forget(name)
		}
	}
}

func (s *subscription) forget(name string) {
	delete(s.due, name)
	delete(s.confirmed, name)
	delete(s.rejected, name)
}

// diff compares what the proxy holds with the wanted resources, in the order of names.
func (s *subscription) diff(desired func(name string) *xds.Resource, desiredNames []string) change {
	var c change
	seen := map[string]bool{}
	for _, name := range desiredNames {
		if s.wants(name) {
			seen[name] = true
		}
	}
	for name := range s.confirmed {
		seen[name] = true
	}
	for name := range s.due {
		seen[name] = true
	}
	for name := range s.rejected {
		seen[name] = true
	}
	for _, name := range sortedKeys(seen) {
		resource := desired(name)
		version := absent
		if resource != nil {
			version = resource.Version
		}
		if bad, ok := s.rejected[name]; ok {
			if bad == version {
				delete(s.due, name)
				continue
			}
			delete(s.rejected, name)
		}
		held, known := s.confirmed[name]
		if s.inflight != nil {
			if v, sent := s.inflight.versions[name]; sent && v == version && !s.due[name] {
				continue
			}
		}
		switch {
		case known && held == version && !s.due[name]:
		case resource != nil:
			c.upserts = append(c.upserts, resource)
		case known && held != absent, s.due[name] && !s.names[name]:
			// A name due without having been asked for was in a refused response of which the proxy may have taken it.
			c.removals = append(c.removals, name)
		case s.due[name]:
			c.answers = append(c.answers, name)
		}
	}
	return c
}

// acknowledge moves the confirmed versions to what the response carried.
func (s *subscription) acknowledge() {
	s.batch *= 2
	for name, version := range s.inflight.versions {
		if !s.wants(name) {
			continue
		}
		if version == absent && s.all && !s.names[name] {
			// Nothing to remember of a resource that a wildcard subscriber no longer has.
			delete(s.confirmed, name)
			continue
		}
		s.confirmed[name] = version
	}
	s.inflight = nil
}

// reject takes a NACK and returns the names that it is about, none when that is yet to be found out. Where Envoy names
// resources in its message it took the others, so only those count as rejected. Where it names none it may have refused
// all for the sake of one, so they are sent again by halves until the bad one is alone. Either way the others are sent
// again, and it ends, as a response of one resource is either taken or leaves that one out.
func (s *subscription) reject(message string) []string {
	all := sortedKeys(s.inflight.versions)
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
		switch {
		case !s.wants(name):
		case slices.Contains(culprits, name):
			s.rejected[name] = s.inflight.versions[name]
			delete(s.due, name)
		default:
			s.due[name] = true
		}
	}
	return culprits
}

// answered says whether the proxy was told about the name: it holds it, knows that there is none, or refused it.
func (s *subscription) answered(name string) bool {
	if !s.wants(name) || s.due[name] {
		return false
	}
	_, confirmed := s.confirmed[name]
	_, rejected := s.rejected[name]
	return confirmed || rejected
}

// holds says whether the proxy has some version of the name.
func (s *subscription) holds(name string) bool { return s.confirmed[name] != absent }

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

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return slices.Compact(keys)
}
