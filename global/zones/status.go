package zones

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/zoneforge/zoneforge/global/view"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Status is what is known of a zone, in the JSON of the REST API.
type Status struct {
	Zone      string `json:"zone"`
	Connected bool   `json:"connected"`
	Enabled   bool   `json:"enabled"`
	// Since is when it connected, or went; absent when no replica of global saw it.
	Since    time.Time `json:"since,omitzero"`
	LastSeen time.Time `json:"lastSeen,omitzero"`
	// Version of its software.
	Version string `json:"version,omitempty"`
	// Revision that all its replicas have on their disks; Wanted is the newest.
	Revision uint64 `json:"revision"`
	Wanted   uint64 `json:"wanted"`
	// InSync says that they hold exactly what they should.
	InSync bool `json:"inSync"`
	// Problem is why one of them could not take the newest state.
	Problem string `json:"problem,omitempty"`
	// Proxies are connected; of them Acked have acknowledged everything that the zone has taken.
	Proxies   uint64     `json:"proxies"`
	Acked     uint64     `json:"acked"`
	Nacks     []Nack     `json:"nacks"`
	Rejected  []Rejected `json:"rejected"`
	Ingresses []Ingress  `json:"ingresses"`
	Services  []Service  `json:"services"`
	// Repairs counts how often it differed from what it had confirmed, since the replicas of global started.
	Repairs  uint64    `json:"repairs"`
	Replicas []Replica `json:"replicas"`
}

// Nack is a rejection by a proxy, in Envoy's words.
type Nack struct {
	Mesh     string    `json:"mesh"`
	Proxy    string    `json:"proxy"`
	TypeURL  string    `json:"typeUrl"`
	Revision uint64    `json:"revision"`
	Error    string    `json:"error"`
	Time     time.Time `json:"time,omitzero"`
}

// Rejected is a record that a zone keeps without using it.
type Rejected struct {
	Kind   string `json:"kind"`
	Mesh   string `json:"mesh,omitempty"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Ingress is where others reach the zone.
type Ingress struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Port    uint32 `json:"port"`
}

// Service is offered by the zone; Count is of its healthy endpoints.
type Service struct {
	Mesh    string `json:"mesh"`
	Service string `json:"service"`
	Count   uint64 `json:"count"`
}

// Replica of a zone.
type Replica struct {
	Replica   string `json:"replica"`
	Connected bool   `json:"connected"`
	// Global is the replica of global that it is connected to.
	Global   string    `json:"global,omitempty"`
	Since    time.Time `json:"since"`
	Revision uint64    `json:"revision"`
	Proxies  uint64    `json:"proxies"`
	Acked    uint64    `json:"acked"`
}

// Statuses are those of all zones, ordered by name.
func (r *Registry) Statuses() []Status {
	stable := r.cfg.Views.Stable()
	out := []Status{}
	for e := range stable.Snapshot().Each("Zone", "") {
		out = append(out, r.status(e.Resource.Name, stable))
	}
	return out
}

// Status is that of one zone; ok is false when there is none of the name.
func (r *Registry) Status(zone string) (s Status, ok bool) {
	stable := r.cfg.Views.Stable()
	if _, ok := stable.Snapshot().Get(zoneKey(zone)); !ok {
		return Status{}, false
	}
	return r.status(zone, stable), true
}

func (r *Registry) status(name string, stable *view.View) Status {
	want, _ := r.cfg.Views.View(name)
	at := want.Position()
	s := Status{
		Zone: name, Enabled: view.Enabled(stable.Snapshot(), name), Wanted: at.Revision, InSync: true,
		Nacks: []Nack{}, Rejected: []Rejected{}, Replicas: []Replica{},
	}
	s.Ingresses, s.Services = r.offered(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	z := r.zones[name]
	if z == nil {
		s.InSync = false
		return s
	}
	s.Repairs = z.repairs
	for _, n := range z.elsewhere {
		s.Repairs += n
	}
	reps := z.sorted()
	current := z.current()
	for _, rep := range reps {
		s.Replicas = append(s.Replicas, Replica{
			Replica: rep.name, Connected: rep.connected(), Global: r.globalOf(rep), Since: rep.since, Revision: rep.held.Revision,
			Proxies: uint64(rep.status.GetProxies()), Acked: uint64(rep.status.GetAcked()),
		})
		seen := rep.seenAt()
		if rep.peer != "" { // which tells when it goes
			seen = r.cfg.Now()
		}
		if seen.After(s.LastSeen) {
			s.LastSeen = seen
		}
	}
	var rejected []*kdsv1.Rejection
	for i, rep := range current {
		if i == 0 || rep.held.Revision < s.Revision {
			s.Revision = rep.held.Revision
		}
		// A zone is connected since its first replica is, and gone since its last.
		if connected := rep.connected(); i == 0 || connected == rep.since.Before(s.Since) {
			s.Connected, s.Since, s.Version = connected, rep.since, rep.version
		}
		s.InSync = s.InSync && rep.held == at
		s.Problem = cmp.Or(s.Problem, rep.problem)
		if rep.connected() {
			s.Proxies += uint64(rep.status.GetProxies())
			s.Acked += uint64(rep.status.GetAcked())
			s.Nacks = append(s.Nacks, nacks(rep.status, 0)...)
		}
		rejected = append(rejected, rep.allRejected()...)
	}
	s.InSync = s.InSync && len(current) > 0
	s.Rejected = listed(rejected)
	return s
}

// globalOf names the replica of global that has a stream; empty for none.
func (r *Registry) globalOf(rep *replica) string {
	if rep.session != nil {
		return r.cfg.Machine.Replica
	}
	return rep.peer
}

// current are the connected replicas, or when there is none those that were; ordered.
func (z *zone) current() []*replica {
	all := z.sorted()
	connected := slices.DeleteFunc(slices.Clone(all), func(rep *replica) bool { return !rep.connected() })
	if len(connected) > 0 {
		return connected
	}
	return all
}

func (rep *replica) seenAt() time.Time {
	if rep.session != nil {
		return time.Unix(0, rep.session.seen.Load())
	}
	return rep.seen
}

// allRejected joins what the replica said when it took records with what its status says.
func (rep *replica) allRejected() []*kdsv1.Rejection {
	if len(rep.rejected) == 0 {
		return rep.status.GetRejected()
	}
	return append(slices.Clone(rep.rejected), rep.status.GetRejected()...)
}

// listed orders rejections by key, one a key.
func listed(in []*kdsv1.Rejection) []Rejected {
	if len(in) == 0 {
		return []Rejected{}
	}
	byKey := map[resource.Key]string{}
	for _, r := range in {
		if key, err := kds.KeyFrom(r.GetKey()); err == nil {
			byKey[key] = r.GetReason()
		}
	}
	out := []Rejected{}
	for _, key := range slices.SortedFunc(maps.Keys(byKey), resource.Key.Compare) {
		out = append(out, Rejected{Kind: key.Kind, Mesh: key.Mesh, Name: key.Name, Reason: byKey[key]})
	}
	return out
}

// nacks are those of a revision or later.
func nacks(s *kdsv1.Status, least uint64) []Nack {
	out := []Nack{}
	for _, n := range s.GetNacks() {
		if n.GetRevision() < least {
			continue
		}
		nack := Nack{Mesh: n.GetMesh(), Proxy: n.GetProxy(), TypeURL: n.GetTypeUrl(), Revision: n.GetRevision(), Error: text(n.GetError())}
		if n.GetTime() != nil {
			nack.Time = n.GetTime().AsTime()
		}
		out = append(out, nack)
	}
	return out
}

// offered reads from the store what a zone offers.
func (r *Registry) offered(zone string) ([]Ingress, []Service) {
	keys, snap := r.cfg.Views.Offers(zone)
	ingresses, services := []Ingress{}, []Service{}
	told := map[resource.Key]int{} // where in services, or ingresses, what several replicas report stands
	for _, key := range keys {
		e, ok := snap.Get(key)
		if !ok {
			continue
		}
		switch spec := e.Resource.Spec.(type) {
		case *meshv1.ZoneIngress:
			n := spec.GetNetworking()
			if key.Name, _ = kds.SplitOfferName(key.Name); told[key] > 0 {
				continue
			}
			told[key] = len(ingresses) + 1
			ingresses = append(ingresses, Ingress{
				Name: key.Name, Address: cmp.Or(n.GetAdvertisedAddress(), n.GetAddress()), Port: cmp.Or(n.GetAdvertisedPort(), n.GetPort()),
			})
		case *federationv1.ServiceAvailability:
			s := Service{Mesh: key.Mesh, Service: spec.GetService()}
			for _, t := range spec.GetTagSets() {
				s.Count += uint64(t.GetCount())
			}
			key.Name, _ = kds.SplitOfferName(key.Name)
			if at := told[key]; at > 0 {
				services[at-1].Count = max(services[at-1].Count, s.Count)
				continue
			}
			services = append(services, s)
			told[key] = len(services)
		}
	}
	return ingresses, services
}
