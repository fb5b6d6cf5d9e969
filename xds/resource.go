// Package xds turns what one proxy does (ir) into Envoy's resources: listeners, routes, clusters, endpoints, secrets and
// extension configurations.
//
// It owns the shape of what Envoy is told, and is pure: equal input gives equal names and equal bytes. It never decides
// a policy, sends anything, does I/O, starts a goroutine, reads a clock or logs.
package xds

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

const typePrefix = "type.googleapis.com/"

// Type URLs of the resources that Envoy subscribes to.
const (
	TypeListener = typePrefix + "envoy.config.listener.v3.Listener"
	TypeRoute    = typePrefix + "envoy.config.route.v3.RouteConfiguration"
	TypeCluster  = typePrefix + "envoy.config.cluster.v3.Cluster"
	TypeEndpoint = typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"
	TypeSecret   = typePrefix + "envoy.extensions.transport_sockets.tls.v3.Secret"
	// TypeExtension is a filter's configuration that listeners refer to by name (ECDS).
	TypeExtension = typePrefix + "envoy.config.core.v3.TypedExtensionConfig"
)

// Resource is one named Envoy resource in its marshalled form. It is immutable and may be shared between goroutines.
type Resource struct {
	TypeURL string
	Name    string
	// Version is the hash of the bytes, so that it changes exactly when they do: 32 hexadecimal digits.
	Version string
	// Behind says of routes that others of the same proxy lead to them, so that they must be there before and go after those.
	Behind bool

	// any holds the bytes; where most of them are the same in many resources, those before the shared ones, and after the rest.
	any           *anypb.Any
	shared, after []byte
	// endpoints is what EndpointsName found out.
	endpoints atomic.Pointer[string]
}

// Any is the resource as it is sent. It must not be changed.
func (r *Resource) Any() *anypb.Any {
	if r.shared == nil {
		return r.any
	}
	return &anypb.Any{TypeUrl: r.TypeURL, Value: slices.Concat(r.any.GetValue(), r.shared, r.after)}
}

// Size of the encoded resource, in bytes.
func (r *Resource) Size() int { return len(r.any.GetValue()) + len(r.shared) + len(r.after) }

// Contains tells whether the encoded resource holds an encoded field. What is shared is whole fields, so none is partly in it.
func (r *Resource) Contains(field []byte) bool {
	return bytes.Contains(r.any.GetValue(), field) || bytes.Contains(r.shared, field) || bytes.Contains(r.after, field)
}

// share keeps the filters of HTTP listeners once for all: they are most of what a listener is, and the rest is its own.
func (r *Resource) share() {
	c, err := chains()
	if err != nil || r.TypeURL != TypeListener {
		return
	}
	whole := r.any.GetValue()
	if at := bytes.Index(whole, c.all); at >= 0 {
		end := at + len(c.all)
		r.any = &anypb.Any{TypeUrl: r.TypeURL, Value: bytes.Clone(whole[:at])}
		r.shared, r.after = c.all, bytes.Clone(whole[end:])
	}
}

// EndpointsName is the name of the endpoints that a cluster asks for by EDS, "" when it takes them from elsewhere, and for all else than
// clusters. A cluster that does not decode has none: Envoy is the one to refuse it, in its own words. It is looked up once.
func (r *Resource) EndpointsName() string {
	if known := r.endpoints.Load(); known != nil {
		return *known
	}
	name := ""
	var c clusterv3.Cluster
	if r.TypeURL == TypeCluster && r.Any().UnmarshalTo(&c) == nil && c.GetType() == clusterv3.Cluster_EDS {
		name = cmp.Or(c.GetEdsClusterConfig().GetServiceName(), c.GetName())
	}
	r.endpoints.Store(&name)
	return name
}

// String leaves out the bytes, which of a secret must not be printed.
func (r *Resource) String() string {
	return r.TypeURL + " " + r.Name + " " + r.Version
}

// GoString is String.
func (r *Resource) GoString() string { return r.String() }

// NewResource marshals a message, deterministically. It fails for an empty name, for a message of another type than
// typeURL says, and for a message that can't be marshalled. The message is not kept.
func NewResource(typeURL, name string, m proto.Message) (*Resource, error) {
	if name == "" {
		return nil, fmt.Errorf("resource of type %s has no name: give it one", typeURL)
	}
	if m == nil {
		return nil, fmt.Errorf("resource %q of type %s has no message", name, typeURL)
	}
	if got := typePrefix + string(m.ProtoReflect().Descriptor().FullName()); got != typeURL {
		return nil, fmt.Errorf("resource %q: message is a %s where a %s belongs", name, got, typeURL)
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("resource %q of type %s: %w", name, typeURL, err)
	}
	sum := sha256.Sum256(encoded)
	r := &Resource{TypeURL: typeURL, Name: name, Version: hex.EncodeToString(sum[:16]), any: &anypb.Any{TypeUrl: typeURL, Value: encoded}}
	r.share()
	return r, nil
}

// Resources are all that one proxy is configured with, except endpoints and secrets, which are shared. Each slice is
// sorted by name and has no name twice.
type Resources struct {
	Listeners  []*Resource
	Routes     []*Resource
	Clusters   []*Resource
	Extensions []*Resource
}

// resourceKey is what two resources have in common when they are the same.
type resourceKey struct{ typeURL, name, version string }

// Interner lets proxies share equal resources. Its zero value is ready, and it is safe for concurrent use. It holds a
// resource until Keep leaves it out.
type Interner struct {
	mu     sync.Mutex
	shared map[resourceKey]*Resource // guarded by mu
}

// Intern returns the shared resource that equals r, which is r itself the first time.
func (i *Interner) Intern(r *Resource) *Resource {
	if r == nil {
		return nil
	}
	key := resourceKey{r.TypeURL, r.Name, r.Version}
	i.mu.Lock()
	defer i.mu.Unlock()
	if have, ok := i.shared[key]; ok {
		return have
	}
	if i.shared == nil {
		i.shared = map[resourceKey]*Resource{}
	}
	i.shared[key] = r
	return r
}

// InternAll replaces each resource of rs by the shared one.
func (i *Interner) InternAll(rs *Resources) {
	if rs == nil {
		return
	}
	for _, list := range [][]*Resource{rs.Listeners, rs.Routes, rs.Clusters, rs.Extensions} {
		for n := range list {
			list[n] = i.Intern(list[n])
		}
	}
}

// Keep forgets the resources for which used says no, so that the interner doesn't grow with everything that ever was.
// It must not call the interner. It returns how many remain.
func (i *Interner) Keep(used func(*Resource) bool) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	for key, r := range i.shared {
		if !used(r) {
			delete(i.shared, key)
		}
	}
	return len(i.shared)
}
