package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// commonName is in the certificate that each replica of a zone makes for itself, see package zone.
const commonName = "zoneforge-zone"

// shuffled has gRPC try the addresses of a name in an order of chance, so that proxies spread over the replicas behind it.
const shuffled = `{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":true}}]}`

// target is what gRPC connects to. It is connected to one address, and tries the others in order when that one goes.
type target struct {
	uri      string
	shuffled bool
}

// target gives also the name that the certificate must have, empty for the target's own.
func (b Bootstrap) target() (target, string) {
	if len(b.ControlPlanes) == 1 {
		host, _, _ := net.SplitHostPort(b.ControlPlanes[0])
		_, err := netip.ParseAddr(host)
		return target{uri: "dns:///" + b.ControlPlanes[0], shuffled: err != nil}, b.ServerName
	}
	// Each proxy has an order of its own, the same at each start: proxies spread over the replicas, and those of one that goes over all others.
	order := slices.Clone(b.ControlPlanes)
	weight := func(address string) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(address + "\x00" + b.NodeID())) // never fails
		v := h.Sum64()
		// The hash's high bits hardly depend on its last bytes, by which names of proxies differ.
		v = (v ^ v>>32) * 0xd6e8feb86659fd93
		return v ^ v>>32
	}
	slices.SortFunc(order, func(x, y string) int { return cmp.Or(cmp.Compare(weight(x), weight(y)), cmp.Compare(x, y)) })
	scheme := "ipv4:"
	if strings.HasPrefix(order[0], "[") {
		scheme = "ipv6:"
	}
	return target{uri: scheme + strings.Join(order, ",")}, cmp.Or(b.ServerName, commonName)
}

// checkControlPlanes says what is wrong with the addresses of the zone.
func checkControlPlanes(all []string) error {
	if len(all) == 0 {
		return errors.New("there is no control plane; give host:port of the zone's xDS")
	}
	var errs []error
	families := map[bool]bool{}
	for _, address := range all {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			errs = append(errs, fmt.Errorf("control plane %q is not host:port: %w", address, err))
			continue
		}
		if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 {
			errs = append(errs, fmt.Errorf("control plane %q needs a host and a port from 1 to 65535", address))
			continue
		}
		ip, err := netip.ParseAddr(host)
		if err != nil && len(all) > 1 {
			errs = append(errs, fmt.Errorf("control plane %q is a name among several; give IP addresses, or one name that leads to all replicas", address))
			continue
		}
		families[ip.Is4()] = true
	}
	if len(families) > 1 {
		errs = append(errs, errors.New("control planes are of IPv4 and of IPv6; give those of one"))
	}
	return errors.Join(errs...)
}
