package rest

import (
	"fmt"
	"slices"
	"time"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// after is the state as a plan would leave it.
type after struct {
	snap *store.Snapshot
	put  map[resource.Key]*resource.Resource
	gone map[resource.Key]bool
}

func (a after) get(k resource.Key) (*resource.Resource, bool) {
	if r, ok := a.put[k]; ok {
		return r, true
	}
	if a.gone[k] {
		return nil, false
	}
	e, ok := a.snap.Get(k)
	return e.Resource, ok
}

// checker collects what is certainly wrong, and what only looks so, in a plan's references.
type checker struct {
	after
	now        time.Time
	violations []resource.Violation
	notes      []resource.Note
}

func (c *checker) wrong(path, message, hint string) {
	c.violations = append(c.violations, resource.Violation{Path: path, Message: message, Hint: hint})
}

func (c *checker) note(format string, args ...any) {
	c.notes = append(c.notes, resource.Note{Text: fmt.Sprintf(format, args...)})
}

// references checks what a plan's resources say of others: meshes must exist and leave nothing of users behind, TLS listeners
// need certificates that a gateway can serve, filters need keys and users that can be read, and a provided authority that is in
// use must be able to sign. What an author may be about to mend by the next change is only noted.
func references(s *store.Snapshot, others References, pl plan, now time.Time) ([]resource.Violation, []resource.Note) {
	c := &checker{after: after{snap: s, put: map[resource.Key]*resource.Resource{}, gone: map[resource.Key]bool{}}, now: now}
	for _, r := range pl.puts {
		c.put[r.Key] = r
	}
	for _, k := range pl.deletes {
		c.gone[k] = true
	}
	for _, r := range pl.puts {
		if r.Mesh == "" {
			continue
		}
		if _, ok := c.get(resource.Key{Kind: "Mesh", Name: r.Mesh}); !ok {
			c.wrong("mesh", fmt.Sprintf("%s: mesh %q does not exist", r.Key, r.Mesh), "create the mesh first or in the same change")
		}
	}
	for _, k := range pl.deletes {
		if _, ok := s.Get(k); ok && k.Kind == "Mesh" {
			c.leftBehind(k)
		}
	}
	due := map[resource.Key]bool{} // what refers to Secrets and is to be looked at
	secrets := map[resource.Key]bool{}
	for _, k := range pl.keys() {
		switch k.Kind {
		case "MeshGateway", "Mesh", "MeshGatewayRoute", "FilterPolicy":
			due[k] = true
		case "Secret":
			secrets[k] = true
		}
	}
	for k := range secrets {
		due[resource.Key{Kind: "Mesh", Name: k.Mesh}] = true
		for _, by := range others.Naming(k) {
			switch by.Kind {
			case "MeshGateway", "MeshGatewayRoute", "FilterPolicy":
				due[by] = true
			}
		}
	}
	keys := make([]resource.Key, 0, len(due))
	for k := range due {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, resource.Key.Compare)
	for _, k := range keys {
		r, ok := c.get(k)
		if !ok {
			continue
		}
		// What the plan doesn't touch was judged when it was written.
		touched := func(secret resource.Key) bool { return c.put[k] != nil || secrets[secret] }
		switch k.Kind {
		case "Mesh":
			c.authorities(r, touched)
		case "MeshGateway":
			c.listeners(r, touched)
		}
		c.credentials(r, touched)
	}
	return c.violations, c.notes
}

func (c *checker) leftBehind(mesh resource.Key) {
	for _, kind := range resource.Kinds() {
		if kind.Global() || kind.Writer != resource.WriterUser {
			continue
		}
		for e := range c.snap.Each(kind.Name, mesh.Name) {
			if !c.gone[e.Resource.Key] {
				c.wrong("", fmt.Sprintf("%s still holds %s", mesh, e.Resource.Key), "delete it in the same change")
			}
		}
	}
}

func (c *checker) authorities(mesh *resource.Resource, touched func(resource.Key) bool) {
	mtls := resource.Spec[*meshv1.Mesh](mesh).GetMtls()
	for i, b := range mtls.GetBackends() {
		if b.GetType() != "provided" {
			continue
		}
		cert := resource.Key{Kind: "Secret", Mesh: mesh.Name, Name: b.GetConf().GetCert().GetSecret()}
		key := resource.Key{Kind: "Secret", Mesh: mesh.Name, Name: b.GetConf().GetKey().GetSecret()}
		if !touched(cert) && !touched(key) {
			continue
		}
		problem, hint := c.provided(cert, key)
		path := fmt.Sprintf("mtls.backends[%d].conf", i)
		switch {
		case problem == "":
		case b.GetName() == mtls.GetEnabledBackend():
			c.wrong(path, fmt.Sprintf("%s: backend %s is in use, but %s", mesh.Key, b.GetName(), problem), hint)
		default:
			c.note("%s: %s: backend %s cannot be used yet: %s", mesh.Key, path, b.GetName(), problem)
		}
	}
}

// provided says why the Secrets of a provided authority cannot sign; empty when they can.
func (c *checker) provided(cert, key resource.Key) (problem, hint string) {
	var data [2][]byte
	for i, k := range []resource.Key{cert, key} {
		r, ok := c.get(k)
		if !ok {
			return k.String() + " does not exist", "apply it in the same change, or enable the backend once it is there"
		}
		data[i] = resource.Spec[*meshv1.Secret](r).GetData()
	}
	if _, err := pki.LoadRoot(data[0], data[1], c.now); err != nil {
		return fmt.Sprintf("%s with %s: %s", cert, key, err), "provide the PEM of a root certificate, and of its private key"
	}
	return "", ""
}
