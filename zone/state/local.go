package state

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/ingress"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
)

// tagSet counts the endpoints that carry exactly the same tags.
type tagSet struct {
	tags  map[string]string
	count uint32
}

// setLocal replaces the endpoints that a proxy gives to a service; nil takes them away.
func (s *State) setLocal(m *mesh, name, id string, list []ingress.Local) {
	v := m.service(name)
	old := v.local[id]
	if reflect.DeepEqual(old, list) {
		return
	}
	before := v.singles()
	for _, l := range old {
		key := tagsKey(l.Tags)
		if t := v.tagSets[key]; t != nil {
			if t.count--; t.count == 0 {
				delete(v.tagSets, key)
			}
		}
	}
	delete(v.local, id)
	for _, l := range list {
		key := tagsKey(l.Tags)
		if v.tagSets[key] == nil {
			v.tagSets[key] = &tagSet{tags: l.Tags}
		}
		v.tagSets[key].count++
	}
	if len(list) > 0 {
		v.local[id] = list
	}
	s.markEndpoints(v, ingress.ClientView, ingress.IngressView)
	s.dirty.offer[serviceKey{m.name, name}] = struct{}{}
	if !slices.Equal(before, v.singles()) {
		s.dirty.ingresses = true
	}
	s.protocolChanged(m, name, v)
}

// maxSingles bounds how many subsets of one tag an ingress offers of a service, for tags such as an instance's number.
const maxSingles = 32

// singles are the tags by which others may ask for a part of the service, in order. Without an endpoint there are none.
func (v *service) singles() []string {
	if len(v.tagSets) == 0 {
		return nil
	}
	seen := map[string]bool{}
	for _, t := range v.tagSets {
		for k, value := range t.tags {
			if k != resource.TagService && k != resource.TagProtocol && k != resource.TagZone {
				seen[k+"\x00"+value] = true
			}
		}
	}
	out := slices.Sorted(maps.Keys(seen))
	return append([]string{""}, out[:min(len(out), maxSingles)]...)
}

// tagsKey tells tags apart.
func tagsKey(tags map[string]string) string { return string(appendTags(nil, tags)) }

func appendTags(b []byte, tags map[string]string) []byte {
	one := func(k, v string) {
		b = append(strconv.AppendQuote(append(strconv.AppendQuote(b, k), '='), v), ',')
	}
	if len(tags) == 1 { // as those of nearly all outbounds
		for k, v := range tags {
			one(k, v)
		}
		return b
	}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		one(k, tags[k])
	}
	return b
}

// updateOffer puts what the zone offers of a service, or a zone ingress where the mesh is empty, into the offer. It reports
// whether that changed anything.
func (s *State) updateOffer(key serviceKey) bool {
	var k resource.Key
	var spec proto.Message
	if key.mesh == "" {
		// The name is kept when the proxy has gone.
		k = resource.Key{Kind: "ZoneIngress", Name: kds.OfferName(s.zone, strings.TrimPrefix(key.service, "ZoneIngress/"), s.replica)}
		if p := s.proxies[key.service]; p != nil && p.ZoneIngress != nil && !p.Opening {
			z, _ := proto.Clone(p.ZoneIngress).(*meshv1.ZoneIngress)
			z.Zone = s.zone
			spec = z
		}
	} else {
		k = resource.Key{Kind: "ServiceAvailability", Mesh: key.mesh, Name: kds.OfferName(s.zone, key.service, s.replica)}
		if v := s.mesh(key.mesh).service(key.service); len(v.tagSets) > 0 {
			a := &federationv1.ServiceAvailability{Zone: s.zone, Service: key.service}
			for _, name := range slices.Sorted(maps.Keys(v.tagSets)) {
				a.TagSets = append(a.TagSets, &federationv1.TagSet{Tags: v.tagSets[name].tags, Count: v.tagSets[name].count})
			}
			spec = a
		}
	}
	if spec == nil {
		return s.offer.Delete(k)
	}
	payload, err := resource.Marshal(&resource.Resource{Key: k, Spec: spec})
	if err != nil {
		return false
	}
	r := kds.NewRecord(k, payload)
	if old, ok := s.offer.Get(k); ok && bytes.Equal(old.GetHash(), r.GetHash()) {
		return false
	}
	return s.offer.Put(r) == nil
}
