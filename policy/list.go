package policy

import (
	"cmp"
	"slices"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// List holds the policies of one kind and one mesh, and finds those that can concern a proxy, a connection or a destination by the
// services that their selectors name, so that the work of finding them doesn't grow with all there are. What it finds is no decision: of
// those that it gives, some may not match, but none that matches is left out. Its zero value is empty, and so is a nil one.
type List struct {
	all []*resource.Resource
	// between are policies for connections by both ends, of which each is in as many as its selectors name; to and from are the same
	// policies by one end.
	between  map[ends]found
	to, from map[string]found
	// of are policies for proxies by the proxy's service, and what is outside the mesh by its own.
	of map[string]found
}

// ends are the services of a connection; an empty one stands for all that no selector names.
type ends struct{ from, to string }

// found are policies in the order of their names.
type found []*resource.Resource

// anyService is where policies are found that don't name a service in each of their selectors.
const anyService = ""

// maxPairs bounds at how many pairs of services one policy is kept; one that names more is found by its destinations alone.
const maxPairs = 64

// NewList makes a list of policies of one kind and one mesh. Of those with the same name the last one counts.
func NewList(policies ...*resource.Resource) *List {
	l := &List{}
	for _, r := range policies {
		l.Put(r)
	}
	return l
}

// All are the policies in the order of their names. They are lent: nothing may be put or deleted while they are in use.
func (l *List) All() []*resource.Resource {
	if l == nil {
		return nil
	}
	return l.all
}

// Len counts the policies.
func (l *List) Len() int { return len(l.All()) }

// Between are the policies that can hold for a connection between proxies with these tags.
func (l *List) Between(source, destination map[string]string) []*resource.Resource {
	if l == nil || len(l.between) == 0 {
		return nil
	}
	from, to := source[resource.TagService], destination[resource.TagService]
	lists := [4]found{l.between[ends{anyService, anyService}]}
	if to != anyService {
		lists[1] = l.between[ends{anyService, to}]
	}
	if from != anyService {
		lists[2] = l.between[ends{from, anyService}]
	}
	if from != anyService && to != anyService {
		lists[3] = l.between[ends{from, to}]
	}
	return joined(lists[:]...)
}

// To are the policies for connections that can hold at a destination with these tags, for some client.
func (l *List) To(destination map[string]string) []*resource.Resource {
	if l == nil {
		return nil
	}
	return named(l.to, destination)
}

// From are the policies for connections that can hold for a client with these tags, on its way to some destination.
func (l *List) From(source map[string]string) []*resource.Resource {
	if l == nil {
		return nil
	}
	return named(l.from, source)
}

// Of are the policies that can select a proxy which is known by any of these sets of tags. Of kinds that are themselves what is
// selected, such as ExternalService, they are those of the same service.
func (l *List) Of(sets ...map[string]string) []*resource.Resource {
	if l == nil {
		return nil
	}
	if len(sets) == 1 {
		return named(l.of, sets[0])
	}
	lists, seen := []found{l.of[anyService]}, map[string]bool{anyService: true}
	for _, tags := range sets {
		if service := tags[resource.TagService]; !seen[service] {
			seen[service] = true
			lists = append(lists, l.of[service])
		}
	}
	// One that names several of the services is found by each.
	return slices.CompactFunc(ordered(joined(lists...)), func(a, b *resource.Resource) bool { return a == b })
}

func named(index map[string]found, tags map[string]string) []*resource.Resource {
	service := tags[resource.TagService]
	if service == anyService {
		return index[anyService]
	}
	return joined(index[anyService], index[service])
}

// joined is all that lists hold; what comes of a single one is lent.
func joined(lists ...found) []*resource.Resource {
	n, last := 0, found(nil)
	for _, l := range lists {
		if len(l) > 0 {
			n += len(l)
			last = l
		}
	}
	if n == len(last) {
		return last[:n:n]
	}
	out := make([]*resource.Resource, 0, n)
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func ordered(policies []*resource.Resource) []*resource.Resource {
	if !slices.IsSortedFunc(policies, byName) {
		policies = slices.SortedFunc(slices.Values(policies), byName)
	}
	return policies
}

func byName(a, b *resource.Resource) int { return cmp.Compare(a.Name, b.Name) }

// Put puts a policy in, in the place of one of its name.
func (l *List) Put(r *resource.Resource) {
	l.Delete(r.Name)
	l.all = found(l.all).with(r)
	l.index(r, found.with)
}

// Delete takes the policy of a name out. It reports whether there was one.
func (l *List) Delete(name string) bool {
	i, ok := found(l.all).search(name)
	if !ok {
		return false
	}
	l.index(l.all[i], found.without)
	l.all = slices.Delete(l.all, i, i+1)
	return true
}

func (f found) search(name string) (int, bool) {
	return slices.BinarySearchFunc(f, name, func(r *resource.Resource, name string) int { return cmp.Compare(r.Name, name) })
}

func (f found) with(r *resource.Resource) found {
	i, ok := f.search(r.Name)
	if ok { // by another selector of the same policy
		return f
	}
	return slices.Insert(f, i, r)
}

func (f found) without(r *resource.Resource) found {
	i, ok := f.search(r.Name)
	if !ok {
		return f
	}
	return slices.Delete(f, i, i+1)
}

// index changes what is found at each place where a policy belongs.
func (l *List) index(r *resource.Resource, change func(found, *resource.Resource) found) {
	if v, ok := r.Spec.(DataplanePolicy); ok {
		for _, service := range places(v.GetSelectors()) {
			at(&l.of, service, r, change)
		}
	}
	if v, ok := r.Spec.(*meshv1.ExternalService); ok {
		at(&l.of, v.GetTags()[resource.TagService], r, change)
	}
	var from, to []string
	if v, ok := r.Spec.(interface{ GetDestinations() []*meshv1.Selector }); ok {
		to = places(v.GetDestinations())
		for _, service := range to {
			at(&l.to, service, r, change)
		}
	}
	if v, ok := r.Spec.(ConnectionPolicy); ok {
		from = places(v.GetSources())
		for _, service := range from {
			at(&l.from, service, r, change)
		}
	}
	if len(from)*len(to) > maxPairs {
		from = []string{anyService}
	}
	if len(from)*len(to) > maxPairs {
		to = []string{anyService}
	}
	for _, a := range from {
		for _, b := range to {
			at(&l.between, ends{a, b}, r, change)
		}
	}
}

func at[K comparable](index *map[K]found, key K, r *resource.Resource, change func(found, *resource.Resource) found) {
	if *index == nil {
		*index = map[K]found{}
	}
	if next := change((*index)[key], r); len(next) > 0 {
		(*index)[key] = next
	} else {
		delete(*index, key)
	}
}

// places are the services that selectors name, or anyService where one of them takes others too. Without selectors there are none,
// as nothing is selected.
func places(selectors []*meshv1.Selector) []string {
	names, exact := Services(selectors)
	if !exact {
		return []string{anyService}
	}
	return names
}

// Services are those that selectors name; exact is false where one of them takes any.
func Services(selectors []*meshv1.Selector) (names []string, exact bool) {
	for _, v := range selectors {
		name := v.GetMatch()[resource.TagService]
		if name == "" || name == resource.AnyValue {
			return nil, false
		}
		names = append(names, name)
	}
	return names, true
}

// ByKind holds the policies of one mesh.
type ByKind map[string]*List

// Put puts a policy in, in the place of one of its kind and name.
func (b ByKind) Put(r *resource.Resource) {
	if b[r.Kind] == nil {
		b[r.Kind] = &List{}
	}
	b[r.Kind].Put(r)
}

// Delete takes a policy out, if it is there.
func (b ByKind) Delete(key resource.Key) {
	if l := b[key.Kind]; l != nil {
		l.Delete(key.Name)
	}
}
