package xds

import (
	"crypto/sha256"
	"slices"
)

// Memo remembers listeners, routes and clusters by what they were built from, so that a proxy is built of what others have already, or
// it had before: replicas and workloads have most of their ways out in common, and a policy changes few parts of them. What it gives is
// what Build gives, to the byte. It remembers until Keep leaves a resource out. Its zero value is ready; it has one owner, whose calls
// must not overlap.
type Memo struct {
	parts   map[[sha256.Size]byte]part
	digests digester
	// built and bytes are of what was built since they were taken.
	built, bytes int
}

// part is a resource with what it asked of the rest of its proxy.
type part struct {
	resource *Resource
	asked    []answer
}

// made is the resource of a part of a proxy. A nil Memo builds it each time, and so does any for what is personal. Only from these
// the proxy's own texts are cut out: all that have the others hold the same. texts are others that may be cut out of what is remembered, nil
// for none.
func made[T any](m *Memo, personal bool, typeURL string, from *T, names *known, texts *[]string, build func() (*Resource, error)) (*Resource, error) {
	names.asked = names.asked[:0]
	if m == nil || personal {
		r, err := build()
		if err != nil {
			return nil, err
		}
		r.personalize(names.own)
		m.count(r)
		return r, nil
	}
	key := m.digests.of(typeURL, from)
	if known, ok := m.parts[key]; ok && names.same(known.asked) {
		return known.resource, nil
	}
	r, err := build()
	if err != nil {
		return nil, err
	}
	r.cut(texts)
	m.count(r)
	if m.parts == nil {
		m.parts = map[[sha256.Size]byte]part{}
	}
	m.parts[key] = part{r, slices.Clone(names.asked)}
	return r, nil
}

// count does nothing for a nil Memo.
func (m *Memo) count(built ...*Resource) {
	if m == nil {
		return
	}
	m.built += len(built)
	for _, r := range built {
		m.bytes += r.Size()
	}
}

// TakeBuilt counts what was built since the last call, as nothing was remembered of it, and its bytes.
func (m *Memo) TakeBuilt() (resources, bytes int) {
	resources, bytes, m.built, m.bytes = m.built, m.bytes, 0, 0
	return resources, bytes
}

// Keep forgets the resources for which used says no. It returns how many remain.
func (m *Memo) Keep(used func(*Resource) bool) int {
	for key, p := range m.parts {
		if !used(p.resource) {
			delete(m.parts, key)
		}
	}
	return len(m.parts)
}
