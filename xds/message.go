package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// validated is what the generated messages have.
type validated interface {
	proto.Message
	ValidateAll() error
}

// pack wraps a message that obeys Envoy's rules. What isn't checked here Envoy would refuse together with all around it.
func pack(m validated) (*anypb.Any, error) {
	if err := m.ValidateAll(); err != nil {
		return nil, err
	}
	packed := &anypb.Any{}
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, err
	}
	return packed, nil
}

// build is NewResource for a message that obeys Envoy's rules.
func build(typeURL, name string, m validated) (*Resource, error) {
	if err := m.ValidateAll(); err != nil {
		return nil, err
	}
	return NewResource(typeURL, name, m)
}

// ads says that a resource comes on the stream that this one came on, so that one server orders all of them. It is one
// message for all, which nobody may change.
func ads() *corev3.ConfigSource { return adsSource }

var adsSource = &corev3.ConfigSource{
	ResourceApiVersion:    corev3.ApiVersion_V3,
	ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
}

// socket is an address with its port. Envoy refuses host names where these are used.
func socket(address string, port uint32) (*corev3.Address, error) {
	if _, err := netip.ParseAddr(address); err != nil {
		return nil, fmt.Errorf("address %q is not an IP address: resolve it first", address)
	}
	if port == 0 || port > 65535 {
		return nil, fmt.Errorf("port %d is not between 1 and 65535", port)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       address,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}, nil
}

// pipe is a socket in the directory in which the proxy runs, which only its owner may open.
func pipe(name string) (*corev3.Address, error) {
	if strings.ContainsAny(name, "/@\x00") {
		return nil, fmt.Errorf("pipe %q is no name of a socket in the proxy's own directory", name)
	}
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: name, Mode: 0o600}}}, nil
}

// place is an address with its port, or a pipe where that is set.
func place(address string, port uint32, pipeName string) (*corev3.Address, error) {
	switch {
	case pipeName == "":
		return socket(address, port)
	case address != "" || port != 0:
		return nil, fmt.Errorf("has both an address and the pipe %q: set one", pipeName)
	}
	return pipe(pipeName)
}

// unlessZero leaves Envoy's default for 0.
func unlessZero(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// notNegative joins errors for the durations below zero, which Envoy refuses.
func notNegative(pairs ...namedDuration) error {
	var errs []error
	for _, p := range pairs {
		if p.d < 0 {
			errs = append(errs, fmt.Errorf("%s is %s: it must not be negative", p.name, p.d))
		}
	}
	return errors.Join(errs...)
}

type namedDuration struct {
	name string
	d    time.Duration
}
