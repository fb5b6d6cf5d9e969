package policy

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Identities says in which mesh of which federation peers have their SPIFFE IDs:
// spiffe://<zone>.<mesh>.<domain>/<service>.
type Identities struct {
	Mesh string
	// Domain is the federation domain, such as mesh.example.com.
	Domain string
}

// Authorize returns who may connect to an inbound with these tags: for each client the most specific TrafficPermission
// decides, of equally specific ones a Deny before an Allow, and a client that none matches is denied. Other kinds and other meshes are passed over.
//
// A certificate proves its service and its zone, and nothing else. A source that asks for another tag can't be proven, so
// it fails closed: in an Allow it matches nobody, in a Deny that tag is not asked for. An action that this version doesn't
// know denies.
//
// As the rules of an ir.Authorization have no order, each rule of an Allow carries the sources of those higher-ranked Deny
// permissions that could meet its own. Rules are ordered by rank, and their names are unique: that of the permission,
// followed by "#2" and so on where a Deny ranks between sources of the same permission.
func Authorize(permissions []*resource.Resource, in Identities, inbound map[string]string) ir.Authorization {
	type group struct {
		name   string
		denies int // how many of the denied peers rank higher
	}
	var (
		denied []peer
		order  []group
		allow  = map[group][]peer{}
	)
	for _, e := range rankPermissions(permissions, in, inbound) {
		if e.deny {
			if !slices.Contains(denied, e.peer) {
				denied = append(denied, e.peer)
			}
			continue
		}
		// Two sources of one permission with no Deny between them share a rule.
		g := group{e.name, len(denied)}
		if _, ok := allow[g]; !ok {
			order = append(order, g)
		}
		if !slices.Contains(allow[g], e.peer) {
			allow[g] = append(allow[g], e.peer)
		}
	}

	var out ir.Authorization
	times := map[string]int{}
	for _, g := range order {
		times[g.name]++
		rule := ir.AuthorizationRule{Name: g.name}
		if n := times[g.name]; n > 1 {
			rule.Name += "#" + strconv.Itoa(n)
		}
		for _, p := range allow[g] {
			rule.Allow = append(rule.Allow, p.match(in))
		}
		for _, d := range denied[:g.denies] {
			if slices.ContainsFunc(allow[g], d.overlaps) {
				rule.Except = append(rule.Except, d.match(in))
			}
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

// Permits tells whether a client may connect to a destination by the most specific TrafficPermission for both; of equally specific
// ones one that denies decides, and what none matches is denied. It is for destinations without a proxy of their own, where the
// client's own proxy asks: by its tags, of which it needs no proof.
func Permits(permissions []*resource.Resource, mesh string, source, destination map[string]string) bool {
	var best ConnectionRank
	found, permitted := false, false
	for _, r := range permissions {
		spec, ok := r.Spec.(*meshv1.TrafficPermission)
		if !ok || r.Mesh != mesh {
			continue
		}
		var rank ConnectionRank
		if rank.Source, ok = Best(spec.GetSources(), source); !ok {
			continue
		}
		if rank.Destination, ok = Best(spec.GetDestinations(), destination); !ok {
			continue
		}
		deny := denies(spec.GetConf().GetAction())
		switch order := rank.Compare(best); {
		case !found || order < 0:
			best, found, permitted = rank, true, !deny
		case order == 0 && deny:
			permitted = false
		}
	}
	return permitted
}

// denyFirst orders what denies before what allows.
func denyFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// permitted is one source of one permission.
type permitted struct {
	rank ConnectionRank
	name string
	peer peer
	deny bool
}

// rankPermissions lists the sources of all permissions that match an inbound, the most specific first.
func rankPermissions(permissions []*resource.Resource, in Identities, inbound map[string]string) []permitted {
	var out []permitted
	for _, r := range permissions {
		if r == nil || r.Mesh != in.Mesh {
			continue
		}
		spec, ok := r.Spec.(*meshv1.TrafficPermission)
		if !ok {
			continue
		}
		destination, ok := Best(spec.GetDestinations(), inbound)
		if !ok {
			continue
		}
		deny := denies(spec.GetConf().GetAction())
		for _, source := range spec.GetSources() {
			p, proven, possible := peerOf(source)
			if !possible || !deny && !proven {
				continue
			}
			out = append(out, permitted{
				rank: ConnectionRank{Source: rankOf(source), Destination: destination},
				name: r.Name, peer: p, deny: deny,
			})
		}
	}
	slices.SortFunc(out, func(a, b permitted) int {
		return cmp.Or(a.rank.Compare(b.rank), denyFirst(a.deny, b.deny), cmp.Compare(a.name, b.name), a.peer.compare(b.peer))
	})
	return out
}

func denies(a meshv1.TrafficPermission_Action) bool {
	return a != meshv1.TrafficPermission_ACTION_UNSPECIFIED && a != meshv1.TrafficPermission_ACTION_ALLOW
}

// peer is what a certificate proves of a client; an empty member stands for any.
type peer struct {
	zone    string
	service string
}

// peerOf reads a source. proven is false when it asks for a tag that no certificate carries; possible is false when no
// client can have such a zone or service. A zone with a dot would reach into the label of the mesh.
func peerOf(s *meshv1.Selector) (p peer, proven, possible bool) {
	proven, possible = true, true
	for tag, value := range s.GetMatch() {
		switch tag {
		case resource.TagService:
			possible = possible && value != ""
			if value != resource.AnyValue {
				p.service = value
			}
		case resource.TagZone:
			possible = possible && value != "" && !strings.ContainsAny(value, "./")
			if value != resource.AnyValue {
				p.zone = value
			}
		default:
			proven = false
		}
	}
	return p, proven, possible
}

func (p peer) compare(o peer) int {
	return cmp.Or(cmp.Compare(p.zone, o.zone), cmp.Compare(p.service, o.service))
}

// overlaps tells whether some client is matched by both.
func (p peer) overlaps(o peer) bool {
	meet := func(a, b string) bool { return a == "" || b == "" || a == b }
	return meet(p.zone, o.zone) && meet(p.service, o.service)
}

// match compares SPIFFE IDs. Names are quoted, and a zone is one DNS label, so that no pattern reaches another mesh.
func (p peer) match(in Identities) ir.TextMatch {
	if p.zone != "" && p.service != "" {
		return ir.TextMatch{Kind: ir.TextExact, Value: "spiffe://" + p.zone + "." + in.Mesh + "." + in.Domain + "/" + p.service}
	}
	zone, service := `[^./]+`, `[^/]+`
	if p.zone != "" {
		zone = regexp.QuoteMeta(p.zone)
	}
	if p.service != "" {
		service = regexp.QuoteMeta(p.service)
	}
	return ir.TextMatch{
		Kind:  ir.TextRegex,
		Value: `^spiffe://` + zone + regexp.QuoteMeta("."+in.Mesh+"."+in.Domain+"/") + service + `$`,
	}
}
