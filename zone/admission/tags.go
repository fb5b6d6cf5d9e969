package admission

import (
	"hash/maphash"
	"maps"
	"sync"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// maxTags bounds the sets of tags that are shared with documents to come, at twice as many.
const maxTags = 4096

// tagSets lets documents share equal tags: those of a service stand in the document of each proxy that serves it or sends to it, and are
// most of what a document takes. It holds those that came of late, in two maps of which the older goes when the newer is full. Safe for
// concurrent use.
type tagSets struct {
	seed maphash.Seed

	mu sync.Mutex
	// Guarded by mu: tags by their hash.
	newer, older map[uint64]map[string]string
}

// share puts the tags of others that say the same in the place of a document's own. Nobody else may know the document yet.
func (t *tagSets) share(r *resource.Resource) {
	d, ok := r.Spec.(*meshv1.Dataplane)
	if !ok {
		return
	}
	n := d.GetNetworking()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range n.GetInbound() {
		i.Tags = t.sharedLocked(i.GetTags())
	}
	for _, o := range n.GetOutbound() {
		o.Tags = t.sharedLocked(o.GetTags())
	}
	if g := n.GetGateway(); g != nil {
		g.Tags = t.sharedLocked(g.GetTags())
	}
}

func (t *tagSets) sharedLocked(tags map[string]string) map[string]string {
	if len(tags) == 0 {
		return tags
	}
	var key uint64 // the same in whatever order
	for k, v := range tags {
		key += maphash.Comparable(t.seed, [2]string{k, v})
	}
	if known := t.newer[key]; maps.Equal(known, tags) {
		return known
	}
	if known := t.older[key]; maps.Equal(known, tags) {
		tags = known
	}
	if len(t.newer) >= maxTags || t.newer == nil {
		t.newer, t.older = map[uint64]map[string]string{}, t.newer
	}
	t.newer[key] = tags
	return tags
}
