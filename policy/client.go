package policy

import (
	"cmp"
	"maps"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Client is a kind of client of an inbound, with the policies that hold for it.
type Client struct {
	// Any says that it is every client, also one that proves nothing.
	Any bool
	// ID compares SPIFFE IDs; unless Any.
	ID ir.TextMatch
	// Tags are those that its own proxy must have said besides, by name; a value may be *.
	Tags map[string]string
	// Policies are the most specific first.
	Policies []*resource.Resource
}

// caller is what a source asks of a client: what its certificate proves, and other tags, which its proxy says.
type caller struct {
	peer
	tags string // by name, as TagsText
}

// TagsText is tags in one line: each between two ampersands, by name.
func TagsText(tags map[string]string) string {
	if len(tags) == 0 {
		return ""
	}
	out := "&"
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out += k + "=" + tags[k] + "&"
	}
	return out
}

// saidTags are the tags of a source that no certificate proves.
func saidTags(s *meshv1.Selector) map[string]string {
	out := map[string]string{}
	for k, v := range s.GetMatch() {
		if k != resource.TagService && k != resource.TagZone {
			out[k] = v
		}
	}
	return out
}

// AsksTags tells whether a policy's sources ask for tags that no certificate proves, so that clients' proxies must say them.
func AsksTags(p ConnectionPolicy) bool {
	return slices.ContainsFunc(p.GetSources(), func(s *meshv1.Selector) bool { return len(saidTags(s)) > 0 })
}

// Clients tells the clients of an inbound with these tags apart as far as policies of a kind that select connections do. They
// are ordered: the first that a client is decides for it. Each client's policies are all whose sources select it. A client that
// none selects is not listed.
func Clients(policies []*resource.Resource, in Identities, inbound map[string]string) []Client {
	type source struct {
		rank   ConnectionRank
		caller caller
		policy *resource.Resource
	}
	var sources []source
	tags := map[caller]map[string]string{}
	for _, r := range policies {
		if r == nil || r.Mesh != in.Mesh {
			continue
		}
		spec, ok := r.Spec.(ConnectionPolicy)
		if !ok {
			continue
		}
		destination, ok := Best(spec.GetDestinations(), inbound)
		if !ok {
			continue
		}
		for _, s := range spec.GetSources() {
			p, _, possible := peerOf(s)
			if !possible {
				continue
			}
			said := saidTags(s)
			c := caller{p, TagsText(said)}
			tags[c] = said
			sources = append(sources, source{ConnectionRank{Source: rankOf(s), Destination: destination}, c, r})
		}
	}
	slices.SortFunc(sources, func(a, b source) int {
		return cmp.Or(a.rank.Compare(b.rank), a.policy.Key.Compare(b.policy.Key), a.caller.compare(b.caller.peer), cmp.Compare(a.caller.tags, b.caller.tags))
	})
	// The more a source asks for the earlier it is tried, whatever the destinations' part in the ranks.
	var callers []caller
	for _, s := range sources {
		if !slices.Contains(callers, s.caller) {
			callers = append(callers, s.caller)
		}
	}
	slices.SortStableFunc(callers, func(a, b caller) int { return cmp.Compare(b.asks()+len(tags[b]), a.asks()+len(tags[a])) })
	var out []Client
	for _, c := range callers {
		client := Client{Any: c == caller{}, Tags: tags[c]}
		if !client.Any {
			client.ID = c.match(in)
		}
		for _, s := range sources {
			if s.caller.covers(c.peer) && subset(tags[s.caller], tags[c]) && !slices.Contains(client.Policies, s.policy) {
				client.Policies = append(client.Policies, s.policy)
			}
		}
		out = append(out, client)
	}
	return out
}

// subset tells whether who has all of the tags of more has all of less too.
func subset(less, more map[string]string) bool {
	for k, v := range less {
		if has, ok := more[k]; !ok || v != resource.AnyValue && v != has {
			return false
		}
	}
	return true
}

// asks counts what a peer must prove.
func (p peer) asks() (n int) {
	for _, v := range []string{p.zone, p.service} {
		if v != "" {
			n++
		}
	}
	return n
}

// covers tells whether each client that o matches is matched by p too.
func (p peer) covers(o peer) bool {
	return (p.zone == "" || p.zone == o.zone) && (p.service == "" || p.service == o.service)
}
