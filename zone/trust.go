package zone

import (
	"maps"
	"slices"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/identity"
)

// maxWaiting bounds the names of proxies that a mesh's roots wait for.
const maxWaiting = 10

// trust says how proxies stand with the roots of meshes that have several, from which global tells when a former root may go.
//
// A secret that changes is given to all that have it within one flush. So a proxy that acknowledged what it was given last has the
// newest of each of its secrets.
func (c *core) trust() []*kdsv1.Status_Trust {
	rotations := c.identity.Rotations()
	if len(rotations) == 0 {
		return nil
	}
	out := make([]*kdsv1.Status_Trust, len(rotations))
	used := make([]map[[32]byte]bool, len(rotations))
	holders := make([]uint32, len(rotations))
	index := make(map[string]int, len(rotations))
	for i, r := range rotations {
		out[i], used[i], index[r.Mesh] = &kdsv1.Status_Trust{Mesh: r.Mesh}, map[[32]byte]bool{}, i
		roots := r.Roots
		if key := (secretKey{r.Mesh, identity.BundleName}); len(c.usersOf[key]) > 0 && c.secrets[key] != nil {
			roots = c.secrets[key].roots
		}
		for _, print := range roots {
			out[i].Trusted = append(out[i].Trusted, print[:])
		}
		if r.Issuer != [32]byte{} {
			used[i][r.Issuer] = true
		}
	}
	behind := func(i int, name string) {
		out[i].Behind++
		out[i].Waiting = append(out[i].Waiting, name)
	}
	for id, p := range c.proxies {
		i, rotates := index[p.mesh()]
		if !rotates {
			continue
		}
		if p.built == nil {
			holders[i]++
			behind(i, p.who.Name)
			continue
		}
		if !slices.Contains(p.built.Secrets, identity.BundleName) {
			continue
		}
		holders[i]++
		for _, name := range p.built.Secrets {
			if s := c.secrets[secretKey{p.mesh(), name}]; s != nil && s.of.Certificate != nil && s.of.Certificate.Root != [32]byte{} {
				used[i][s.of.Certificate.Root] = true
			}
		}
		if c.renew[id] || p.waiting || p.wanted == 0 || p.progress.Acked < p.wanted || p.refusesSecrets() {
			behind(i, p.who.Name)
		}
	}
	for id := range c.restored {
		if known, ok := c.state.Proxy(id); ok {
			if i, rotates := index[known.Mesh]; rotates {
				holders[i]++
				behind(i, known.Name)
			}
		}
	}
	for i, t := range out {
		t.Proxies = &holders[i]
		slices.Sort(t.Waiting)
		t.Waiting = t.Waiting[:min(len(t.Waiting), maxWaiting)]
		for _, print := range slices.SortedFunc(maps.Keys(used[i]), func(a, b [32]byte) int { return slices.Compare(a[:], b[:]) }) {
			t.Used = append(t.Used, slices.Clone(print[:]))
		}
	}
	return out
}

func (p *proxy) refusesSecrets() bool {
	for _, n := range p.progress.Nacks {
		if n.TypeURL == xds.TypeSecret {
			return true
		}
	}
	return false
}
