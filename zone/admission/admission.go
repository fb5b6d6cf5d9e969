// Package admission owns the decision whether a proxy that connects to its zone is who it says it is: it reads what the
// proxy presents in the metadata of its xDS node, checks the document, and holds it against the proxy's token.
//
// It never registers a proxy, never keeps the token and logs nothing. A stranger learns only that its token was refused,
// and nothing that it sent is decoded before the token is verified.
package admission

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Reasons for which a proxy is refused; every error of Admit wraps exactly one of them or of package token.
var (
	// ErrNode says that the node or its metadata is not what zoneforge's bootstrap writes.
	ErrNode = errors.New("node of the proxy is refused")
	// ErrDocument says that the resource that the proxy presents is refused.
	ErrDocument = errors.New("document of the proxy is refused")
	// ErrNoToken says that the stream carries no token.
	ErrNoToken = errors.New("no token")
	// ErrNotAllowed says that the token is good, but not for this proxy.
	ErrNotAllowed = errors.New("token does not allow this proxy")
	// ErrNotReady says that the zone doesn't know the keys of tokens yet; the proxy should try again.
	ErrNotReady = errors.New("zone is not ready")
)

// Keys of the node's metadata; their values are texts. The bootstrap (package dataplane) writes them.
const (
	metadataKind     = "zoneforge.kind"
	metadataMesh     = "zoneforge.mesh"
	metadataName     = "zoneforge.name"
	metadataDocument = "zoneforge.document"
	metadataLogs     = "zoneforge.logs"
	metadataModules  = "zoneforge.modules"
	metadataVersion  = "zoneforge.version"
)

// Kinds of proxies, as in resources.
const (
	KindDataplane   = "Dataplane"
	KindZoneIngress = "ZoneIngress"
)

const (
	// maxDocument bounds a document in bytes; the largest of ours has some ten thousand.
	maxDocument = 512 << 10
	// maxModules bounds the names and sums of modules in bytes.
	maxModules = 32 << 10
	// maxViolations bounds an error, which travels in a trailer of HTTP.
	maxViolations = 8
)

// Node is what is asked of Envoy's node.
type Node interface {
	GetId() string
	GetMetadata() *structpb.Struct
}

// Keys gives what the zone knows of dataplane tokens now. It must be safe for concurrent use; the message is not changed
// after it was given, and another one is given when keys or revocations change.
type Keys interface {
	// VerificationKeys is nil while the zone never received any.
	VerificationKeys() *federationv1.VerificationKeys
}

// Config says how to decide; Now may be nil.
type Config struct {
	Zone string
	Keys Keys
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Admission decides. It is safe for concurrent use.
type Admission struct {
	zone string
	keys Keys
	now  func() time.Time
	tags tagSets

	mu sync.Mutex
	// All below is guarded by mu: the parsed form of the message that Keys gave last.
	ring *ring
	// documents are resources by the documents that they were read from.
	documents map[Document]*resource.Resource
}

// Document is the SHA-256 of the text of one.
type Document [sha256.Size]byte

// Proxy is one that was admitted. It must not be changed.
type Proxy struct {
	// ID is the node's: "Dataplane/<mesh>/<name>" or "ZoneIngress/<name>".
	ID string
	// Kind is KindDataplane or KindZoneIngress.
	Kind string
	// Mesh is empty for a zone ingress.
	Mesh string
	Name string
	// Resource is what the proxy presents, with the zone filled in for a zone ingress.
	Resource *resource.Resource
	// Dataplane or ZoneIngress is Resource's spec; the other is nil.
	Dataplane   *meshv1.Dataplane
	ZoneIngress *meshv1.ZoneIngress
	// LogPipe is the file from which the proxy's launcher takes access logs; empty where it takes none.
	LogPipe string
	// Modules are the WebAssembly modules that the proxy's launcher found, each its name, a space and its SHA-256, sorted.
	Modules []string
	// Document is that which the proxy presents. Known says that it was told by Know, and Resource is what was told.
	Document Document
	Known    bool
	// Hash is that of Resource, by which a restarted proxy with another document is told from one that reconnects.
	Hash resource.Hash
	// Services are those whose identity the proxy has a right to, sorted: of its inbounds, or of the gateway.
	Services []string
	// Launcher is the version of what started the proxy; empty where it doesn't say.
	Launcher string
	// TokenID is the token's jti, for Revoked.
	TokenID string
	// TokenExpires is when the token ends. A stream outlives it; the next one needs a new token.
	TokenExpires time.Time

	zone   string
	claims *token.Claims
}

// Succeed says why the proxy may not take over from another that has a stream under the same ID: what the other was given,
// with the keys of its services, would be the proxy's, so its own token must allow all that the other offers. That of a
// proxy that was restarted, or given another document, does.
func (p *Proxy) Succeed(other *Proxy) error {
	if allow(p.claims, p.zone, other) != nil {
		return fmt.Errorf("zone %s: %w", p.zone, refuse("another proxy is connected as %s, with services or tags that it is not for; "+
			"give this proxy a name of its own, or stop the other", p.ID))
	}
	return nil
}

// New checks the configuration.
func New(cfg Config) (*Admission, error) {
	if cfg.Zone == "" || cfg.Keys == nil {
		return nil, errors.New("admission: the zone's name and a source of keys are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Admission{zone: cfg.Zone, keys: cfg.Keys, now: cfg.Now, tags: tagSets{seed: maphash.MakeSeed()}}, nil
}

// Admit decides on a proxy by the node of its first request and the bearer token of its stream, "" for none. The error is
// the reason that the proxy is told; it quotes neither the token nor values of the document.
func (a *Admission) Admit(_ context.Context, node Node, bearer string) (*Proxy, error) {
	p, err := a.admit(node, bearer)
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", a.zone, err)
	}
	return p, nil
}

func (a *Admission) admit(node Node, bearer string) (*Proxy, error) {
	said, err := read(node)
	if err != nil {
		return nil, err
	}
	claims, err := a.verify(bearer)
	if err != nil {
		return nil, err
	}
	// What the token doesn't reach isn't decoded either.
	if err := a.reach(claims, said); err != nil {
		return nil, err
	}
	p, err := a.decode(said)
	if err != nil {
		return nil, err
	}
	if err := allow(claims, a.zone, p); err != nil {
		return nil, err
	}
	p.Launcher = said.version
	p.TokenID, p.TokenExpires, p.zone, p.claims = claims.ID, claims.ExpiresAt, a.zone, claims
	return p, nil
}

// Bearer checks a stream's token alone, before anything that its sender says is read. What it is good for, Admit says.
func (a *Admission) Bearer(bearer string) error {
	if _, err := a.verify(bearer); err != nil {
		return fmt.Errorf("zone %s: %w", a.zone, err)
	}
	return nil
}

// Revoked is true when the token of an admitted proxy was revoked since, or its key retired. A token that merely ended cuts no
// stream off.
func (a *Admission) Revoked(p *Proxy) bool {
	r, err := a.known()
	return err == nil && (r.revoked.Contains(p.TokenID) || !r.set.Contains(p.claims.Key))
}

// said is the metadata of a node.
type said struct {
	id, kind, mesh, name, document, logs, modules, version string
}

func read(node Node) (said, error) {
	var s said
	if node == nil || node.GetId() == "" {
		return s, fmt.Errorf("%w: it has no id; start Envoy with `zoneforge dataplane run`", ErrNode)
	}
	s.id = node.GetId()
	fields := node.GetMetadata().GetFields()
	for _, f := range []struct {
		key  string
		into *string
		max  int
	}{{metadataKind, &s.kind, 64}, {metadataMesh, &s.mesh, 63}, {metadataName, &s.name, 253}, {metadataDocument, &s.document, maxDocument}, {metadataLogs, &s.logs, 255},
		{metadataModules, &s.modules, maxModules}, {metadataVersion, &s.version, 64}} {
		v, ok := fields[f.key]
		if !ok {
			// A zone ingress has no mesh, and not each launcher forwards logs, has modules or says its version.
			if f.key == metadataMesh || f.key == metadataLogs || f.key == metadataModules || f.key == metadataVersion {
				continue
			}
			return s, fmt.Errorf("%w: its metadata lacks %s; start Envoy with `zoneforge dataplane run`", ErrNode, f.key)
		}
		text, ok := v.GetKind().(*structpb.Value_StringValue)
		if !ok {
			return s, fmt.Errorf("%w: metadata %s is not a text", ErrNode, f.key)
		}
		if *f.into = text.StringValue; len(*f.into) > f.max {
			return s, fmt.Errorf("%w: metadata %s has %d bytes, at most %d are allowed", ErrNode, f.key, len(*f.into), f.max)
		}
	}
	want := s.kind + "/" + s.name
	switch {
	case s.name == "":
		return s, fmt.Errorf("%w: metadata %s is empty", ErrNode, metadataName)
	case s.kind == KindDataplane && s.mesh == "":
		return s, fmt.Errorf("%w: metadata %s is empty; a Dataplane belongs to a mesh", ErrNode, metadataMesh)
	case s.kind == KindDataplane:
		want = s.kind + "/" + s.mesh + "/" + s.name
	case s.kind == KindZoneIngress && s.mesh != "":
		return s, fmt.Errorf("%w: metadata %s is %q; a ZoneIngress serves all meshes, leave it empty", ErrNode, metadataMesh, s.mesh)
	case s.kind != KindZoneIngress:
		return s, fmt.Errorf("%w: metadata %s is %q; this zone serves Dataplane and ZoneIngress", ErrNode, metadataKind, s.kind)
	}
	if s.id != want {
		return s, fmt.Errorf("%w: its id is %.400q, and by its metadata it should be %q", ErrNode, s.id, want)
	}
	return s, nil
}

func (a *Admission) verify(bearer string) (*token.Claims, error) {
	if bearer == "" {
		return nil, fmt.Errorf("%w in the stream's metadata: authorization must be `Bearer TOKEN`; give the proxy a token file", ErrNoToken)
	}
	r, err := a.known()
	if err != nil {
		return nil, err
	}
	return r.verify(bearer, a.now())
}

// known parses the zone's keys once for each message.
func (a *Admission) known() (*ring, error) {
	message := a.keys.VerificationKeys()
	if message == nil {
		return nil, fmt.Errorf("%w: it has no keys of tokens from global yet; it gets them when it first reaches global", ErrNotReady)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ring != nil && a.ring.message == message {
		return a.ring, nil
	}
	r, err := newRing(message)
	if err != nil {
		return nil, err
	}
	a.ring = r
	return r, nil
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotAllowed, fmt.Sprintf(format, args...))
}

// reach holds the token against what the proxy says to be.
func (a *Admission) reach(c *token.Claims, s said) error {
	switch {
	case c.Zone != "" && c.Zone != a.zone:
		return refuse("it is for zone %s", c.Zone)
	case s.kind == KindZoneIngress && !c.AllowsIngress(a.zone):
		return refuse("it is of a dataplane of mesh %s, and the proxy is a ZoneIngress; make one with `zoneforge token zone-ingress`", c.Mesh)
	case s.kind == KindDataplane && c.Ingress:
		return refuse("it is of a zone ingress, and the proxy is a Dataplane; make one with `zoneforge token dataplane`")
	case s.kind == KindDataplane && c.Mesh != s.mesh:
		return refuse("it is for mesh %s, and the proxy is of mesh %s", c.Mesh, s.mesh)
	}
	return nil
}

// Know spares reading a document of a Dataplane once: its resource, which is that of a registration that this version of the software
// wrote, is handed over with the first proxy that presents it. Thousands of proxies come back at once when a zone has started. Nobody else
// may know the resource yet.
func (a *Admission) Know(document Document, r *resource.Resource) {
	a.tags.share(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.documents == nil {
		a.documents = map[Document]*resource.Resource{}
	}
	a.documents[document] = r
}

// Forget forgets what Know told.
func (a *Admission) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.documents = nil
}

// recall hands over the resource of a document that is known, nil for all others.
func (a *Admission) recall(document Document, key resource.Key) *resource.Resource {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.documents[document]
	if r == nil || r.Key != key {
		return nil
	}
	delete(a.documents, document)
	return r
}

// decode reads the document and completes it.
func (a *Admission) decode(s said) (*Proxy, error) {
	key := resource.Key{Kind: s.kind, Mesh: s.mesh, Name: s.name}
	document := Document(sha256.Sum256([]byte(s.document)))
	r := a.recall(document, key)
	known := r != nil
	if !known {
		var err error
		if r, err = parse(s, key); err != nil {
			return nil, err
		}
		a.tags.share(r)
	}
	p := &Proxy{ID: s.id, Kind: s.kind, Mesh: s.mesh, Name: s.name, Resource: r, LogPipe: s.logs, Document: document, Known: known}
	if s.modules != "" {
		p.Modules = strings.Split(s.modules, "\n")
		slices.Sort(p.Modules)
	}
	switch spec := r.Spec.(type) {
	case *meshv1.Dataplane:
		p.Dataplane = spec
		for _, o := range offers(spec) {
			if z := o.tags[resource.TagZone]; z != "" && z != a.zone {
				return nil, fmt.Errorf("%w: %s has the tag %s: %s, and this zone is %s; leave the tag out", ErrDocument, o.field, resource.TagZone, z, a.zone)
			}
			p.Services = append(p.Services, o.tags[resource.TagService])
		}
		slices.Sort(p.Services)
		p.Services = slices.Compact(p.Services)
	case *meshv1.ZoneIngress:
		if z := spec.GetZone(); z != "" && z != a.zone {
			return nil, fmt.Errorf("%w: zone is %s, and this zone is %s; leave it out", ErrDocument, z, a.zone)
		}
		spec = proto.CloneOf(spec)
		spec.Zone = a.zone
		p.ZoneIngress = spec
		p.Resource = &resource.Resource{Key: r.Key, Labels: r.Labels, Spec: spec}
	}
	payload, err := resource.Marshal(p.Resource)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDocument, err)
	}
	p.Hash = resource.HashOf(p.Resource.Key, payload)
	return p, nil
}

// parse reads the one resource of a document.
func parse(s said, key resource.Key) (*resource.Resource, error) {
	batch := resource.Decode("document", []byte(s.document), resource.Options{DefaultMesh: s.mesh})
	if n := len(batch.Violations); n > 0 {
		if n > maxViolations {
			batch.Violations = batch.Violations[:maxViolations]
			return nil, fmt.Errorf("%w, of %d errors the first %d: %w", ErrDocument, n, maxViolations, batch.Err())
		}
		return nil, fmt.Errorf("%w: %w", ErrDocument, batch.Err())
	}
	if len(batch.Resources) != 1 {
		return nil, fmt.Errorf("%w: it holds %d resources, want one", ErrDocument, len(batch.Resources))
	}
	r := batch.Resources[0]
	if r.Key != key {
		return nil, fmt.Errorf("%w: it is %s, and the node's metadata says %s", ErrDocument, r.Key, key)
	}
	return r, nil
}

// offer is a set of tags by which others know the proxy.
type offer struct {
	field string
	tags  map[string]string
}

func offers(d *meshv1.Dataplane) []offer {
	n := d.GetNetworking()
	if g := n.GetGateway(); g != nil {
		return []offer{{"networking.gateway", g.GetTags()}}
	}
	var out []offer
	for i, in := range n.GetInbound() {
		out = append(out, offer{fmt.Sprintf("networking.inbound[%d]", i), in.GetTags()})
	}
	return out
}

// allow holds the token against what the proxy offers. A client without an inbound has no identity, so its mesh is all
// that there is to check.
func allow(c *token.Claims, zone string, p *Proxy) error {
	if p.Dataplane == nil {
		return nil
	}
	for _, o := range offers(p.Dataplane) {
		tags := map[string]string{}
		maps.Copy(tags, o.tags)
		tags[resource.TagZone] = zone // a token may demand it, and nobody has to write it down
		service := tags[resource.TagService]
		if c.AllowsService(p.Mesh, zone, service, tags) {
			continue
		}
		if len(c.Services) > 0 && !slices.Contains(c.Services, service) {
			return refuse("%s is of service %s, and it is for %s", o.field, service, strings.Join(c.Services, ", "))
		}
		for _, k := range slices.Sorted(maps.Keys(c.Tags)) {
			if have, ok := tags[k]; !ok {
				return refuse("%s lacks the tag %s, which it wants to be %s", o.field, k, strings.Join(c.Tags[k], " or "))
			} else if !slices.Contains(c.Tags[k], have) {
				return refuse("%s has the tag %s: %s, and it wants %s", o.field, k, have, strings.Join(c.Tags[k], " or "))
			}
		}
		return refuse("%s is of service %s", o.field, service)
	}
	return nil
}
