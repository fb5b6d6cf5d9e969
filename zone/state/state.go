// Package state owns what one zone control plane knows: the records that it holds of global, the proxies of its zone, and
// what follows from them for each proxy and each set of endpoints. It keeps indexes, so that a change's work grows with the
// proxies that it can affect, not with all there are.
//
// It is pure: no I/O, no goroutine, no clock, no logger. It has one owner, whose calls must not overlap; what it gives out is
// immutable. It never sends anything, and never touches keys beyond handing over what a Secret holds.
//
// Changes go in by Apply, Register and their like; Take then tells what has to be built anew, and BuildProxy and
// BuildEndpoints build it. As nothing is built before Take, no change is ever seen half.
package state

import (
	"crypto/sha256"
	"maps"
	"slices"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/policy"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds"
)

type set[K comparable] map[K]struct{}

// State is all that a zone knows.
type State struct {
	zone string
	// replica is that which reports the offer; empty for a zone that runs in one.
	replica string
	records map[resource.Key]*record
	meshes  map[string]*mesh
	// remotes are the ingresses of other zones, by the key of their record.
	remotes map[resource.Key]ingress.Remote
	// reaches lists, by zone, the services that a zone reports.
	reaches   map[string]set[serviceKey]
	proxies   map[string]*proxy
	ingresses set[string]
	// refused are the records that are not in force, or not with all that they say; refusing the proxies that leave something out.
	refused  set[resource.Key]
	refusing set[string]
	// astray is what unknownZones gives; nil when that may have changed.
	astray map[resource.Key]string
	// workloads are what live Dataplanes have in common, by a digest of what that is built from.
	workloads map[[sha256.Size]byte]*workload
	// interner lets proxies share equal resources, and memo builds them once. What comes into a sidecar is of no other proxy, and not
	// in the memo.
	interner xds.Interner
	memo     xds.Memo
	// endpoints are those that some proxy needs, by name.
	endpoints map[string]*endpoints
	offer     *kds.Set
	dirty     dirty
	// applying says that what changes does so by records.
	applying bool
	work     Work
}

// Remotes are the ingresses of other zones, in order.
func (s *State) Remotes() []ingress.Remote {
	var out []ingress.Remote
	for _, key := range slices.SortedFunc(maps.Keys(s.remotes), resource.Key.Compare) {
		if r := s.remotes[key]; !slices.Contains(out, r) { // each replica of a zone reports its ingresses
			out = append(out, r)
		}
	}
	return out
}

type serviceKey struct{ mesh, service string }

// record is one record of global. resource is the last good version, nil when there never was one.
type record struct {
	hash     []byte
	resource *resource.Resource
	// reason says why the newest version is not in force; empty when it is.
	reason string
}

// mesh holds the records of one mesh by what they mean.
type mesh struct {
	name   string
	spec   *meshv1.Mesh
	bundle *federationv1.TrustBundle
	// policies by kind are lent to builds while they run.
	policies policy.ByKind
	secrets  map[string]*secret
	services map[string]*service
	// spoken is what protocols gave; nil when a protocol changed since.
	spoken map[string]string

	// live are the workloads, gateways those of them that are such; the indexes by service and by Secret hold findings, too.
	live, gateways                               set[*group]
	byInbound, bySource, byDestination, bySecret index
}

// service is one service of a mesh, in this zone and in others.
type service struct {
	// local are the endpoints in this zone by proxy.
	local map[string][]ingress.Local
	// tagSets counts the local ones by their tags.
	tagSets map[string]*tagSet
	// available is what is taken to be there, by zone, of what the zone's replicas report, by zone and name of the record.
	available map[string]*federationv1.ServiceAvailability
	reports   map[string]map[string]*federationv1.ServiceAvailability
	// protocol is the last one that any endpoint named, so that a listener keeps its shape while there is none.
	protocol string
	// names are the endpoints that are wanted of this service.
	names set[string]
	// subsets counts, by server name, how the records of this mesh ask for subsets.
	subsets map[string]*subset
}

type subset struct {
	destination ingress.Destination
	count       int
}

type dirty struct {
	proxies   set[string]
	endpoints set[string]
	applied   set[string]
	offer     set[serviceKey]
	ingresses bool
	offered   bool
	keys      bool
	meshes    set[string]
}

// New makes the state of a zone that knows nothing yet. replica is empty for a zone that runs in one.
func New(zone, replica string) *State {
	return &State{
		zone: zone, replica: replica, records: map[resource.Key]*record{}, meshes: map[string]*mesh{}, remotes: map[resource.Key]ingress.Remote{},
		reaches: map[string]set[serviceKey]{}, proxies: map[string]*proxy{}, ingresses: set[string]{},
		refused: set[resource.Key]{}, refusing: set[string]{}, workloads: map[[sha256.Size]byte]*workload{}, endpoints: map[string]*endpoints{}, offer: kds.NewSet(),
		dirty: dirty{proxies: set[string]{}, endpoints: set[string]{}, applied: set[string]{}, offer: set[serviceKey]{}, meshes: set[string]{}},
	}
}

// Dirty is what changed since the last Take, sorted.
type Dirty struct {
	// Proxies are to be built anew.
	Proxies []string
	// Endpoints are to be built anew, or are not wanted any more.
	Endpoints []string
	// Applied are those of the Endpoints that records changed, and not only what comes and goes in this zone.
	Applied []string
	// Meshes changed in their Mesh or TrustBundle.
	Meshes []string
	// Keys says that the keys of tokens changed.
	Keys bool
	// Offer says that what the zone offers to others changed.
	Offer bool
}

// Take says what is to be built anew and forgets it. Building a proxy may make more endpoints dirty, so proxies come first.
func (s *State) Take() Dirty {
	if s.dirty.ingresses {
		for id := range s.ingresses {
			s.dirty.proxies[id] = struct{}{}
		}
	}
	for key := range s.dirty.offer {
		if s.updateOffer(key) {
			s.dirty.offered = true
		}
	}
	d := Dirty{
		Proxies: slices.Sorted(maps.Keys(s.dirty.proxies)), Endpoints: slices.Sorted(maps.Keys(s.dirty.endpoints)),
		Applied: slices.Sorted(maps.Keys(s.dirty.applied)),
		Meshes:  slices.Sorted(maps.Keys(s.dirty.meshes)), Keys: s.dirty.keys, Offer: s.dirty.offered,
	}
	clear(s.dirty.proxies)
	clear(s.dirty.endpoints)
	clear(s.dirty.applied)
	clear(s.dirty.offer)
	clear(s.dirty.meshes)
	s.dirty.ingresses, s.dirty.offered, s.dirty.keys = false, false, false
	return d
}

// TakeEndpoints is Take for endpoints alone, after proxies were built.
func (s *State) TakeEndpoints() []string {
	names := slices.Sorted(maps.Keys(s.dirty.endpoints))
	clear(s.dirty.endpoints)
	return names
}

// Offer is what the zone offers to others: its ingresses and the services that are available in it. A copy.
func (s *State) Offer() *kds.Set { return s.offer.Clone() }

// Mesh returns a mesh's Mesh and TrustBundle; each is nil when there is none.
func (s *State) Mesh(name string) (*meshv1.Mesh, *federationv1.TrustBundle) {
	if m := s.meshes[name]; m != nil {
		return m.spec, m.bundle
	}
	return nil, nil
}

// Meshes lists the meshes that have a Mesh, sorted.
func (s *State) Meshes() []string {
	var out []string
	for name, m := range s.meshes {
		if m.spec != nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// VerificationKeys lists all records of that kind, ordered by name.
func (s *State) VerificationKeys() []*federationv1.VerificationKeys {
	var keys []resource.Key
	for key, r := range s.records {
		if key.Kind == "VerificationKeys" && r.resource != nil {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, resource.Key.Compare)
	var out []*federationv1.VerificationKeys
	for _, key := range keys {
		if spec, ok := s.records[key].resource.Spec.(*federationv1.VerificationKeys); ok {
			out = append(out, spec)
		}
	}
	return out
}

// Rejected lists the records that are not in force as they are, here or for some proxy, or that name what nobody has, ordered by key.
func (s *State) Rejected() []*kdsv1.Rejection {
	reasons := map[resource.Key]string{}
	for key := range s.refused {
		reasons[key] = s.records[key].reason
	}
	for _, id := range slices.Sorted(maps.Keys(s.refusing)) {
		for _, r := range s.proxies[id].rejected() {
			if _, ok := reasons[r.Key]; !ok {
				reasons[r.Key] = r.Reason
			}
		}
	}
	for key, reason := range s.unknownZones() {
		if _, ok := reasons[key]; !ok {
			reasons[key] = reason
		}
	}
	var out []*kdsv1.Rejection
	for _, key := range slices.SortedFunc(maps.Keys(reasons), resource.Key.Compare) {
		out = append(out, s.rejection(key, reasons[key]))
	}
	return out
}

func (s *State) rejection(key resource.Key, reason string) *kdsv1.Rejection {
	out := &kdsv1.Rejection{Key: kds.KeyProto(key), Reason: reason}
	if r := s.records[key]; r != nil {
		out.Hash = r.hash
	}
	return out
}

// mesh finds a mesh or makes it.
func (s *State) mesh(name string) *mesh {
	m := s.meshes[name]
	if m == nil {
		m = &mesh{
			name: name, policies: policy.ByKind{}, secrets: map[string]*secret{}, services: map[string]*service{},
			live: set[*group]{}, gateways: set[*group]{}, byInbound: index{}, bySource: index{}, byDestination: index{}, bySecret: index{},
		}
		s.meshes[name] = m
	}
	return m
}

func (m *mesh) service(name string) *service {
	v := m.services[name]
	if v == nil {
		v = &service{local: map[string][]ingress.Local{}, tagSets: map[string]*tagSet{}, available: map[string]*federationv1.ServiceAvailability{},
			reports: map[string]map[string]*federationv1.ServiceAvailability{},
			names:   set[string]{}, subsets: map[string]*subset{}}
		m.services[name] = v
	}
	return v
}

func (m *mesh) mtls() bool { return m.spec.GetMtls().GetEnabledBackend() != "" }
