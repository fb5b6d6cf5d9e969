package state

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/ingress"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
)

// Apply takes a delta, or a snapshot of which everything that it doesn't hold goes. It returns the records that can't be used,
// of which the last good version stays in force, and those that are used without what this version doesn't know. Records that are equal to what is held change nothing.
func (s *State) Apply(upserts []*kdsv1.Record, deletes []resource.Key, snapshot bool) []*kdsv1.Rejection {
	readings := make([]Reading, len(upserts))
	for i, u := range upserts {
		readings[i].record = u
	}
	return s.ApplyRead(readings, deletes, snapshot)
}

// Reading is a record with what it says, as far as that is known without any other.
type Reading struct {
	record *kdsv1.Record
	// done says that it was read: what is used of it, or why nothing is, and what of it this version doesn't know.
	done    bool
	spec    *resource.Resource
	err     error
	unknown []string
}

// Read reads a record, which is most of what taking it costs. It may be called concurrently.
func Read(r *kdsv1.Record) Reading {
	out := Reading{record: r}
	if key, err := kds.KeyFrom(r.GetKey()); err == nil {
		out.read(key)
	}
	return out
}

func (r *Reading) read(key resource.Key) {
	if r.done {
		return
	}
	r.done = true
	if r.spec, r.err = usable(key, r.record.GetPayload()); r.err == nil {
		r.unknown = resource.Unknown(r.spec.Spec)
	}
}

// ApplyRead is Apply for records of which some were read before.
func (s *State) ApplyRead(upserts []Reading, deletes []resource.Key, snapshot bool) []*kdsv1.Rejection {
	s.applying = true
	defer func() { s.applying = false }()
	keep := make(map[resource.Key]bool, len(upserts))
	var rejected []*kdsv1.Rejection
	for i := range upserts {
		u := upserts[i].record
		key, err := kds.KeyFrom(u.GetKey())
		if err != nil {
			rejected = append(rejected, &kdsv1.Rejection{Key: u.GetKey(), Hash: u.GetHash(), Reason: err.Error()})
			continue
		}
		keep[key] = true
		s.put(key, &upserts[i])
		if r := s.records[key]; r.reason != "" {
			rejected = append(rejected, s.rejection(key, r.reason))
		}
	}
	if snapshot {
		for key := range s.records {
			if !keep[key] {
				deletes = append(deletes, key)
			}
		}
	}
	for _, key := range deletes {
		if keep[key] {
			continue
		}
		if r := s.records[key]; r != nil {
			delete(s.records, key)
			delete(s.refused, key)
			s.changed(key, r.resource, nil)
		}
	}
	slices.SortFunc(rejected, func(a, b *kdsv1.Rejection) int {
		x, _ := kds.KeyFrom(a.GetKey())
		y, _ := kds.KeyFrom(b.GetKey())
		return x.Compare(y)
	})
	return rejected
}

func (s *State) put(key resource.Key, u *Reading) {
	r := s.records[key]
	if r == nil {
		r = &record{}
		s.records[key] = r
	} else if bytes.Equal(r.hash, u.record.GetHash()) {
		return
	}
	r.hash, r.reason = u.record.GetHash(), ""
	delete(s.refused, key)
	u.read(key)
	if u.err != nil {
		r.reason = u.err.Error()
		s.refused[key] = struct{}{}
		return
	}
	if len(u.unknown) > 0 {
		r.reason = fmt.Sprintf("it is in force without what this version doesn't know: %s; upgrade the zone", strings.Join(u.unknown[:min(len(u.unknown), maxNamed)], ", "))
		s.refused[key] = struct{}{}
	}
	old := r.resource
	r.resource = u.spec
	s.changed(key, old, u.spec)
}

// maxNamed bounds the unknown fields that a reason names.
const maxNamed = 5

// Usable tells whether a record can be in force, alone or in place of what stood there before.
func Usable(r *kdsv1.Record) bool {
	key, err := kds.KeyFrom(r.GetKey())
	if err != nil {
		return false
	}
	_, err = usable(key, r.GetPayload())
	return err == nil
}

// usable decodes a record and checks it, as a newer global may send what this version can't take. What control planes write
// has no rules for users.
func usable(key resource.Key, payload []byte) (*resource.Resource, error) {
	r, err := resource.Unmarshal(key, payload)
	if err != nil {
		return nil, err
	}
	if kind, ok := resource.Lookup(key.Kind); ok && kind.Writer == resource.WriterUser {
		var errs []error
		for _, v := range resource.Validate(r) {
			errs = append(errs, v)
		}
		if err := errors.Join(errs...); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	// What isn't known here may say that less is permitted.
	if p, ok := r.Spec.(*meshv1.TrafficPermission); ok && p.GetConf().GetAction() != meshv1.TrafficPermission_ACTION_DENY {
		if unknown := resource.Unknown(p); len(unknown) > 0 {
			return nil, fmt.Errorf("%s permits nothing new, as this version doesn't know all of it: %s; upgrade the zone", key, unknown[0])
		}
	}
	if key.Kind == "Secret" {
		if spec, ok := r.Spec.(*meshv1.Secret); !ok || len(spec.GetData()) == 0 {
			return nil, fmt.Errorf("%s is empty", key)
		}
	}
	return r, nil
}

// changed marks what a record's change can affect. old and new may be nil, not both.
func (s *State) changed(key resource.Key, old, next *resource.Resource) {
	if old == nil && next == nil {
		return
	}
	switch key.Kind {
	case "Mesh":
		s.meshChanged(s.mesh(key.Name), spec[*meshv1.Mesh](next))
	case "TrustBundle":
		m := s.mesh(key.Mesh)
		bundle := spec[*federationv1.TrustBundle](next)
		if m.bundle.GetDomain() != bundle.GetDomain() {
			s.mark(everyone(m.live))
		}
		m.bundle = bundle
		s.dirty.meshes[m.name] = struct{}{}
	case "Secret":
		m := s.mesh(key.Mesh)
		delete(m.secrets, key.Name)
		if v := spec[*meshv1.Secret](next); v != nil {
			m.secrets[key.Name] = newSecret(v.GetData())
		}
		s.mark(everyone(m.bySecret[key.Name]))
	case "ServiceAvailability":
		s.availabilityChanged(key, spec[*federationv1.ServiceAvailability](old), spec[*federationv1.ServiceAvailability](next))
	case "ZoneIngress":
		s.remoteChanged(key, spec[*meshv1.ZoneIngress](next))
	case "VerificationKeys":
		s.dirty.keys = true
	default:
		if key.Mesh != "" {
			s.policyChanged(s.mesh(key.Mesh), key, old, next)
		}
	}
}

// spec is the zero value for nil and for another type.
func spec[M proto.Message](r *resource.Resource) M {
	var none M
	if r == nil {
		return none
	}
	m, ok := r.Spec.(M)
	if !ok {
		return none
	}
	return m
}

func (s *State) meshChanged(m *mesh, next *meshv1.Mesh) {
	old := m.spec
	m.spec = next
	s.dirty.meshes[m.name] = struct{}{}
	if backendOf(old) != backendOf(next) || !proto.Equal(old.GetLogging(), next.GetLogging()) || !proto.Equal(old.GetTracing(), next.GetTracing()) ||
		!proto.Equal(old.GetMetrics(), next.GetMetrics()) {
		s.mark(everyone(m.live))
	}
	if (old.GetMtls().GetEnabledBackend() != "") != m.mtls() {
		for _, v := range m.services {
			s.markEndpoints(v, ingress.ClientView)
		}
		s.dirty.ingresses = true
	}
}

// backend is what of a Mesh stands in the configuration of its proxies.
type backend struct {
	enabled bool
	mode    meshv1.Mesh_Mode
}

func backendOf(m *meshv1.Mesh) backend {
	b := backend{enabled: m.GetMtls().GetEnabledBackend() != ""}
	for _, c := range m.GetMtls().GetBackends() {
		if b.enabled && c.GetName() == m.GetMtls().GetEnabledBackend() && c.GetMode() == meshv1.Mesh_MODE_PERMISSIVE {
			b.mode = meshv1.Mesh_MODE_PERMISSIVE
		}
	}
	return b
}

func (s *State) availabilityChanged(key resource.Key, old, next *federationv1.ServiceAvailability) {
	// What this zone reports it knows better itself.
	if old != nil && old.GetZone() != s.zone && (old.GetZone() != next.GetZone() || old.GetService() != next.GetService()) {
		s.setAvailable(key, old.GetService(), old.GetZone(), nil)
	}
	if next != nil && next.GetZone() != s.zone {
		s.setAvailable(key, next.GetService(), next.GetZone(), next)
	}
}

func (s *State) setAvailable(record resource.Key, name, zone string, a *federationv1.ServiceAvailability) {
	m := s.mesh(record.Mesh)
	v := m.service(name)
	key := serviceKey{m.name, name}
	if a = v.report(zone, record.Name, a); a == nil {
		delete(v.available, zone)
		delete(s.reaches[zone], key)
		if len(s.reaches[zone]) == 0 {
			delete(s.reaches, zone)
			s.astray = nil
		}
	} else {
		v.available[zone] = a
		if s.reaches[zone] == nil {
			s.reaches[zone] = set[serviceKey]{}
			s.astray = nil
		}
		s.reaches[zone][key] = struct{}{}
	}
	s.markEndpoints(v, ingress.ClientView)
	s.protocolChanged(m, name, v)
}

func (s *State) remoteChanged(key resource.Key, next *meshv1.ZoneIngress) {
	old, had := s.remotes[key]
	delete(s.remotes, key)
	now, has := ingress.RemoteOf(next)
	if has = has && now.Zone != s.zone; has {
		s.remotes[key] = now
	}
	if had == has && old == now {
		return
	}
	s.astray = nil
	for _, zone := range []string{old.Zone, now.Zone} {
		for k := range s.reaches[zone] {
			s.markEndpoints(s.mesh(k.mesh).service(k.service), ingress.ClientView)
		}
	}
}

// protocolChanged looks again at which protocol a service speaks. One that nobody names any more stays; of several the
// first by name counts, so that all zones agree.
func (s *State) protocolChanged(m *mesh, name string, v *service) {
	var all []string
	for _, t := range v.tagSets {
		all = append(all, t.tags[resource.TagProtocol])
	}
	for _, a := range v.available {
		for _, t := range a.GetTagSets() {
			all = append(all, t.GetTags()[resource.TagProtocol])
		}
	}
	all = slices.DeleteFunc(all, func(p string) bool { return p == "" })
	if len(all) == 0 {
		return
	}
	if p := slices.Min(all); p != v.protocol {
		v.protocol, m.spoken = p, nil
		for p := range everyone(m.byDestination[name]) {
			s.work.Examined++
			s.goesOut(p)
		}
		// A policy that was left out for the protocol of a service has taken its destination back.
		s.mark(s.refusers(m))
	}
}

func (s *State) markEndpoints(v *service, views ...ingress.View) {
	for name := range v.names {
		if e := s.endpoints[name]; e != nil && slices.Contains(views, e.view) {
			s.markOne(name)
		}
	}
}

func (s *State) markOne(endpoints string) {
	s.dirty.endpoints[endpoints] = struct{}{}
	if s.applying {
		s.dirty.applied[endpoints] = struct{}{}
	}
}

// protocols are those of the services; the map is replaced, never changed.
func (m *mesh) protocols() map[string]string {
	if m.spoken == nil {
		m.spoken = make(map[string]string, len(m.services))
		for name, v := range m.services {
			if v.protocol != "" {
				m.spoken[name] = v.protocol
			}
		}
		for _, r := range m.policies["ExternalService"].All() {
			tags := spec[*meshv1.ExternalService](r).GetTags()
			if p := tags[resource.TagProtocol]; p != "" {
				m.spoken[tags[resource.TagService]] = p
			}
		}
	}
	return m.spoken
}
