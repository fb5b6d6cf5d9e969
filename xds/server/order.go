package server

import (
	"encoding/binary"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// refersTo reports whether any string in the resource, at any depth, is the name. It looks for the name behind its length,
// as protobuf writes every string, those in packed messages too, and so decodes nothing. It may say yes too often (a
// header value equal to the name), which only delays.
func refersTo(r *xds.Resource, name string) bool {
	var buffer [128]byte
	needle := append(binary.AppendUvarint(buffer[:0], uint64(len(name))), name...)
	return r.Contains(needle)
}

func refersToAny(r *xds.Resource, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return refersTo(r, name) })
}

// freeAddresses returns the listeners to send now, and the names of those to remove with them because their address is
// needed. Envoy refuses a listener at the address of another, but takes removals of a response before the rest. A
// listener that moves away and is in another's place comes back with the next response, since the proxy would keep the
// old place until the new one is warm.
func (s *session) freeAddresses(upserts []*xds.Resource) ([]*xds.Resource, []string) {
	sub := s.sub(xds.TypeListener)
	if sub.inflight != nil || len(upserts) == 0 {
		return upserts, nil
	}
	var leaving []string
	for _, name := range sub.open {
		has := sub.table.has(name)
		if contentOf(has) == nil || has.Version == versionOf(s.desired(xds.TypeListener, name)) {
			continue
		}
		leaving = append(leaving, name)
	}
	if len(leaving) == 0 || len(leaving) == 1 && len(upserts) == 1 && leaving[0] == upserts[0].Name {
		return upserts, nil
	}
	needed := make(map[string][]string, len(upserts))
	for _, r := range upserts {
		for _, address := range listenerAddresses(r) {
			needed[address] = append(needed[address], r.Name)
		}
	}
	var moved []string
	for _, name := range leaving {
		next := s.desired(xds.TypeListener, name)
		for _, address := range listenerAddresses(contentOf(sub.table.has(name))) {
			others := slices.DeleteFunc(slices.Clone(needed[address]), func(n string) bool { return n == name })
			stays := next != nil && slices.Contains(listenerAddresses(next), address)
			if len(others) > 0 && !stays {
				moved = append(moved, name)
				break
			}
		}
	}
	upserts = slices.DeleteFunc(upserts, func(r *xds.Resource) bool { return slices.Contains(moved, r.Name) })
	return upserts, moved
}

// listenerAddresses are the addresses that a listener binds. One that does not decode has none: Envoy is the one to
// refuse it, in its own words.
func listenerAddresses(r *xds.Resource) []string {
	var l listenerv3.Listener
	if r == nil || r.Any().UnmarshalTo(&l) != nil {
		return nil
	}
	var out []string
	add := func(a *corev3.Address) {
		if socket := a.GetSocketAddress(); socket.GetPortValue() != 0 {
			out = append(out, fmt.Sprintf("%d/%s:%d", socket.GetProtocol(), socket.GetAddress(), socket.GetPortValue()))
		}
	}
	add(l.GetAddress())
	for _, more := range l.GetAdditionalAddresses() {
		add(more.GetAddress())
	}
	return out
}
