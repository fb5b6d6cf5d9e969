package admission

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
)

var clock = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type node struct {
	id       string
	metadata map[string]any
}

func (n node) GetId() string { return n.id }

func (n node) GetMetadata() *structpb.Struct {
	s, err := structpb.NewStruct(n.metadata)
	if err != nil {
		panic(err)
	}
	return s
}

// keys is what the zone knows.
type keys struct {
	mu      sync.Mutex
	message *federationv1.VerificationKeys
}

func (k *keys) VerificationKeys() *federationv1.VerificationKeys {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.message
}

func (k *keys) set(signing token.SigningKey, revoked ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.message = &federationv1.VerificationKeys{Revoked: revoked,
		Keys: []*federationv1.VerificationKey{{Id: signing.ID(), Ed25519: signing.Verification().Public}}}
}

type bench struct {
	t         testing.TB
	keys      *keys
	signing   token.SigningKey
	admission *Admission
}

func newBench(t testing.TB) *bench {
	t.Helper()
	signing, err := token.NewSigningKey(rand.Reader, token.Dataplane)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, keys: &keys{}, signing: signing}
	b.keys.set(signing)
	if b.admission, err = New(Config{Zone: "east", Keys: b.keys, Now: func() time.Time { return clock }}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) token(change func(*token.Claims)) string {
	b.t.Helper()
	c := token.Claims{Purpose: token.Dataplane, ID: "jti", IssuedAt: clock.Add(-time.Minute), ExpiresAt: clock.Add(time.Hour), Mesh: "default"}
	if change != nil {
		change(&c)
	}
	text, err := token.Sign(b.signing, c)
	if err != nil {
		b.t.Fatal(err)
	}
	return text.Reveal()
}

func ingressToken(c *token.Claims) { c.Ingress, c.Mesh, c.Zone = true, "", "east" }

const sidecarDocument = `{"type":"Dataplane","mesh":"default","name":"web-1","networking":{"address":"127.0.0.1",
 "inbound":[{"port":8080,"servicePort":9080,"tags":{"kuma.io/service":"web","version":"v1"}},{"port":8081,"servicePort":9081,"tags":{"kuma.io/service":"admin","version":"v1"}}],
 "outbound":[{"port":9000,"tags":{"kuma.io/service":"backend"}}]}}`

const ingressDocument = `{"type":"ZoneIngress","name":"in","networking":{"address":"127.0.0.1","port":10001}}`

func sidecar(document string) node {
	return node{"Dataplane/default/web-1", map[string]any{metadataKind: "Dataplane", metadataMesh: "default", metadataName: "web-1", metadataDocument: document}}
}

func zoneIngress(document string) node {
	return node{"ZoneIngress/in", map[string]any{metadataKind: "ZoneIngress", metadataMesh: "", metadataName: "in", metadataDocument: document}}
}

func (b *bench) admit(n node, text string) (*Proxy, error) {
	return b.admission.Admit(b.t.Context(), n, text)
}

func TestAdmits(t *testing.T) {
	b := newBench(t)
	p, err := b.admit(sidecar(sidecarDocument), b.token(func(c *token.Claims) {
		c.Zone, c.Services, c.Tags = "east", []string{"web", "admin", "other"}, map[string][]string{"version": {"v1", "v2"}, "kuma.io/zone": {"east"}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if p.ID != "Dataplane/default/web-1" || p.Kind != KindDataplane || p.Mesh != "default" || p.Name != "web-1" || p.Dataplane == nil || p.ZoneIngress != nil ||
		fmt.Sprint(p.Services) != "[admin web]" || p.TokenID != "jti" || !p.TokenExpires.Equal(clock.Add(time.Hour)) || p.Resource.Spec != p.Dataplane {
		t.Errorf("%+v", p)
	}
	again, err := b.admit(sidecar(sidecarDocument+"\n"), b.token(nil))
	if err != nil || again.Hash != p.Hash {
		t.Errorf("the same document in other words: %v, %v", again, err)
	}
	other, err := b.admit(sidecar(strings.ReplaceAll(sidecarDocument, "9000", "9001")), b.token(nil))
	if err != nil || other.Hash == p.Hash {
		t.Errorf("another document: %v, %v", other, err)
	}

	gateway, err := b.admit(sidecar(`{"type":"Dataplane","mesh":"default","name":"web-1","networking":{"address":"127.0.0.1",
		"gateway":{"type":"BUILTIN","tags":{"kuma.io/service":"edge"}}}}`), b.token(func(c *token.Claims) { c.Services = []string{"edge"} }))
	if err != nil || fmt.Sprint(gateway.Services) != "[edge]" {
		t.Errorf("gateway: %+v, %v", gateway, err)
	}

	in, err := b.admit(zoneIngress(ingressDocument), b.token(ingressToken))
	if err != nil {
		t.Fatal(err)
	}
	if in.ID != "ZoneIngress/in" || in.Mesh != "" || in.Dataplane != nil || in.ZoneIngress.GetZone() != "east" || in.Resource.Spec != in.ZoneIngress || in.Services != nil {
		t.Errorf("%+v", in)
	}
	withoutMesh := zoneIngress(ingressDocument)
	delete(withoutMesh.metadata, metadataMesh)
	if _, err := b.admit(withoutMesh, b.token(ingressToken)); err != nil {
		t.Error(err)
	}
}

// A document that is known is not read again, once, and admitted by nothing less than any other.
func TestKnownDocumentIsNotReadAgain(t *testing.T) {
	b := newBench(t)
	first, err := b.admit(sidecar(sidecarDocument), b.token(nil))
	if err != nil || first.Known {
		t.Fatalf("%+v, %v", first, err)
	}
	know := func(of string) {
		r := *first.Resource
		r.Name = of
		b.admission.Know(first.Document, &r)
	}
	know("web-1")
	if p, err := b.admit(sidecar(sidecarDocument), b.token(func(c *token.Claims) { c.Services = []string{"other"} })); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("a token for others: %+v, %v", p, err)
	}
	know("web-1")
	second, err := b.admit(sidecar(sidecarDocument), b.token(nil))
	if err != nil || !second.Known || second.Dataplane != first.Dataplane || second.Hash != first.Hash || fmt.Sprint(second.Services) != fmt.Sprint(first.Services) {
		t.Errorf("%+v, %v", second, err)
	}
	if third, err := b.admit(sidecar(sidecarDocument), b.token(nil)); err != nil || third.Known || third.Dataplane == first.Dataplane {
		t.Errorf("what was handed over is handed over again: %+v, %v", third, err)
	}
	know("web-2")
	if p, err := b.admit(sidecar(sidecarDocument), b.token(nil)); err != nil || p.Known {
		t.Errorf("of another proxy: %+v, %v", p, err)
	}
	know("web-1")
	b.admission.Forget()
	if p, err := b.admit(sidecar(sidecarDocument), b.token(nil)); err != nil || p.Known {
		t.Errorf("what was forgotten: %+v, %v", p, err)
	}
}

func TestRefuses(t *testing.T) {
	b := newBench(t)
	stranger := newBench(t)
	edit := func(n node, key string, value any) node {
		n.metadata[key] = value
		return n
	}
	with := func(old, new string) node { return sidecar(strings.Replace(sidecarDocument, old, new, 1)) }
	good := b.token(nil)
	for name, c := range map[string]struct {
		node  node
		token string
		want  error
		says  string
	}{
		"no id":              {node{}, good, ErrNode, "no id"},
		"no metadata":        {node{id: "x"}, good, ErrNode, "lacks zoneforge.kind"},
		"kind is a number":   {edit(sidecar(""), metadataKind, 7), good, ErrNode, "not a text"},
		"unknown kind":       {edit(sidecar(""), metadataKind, "ZoneEgress"), good, ErrNode, `"ZoneEgress"`},
		"no mesh":            {edit(sidecar(""), metadataMesh, ""), good, ErrNode, "belongs to a mesh"},
		"no name":            {edit(sidecar(""), metadataName, ""), good, ErrNode, metadataName},
		"long name":          {edit(sidecar(""), metadataName, strings.Repeat("a", 300)), good, ErrNode, "300 bytes"},
		"mesh of an ingress": {edit(zoneIngress(""), metadataMesh, "default"), good, ErrNode, "serves all meshes"},
		"other id":           {node{"Dataplane/default/web-2", sidecar(sidecarDocument).metadata}, good, ErrNode, "Dataplane/default/web-1"},
		"huge document":      {sidecar(strings.Repeat(" ", maxDocument+1)), good, ErrNode, "bytes"},

		"no token":              {sidecar(sidecarDocument), "", ErrNoToken, "token file"},
		"nonsense":              {sidecar(sidecarDocument), "abc", token.ErrMalformed, ""},
		"stranger's token":      {sidecar(sidecarDocument), stranger.token(nil), token.ErrUnknownKey, ""},
		"expired":               {sidecar(sidecarDocument), b.token(func(c *token.Claims) { c.ExpiresAt = clock }), token.ErrExpired, ""},
		"other zone":            {sidecar(sidecarDocument), b.token(func(c *token.Claims) { c.Zone = "west" }), ErrNotAllowed, "zone west"},
		"other mesh":            {sidecar(sidecarDocument), b.token(func(c *token.Claims) { c.Mesh = "dev" }), ErrNotAllowed, "mesh dev"},
		"service":               {sidecar(sidecarDocument), b.token(func(c *token.Claims) { c.Services = []string{"web"} }), ErrNotAllowed, "networking.inbound[1] is of service admin"},
		"tag":                   {sidecar(sidecarDocument), b.token(func(c *token.Claims) { c.Tags = map[string][]string{"version": {"v2"}} }), ErrNotAllowed, "version: v1"},
		"no tag":                {sidecar(sidecarDocument), b.token(func(c *token.Claims) { c.Tags = map[string][]string{"team": {"a", "b"}} }), ErrNotAllowed, "team, which it wants to be a or b"},
		"ingress for dataplane": {sidecar(sidecarDocument), b.token(ingressToken), ErrNotAllowed, "zone ingress"},
		"dataplane for ingress": {zoneIngress(ingressDocument), good, ErrNotAllowed, "token zone-ingress"},
		"ingress of other zone": {zoneIngress(ingressDocument), b.token(func(c *token.Claims) { ingressToken(c); c.Zone = "west" }), ErrNotAllowed, "zone west"},

		"not YAML":            {sidecar("{"), good, ErrDocument, "document:1"},
		"empty":               {sidecar(""), good, ErrDocument, "0 resources"},
		"two":                 {sidecar(sidecarDocument + "\n---\n" + strings.Replace(sidecarDocument, "web-1", "web-2", 1)), good, ErrDocument, "2 resources"},
		"another name":        {with("web-1", "web-2"), good, ErrDocument, "Dataplane default/web-2"},
		"another mesh":        {with(`"mesh":"default"`, `"mesh":"dev"`), good, ErrDocument, "Dataplane dev/web-1"},
		"another kind":        {sidecar(`{"type":"Mesh","name":"web-1"}`), good, ErrDocument, "Mesh web-1"},
		"system kind":         {sidecar(`{"type":"TrustBundle","mesh":"default","name":"web-1"}`), good, ErrDocument, "control planes only"},
		"unknown field":       {with(`"address"`, `"adress"`), good, ErrDocument, "did you mean address"},
		"bad port":            {with("8080", "0"), good, ErrDocument, "networking.inbound[0].port"},
		"tag of another zone": {with(`"version":"v1"`, `"kuma.io/zone":"west"`), good, ErrDocument, "kuma.io/zone: west"},
		"zone of an ingress":  {zoneIngress(strings.Replace(ingressDocument, `"name"`, `"zone":"west","name"`, 1)), b.token(ingressToken), ErrDocument, "zone is west"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := b.admit(c.node, c.token)
			if p != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%+v, %v; want %v with %q", p, err, c.want, c.says)
			}
			if c.token != "" && strings.Contains(err.Error(), c.token) && len(c.token) > 8 {
				t.Error("the error quotes the token")
			}
			if len(err.Error()) > 4<<10 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// A document with thousands of errors must not make an error that no HTTP trailer carries.
func TestErrorIsBounded(t *testing.T) {
	b := newBench(t)
	var inbound []any
	for range 5000 {
		inbound = append(inbound, map[string]any{"port": 0})
	}
	document, err := json.Marshal(map[string]any{"type": "Dataplane", "mesh": "default", "name": "web-1",
		"networking": map[string]any{"address": "127.0.0.1", "inbound": inbound}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.admit(sidecar(string(document)), b.token(nil))
	if !errors.Is(err, ErrDocument) || len(err.Error()) > 4<<10 {
		t.Fatalf("%d bytes: %.300v", len(err.Error()), err)
	}
}

func TestKeysChange(t *testing.T) {
	b := newBench(t)
	text := b.token(nil)
	p, err := b.admit(sidecar(sidecarDocument), text)
	if err != nil || b.admission.Revoked(p) {
		t.Fatal(err)
	}
	b.keys.set(b.signing, "jti")
	if !b.admission.Revoked(p) {
		t.Error("a revoked token is not noticed")
	}
	if _, err := b.admit(sidecar(sidecarDocument), text); !errors.Is(err, token.ErrRevoked) {
		t.Error(err)
	}
	b.keys.set(b.signing)
	if b.admission.Revoked(p) {
		t.Error("a token counts as revoked that is so no more")
	}
	b.keys.set(newBench(t).signing)
	if !b.admission.Revoked(p) {
		t.Error("a token of a retired key is not noticed")
	}
	if _, err := b.admit(sidecar(sidecarDocument), text); !errors.Is(err, token.ErrUnknownKey) {
		t.Error(err)
	}
	b.keys.message = nil
	if _, err := b.admit(sidecar(sidecarDocument), text); !errors.Is(err, ErrNotReady) {
		t.Error(err)
	}
	b.keys.message = &federationv1.VerificationKeys{Keys: []*federationv1.VerificationKey{{Id: "a", Ed25519: []byte("short")}}}
	if _, err := b.admit(sidecar(sidecarDocument), text); !errors.Is(err, ErrNotReady) {
		t.Error(err)
	}
}

func TestConcurrentAdmit(t *testing.T) {
	b := newBench(t)
	text := b.token(nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				if i == 0 {
					b.keys.set(b.signing, "other")
				}
				if _, err := b.admit(sidecar(sidecarDocument), text); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzAdmit(f *testing.F) {
	b := newBench(f)
	text := b.token(nil)
	f.Add("Dataplane/default/web-1", "Dataplane", "default", "web-1", sidecarDocument)
	f.Add("ZoneIngress/in", "ZoneIngress", "", "in", ingressDocument)
	f.Fuzz(func(t *testing.T, id, kind, mesh, name, document string) {
		for _, s := range []string{id, kind, mesh, name, document} {
			if _, err := structpb.NewStruct(map[string]any{"x": s}); err != nil {
				return // no text that protobuf carries
			}
		}
		p, err := b.admission.Admit(t.Context(), node{id, map[string]any{metadataKind: kind, metadataMesh: mesh, metadataName: name, metadataDocument: document}}, text)
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if p != nil && (p.ID != id || p.Mesh != "default" || p.Dataplane == nil) {
			t.Fatalf("%+v", p)
		}
	})
}

func BenchmarkAdmit(b *testing.B) {
	b.ReportAllocs()
	w := newBench(b)
	text, n := w.token(nil), sidecar(sidecarDocument)
	for b.Loop() {
		if _, err := w.admit(n, text); err != nil {
			b.Fatal(err)
		}
	}
}
