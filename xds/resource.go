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
	"unique"

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

	// personal says that it holds texts of one proxy's own, so that no other has it.
	personal bool
	// any holds the bytes, or is nil where there is a body, see cut. own are the texts that were left out of that besides filters.
	any  *anypb.Any
	body unique.Handle[string]
	own  *[]string
	// endpoints is what EndpointsName found out.
	endpoints atomic.Pointer[string]
}

// Contains tells whether the encoded resource holds an encoded field.
func (r *Resource) Contains(field []byte) bool { return bytes.Contains(r.Any().GetValue(), field) }

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
	return &Resource{TypeURL: typeURL, Name: name, Version: hex.EncodeToString(sum[:16]), any: &anypb.Any{TypeUrl: typeURL, Value: encoded}}, nil
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

// InternAll replaces each resource of rs by the shared one, or one that holds what is its proxy's own, and so is of no other, by that of
// former where it is the same. former is what the proxy had, nil for nothing.
func (i *Interner) InternAll(rs, former *Resources) {
	if rs == nil {
		return
	}
	if former == nil {
		former = &Resources{}
	}
	for _, of := range [][2][]*Resource{
		{rs.Listeners, former.Listeners}, {rs.Routes, former.Routes}, {rs.Clusters, former.Clusters}, {rs.Extensions, former.Extensions},
	} {
		for n, r := range of[0] {
			if !r.personal {
				of[0][n] = i.Intern(r)
			} else if at, ok := slices.BinarySearchFunc(of[1], r.Name, func(r *Resource, name string) int { return cmp.Compare(r.Name, name) }); ok && of[1][at].Version == r.Version {
				of[0][n] = of[1][at]
			}
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
