package rest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
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
// need certificates that a gateway can serve, and a provided authority that is in use must be able to sign. What an author
// may be about to mend by the next change is only noted.
func references(s *store.Snapshot, pl plan, now time.Time) ([]resource.Violation, []resource.Note) {
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
	due := map[resource.Key]bool{} // gateways and meshes to look at
	secrets := map[resource.Key]bool{}
	for _, k := range pl.keys() {
		switch k.Kind {
		case "MeshGateway", "Mesh":
			due[k] = true
		case "Secret":
			secrets[k] = true
		}
	}
	for k := range secrets {
		due[resource.Key{Kind: "Mesh", Name: k.Mesh}] = true
		for e := range s.Each("MeshGateway", k.Mesh) {
			due[e.Resource.Key] = true
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
		if k.Kind == "Mesh" {
			c.authorities(r, touched)
		} else {
			c.listeners(r, touched)
		}
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

func (c *checker) listeners(gateway *resource.Resource, touched func(resource.Key) bool) {
	for i, l := range resource.Spec[*meshv1.MeshGateway](gateway).GetConf().GetListeners() {
		for j, cert := range l.GetTls().GetCertificates() {
			key := resource.Key{Kind: "Secret", Mesh: gateway.Mesh, Name: cert.GetSecret()}
			if !touched(key) {
				continue
			}
			path := fmt.Sprintf("conf.listeners[%d].tls.certificates[%d].secret", i, j)
			secret, ok := c.get(key)
			if !ok {
				c.note("%s: %s: %s does not exist; the listener on port %d serves no TLS until it is applied", gateway.Key, path, key, l.GetPort())
				continue
			}
			leaf, err := servingPair(resource.Spec[*meshv1.Secret](secret).GetData())
			if err != nil {
				c.wrong(path, fmt.Sprintf("%s: %s cannot serve TLS: %s", gateway.Key, key, err),
					"put the PEM of the certificate, of its intermediates, and of its private key into the secret's data, in base64")
				continue
			}
			switch host := l.GetHostname(); {
			case c.now.After(leaf.NotAfter):
				c.note("%s: %s: the certificate in %s expired on %s", gateway.Key, path, key, leaf.NotAfter.UTC().Format(time.RFC3339))
			case host != "" && host != "*" && leaf.VerifyHostname(sample(host)) != nil:
				c.note("%s: %s: the certificate in %s is not for %s", gateway.Key, path, key, host)
			}
		}
	}
}

// sample is a name that a hostname of a listener covers.
func sample(host string) string {
	if len(host) > 1 && host[0] == '*' {
		return "any" + host[1:]
	}
	return host
}

// servingPair reads a certificate with its key as a listener's Secret holds them. Its errors quote nothing of the content.
func servingPair(data []byte) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, errors.New(plainPairError(data))
	}
	leaf := pair.Leaf
	if leaf == nil {
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, errors.New("its certificate is damaged")
		}
	}
	for i, der := range pair.Certificate[1:] {
		if _, err := x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d of its chain is damaged", i+2)
		}
	}
	// Envoy refuses others when it loads them.
	switch key := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P224() {
			return nil, errors.New("its key is ECDSA on P-224; use P-256, P-384 or P-521")
		}
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return nil, fmt.Errorf("its key is RSA of %d bits; use at least 2048, or ECDSA P-256", key.N.BitLen())
		}
	case ed25519.PublicKey:
		return nil, errors.New("its key is Ed25519, which browsers and Envoy do not take; use ECDSA P-256")
	}
	return leaf, nil
}

// plainPairError says which part is at fault. crypto/tls speaks of files, and of parts of PEM that nobody wrote.
func plainPairError(data []byte) string {
	switch {
	case !hasBlock(data, "CERTIFICATE"):
		return "it holds no certificate in PEM"
	case !hasBlock(data, "PRIVATE KEY"):
		return "it holds no private key in PEM"
	case hasBlock(data, "ENCRYPTED PRIVATE KEY"):
		return "its private key is encrypted; decrypt it first"
	}
	return "its certificate or key is damaged, or the key is not that of the first certificate"
}

// hasBlock looks for a PEM block whose type ends so.
func hasBlock(data []byte, suffix string) bool {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return false
		}
		if strings.HasSuffix(block.Type, suffix) {
			return true
		}
		data = rest
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
