package proxyir

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// externals are the ExternalServices of a service, by name.
func (b *builder) externals(service string) []*resource.Resource {
	var out []*resource.Resource
	for _, r := range b.Policies["ExternalService"].Of(map[string]string{resource.TagService: service}) {
		if spec, ok := r.Spec.(*meshv1.ExternalService); ok && r.Mesh == b.MeshName && spec.GetTags()[resource.TagService] == service {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(x, y *resource.Resource) int { return cmp.Compare(x.Name, y.Name) })
	return out
}

// reachExternal points a cluster at the ExternalServices that have all the tags of a destination. With mutual TLS on, a
// TrafficPermission must allow it, which the client's own proxy sees to, as there is none at the other end. Several share the
// requests where they agree on TLS; one that doesn't is left out.
func (b *builder) reachExternal(c *ir.Cluster, services []*resource.Resource, tags map[string]string) error {
	c.EndpointsName = ""
	for _, r := range services {
		spec, _ := r.Spec.(*meshv1.ExternalService)
		if !policy.Matches(&meshv1.Selector{Match: tags}, spec.GetTags()) {
			continue
		}
		if b.mtls() && !policy.Permits(b.Policies["TrafficPermission"].Between(b.source, spec.GetTags()), b.MeshName, b.source, spec.GetTags()) {
			return fmt.Errorf("no TrafficPermission allows %s to reach %s", b.source[resource.TagService], r.Key)
		}
		address := url.URL{Host: spec.GetNetworking().GetAddress()}
		host := address.Hostname()
		port, err := strconv.ParseUint(address.Port(), 10, 16)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Key, err)
		}
		tls, err := b.externalTLS(spec.GetNetworking().GetTls(), host, c.Protocol)
		if err != nil {
			b.reject(r.Key, len(b.order), err)
			continue
		}
		if len(c.Hosts) == 0 {
			c.TLS = tls
		} else if !reflect.DeepEqual(c.TLS, tls) {
			b.reject(r.Key, len(b.order), fmt.Errorf("its tls differs from that of another ExternalService of %s: give both the same, with a serverName", tags[resource.TagService]))
			continue
		}
		b.use(r, "an address of %s", tags[resource.TagService])
		c.Hosts = append(c.Hosts, ir.Endpoint{Address: host, Port: uint32(port)})
	}
	if len(c.Hosts) == 0 {
		return fmt.Errorf("no ExternalService can be used for %s", tagsText(tags))
	}
	return nil
}

func (b *builder) externalTLS(t *meshv1.ExternalService_Tls, host string, p ir.Protocol) (*ir.UpstreamTLS, error) {
	if !t.GetEnabled() {
		return nil, nil
	}
	out := tlsTo(cmp.Or(t.GetServerName(), host), p)
	out.Renegotiation = t.GetAllowRenegotiation()
	if t.GetCaCert() != nil {
		roots, err := b.data(t.GetCaCert())
		if err != nil {
			return nil, fmt.Errorf("tls: caCert: %w", err)
		}
		out.Roots.PEM = roots
	}
	if t.GetClientCert() != nil {
		name := t.GetClientCert().GetSecret()
		if key := t.GetClientKey().GetSecret(); key != name {
			name += "+" + key
		}
		if b.HasSecret != nil && !b.HasSecret(name) {
			return nil, fmt.Errorf("tls: Secrets clientCert and clientKey of mesh %s are not there or hold no certificate with its key; apply them", b.MeshName)
		}
		out.Certificate = b.secret("secret:" + name)
	}
	return out, nil
}

func tlsTo(name string, p ir.Protocol) *ir.UpstreamTLS {
	out := &ir.UpstreamTLS{Roots: &ir.Roots{ServerName: name}}
	if _, err := netip.ParseAddr(name); err != nil {
		out.SNI = name
	}
	if p == ir.HTTP2 {
		out.ALPN = []string{"h2"}
	}
	return out
}

// target is the cluster of a service that a policy calls. spoken is what a service outside the mesh speaks.
func (b *builder) target(t *meshv1.Target, spoken ir.Protocol) (string, error) {
	if t.GetUrl() != "" {
		return b.urlCluster(t.GetUrl(), t.GetCaCert(), spoken)
	}
	b.expect("service", t.GetDestination()[resource.TagService], "or mend its name")
	return b.cluster(t.GetDestination())
}

// expect tells of a service that a policy calls and nobody has. That is no reason to leave the policy out: it comes into force, as
// strict as it is, and is right as soon as the service is there.
func (b *builder) expect(field, service, otherwise string) {
	if len(b.externals(service)) == 0 && b.Protocols[service] == "" {
		b.missing = append(b.missing, fmt.Sprintf("%s %q is no ExternalService, and no service of mesh %s that says kuma.io/protocol: start or apply it, %s", field, service, b.MeshName, otherwise))
	}
}

// urlCluster is the cluster of the host of a URL. Equal hosts share one where they are proven by the same roots.
func (b *builder) urlCluster(address string, roots *meshv1.DataSource, spoken ir.Protocol) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	port := map[string]uint64{"http": 80, "https": 443}[u.Scheme]
	if u.Port() != "" {
		if port, err = strconv.ParseUint(u.Port(), 10, 16); err != nil {
			return "", fmt.Errorf("%s: %w", address, err)
		}
	}
	if port == 0 || u.Hostname() == "" {
		return "", fmt.Errorf("%q is no address of a service: write http://HOST[:PORT] or https://HOST[:PORT]", address)
	}
	c := ir.Cluster{
		Name:     fmt.Sprintf("url:%s://%s:%d", u.Scheme, u.Hostname(), port),
		Protocol: spoken, ConnectTimeout: policy.DefaultConnectTimeout,
		Hosts: []ir.Endpoint{{Address: u.Hostname(), Port: uint32(port)}},
	}
	if spoken == ir.HTTP2 {
		c.Name += "#h2"
	}
	if u.Scheme == "https" {
		c.TLS = tlsTo(u.Hostname(), spoken)
		if roots != nil {
			if c.TLS.Roots.PEM, err = b.data(roots); err != nil {
				return "", fmt.Errorf("caCert: %w", err)
			}
			sum := sha256.Sum256(c.TLS.Roots.PEM)
			c.Name += "#" + hex.EncodeToString(sum[:4])
		}
	}
	if _, ok := b.clusters[c.Name]; !ok {
		b.clusters[c.Name] = c
		b.order = append(b.order, c.Name)
	}
	return c.Name, nil
}

// data is what a DataSource holds or refers to.
func (b *builder) data(d *meshv1.DataSource) ([]byte, error) {
	switch v := d.GetType().(type) {
	case *meshv1.DataSource_Inline:
		return v.Inline, nil
	case *meshv1.DataSource_InlineString:
		return []byte(v.InlineString), nil
	case *meshv1.DataSource_Secret:
		return b.secretData(v.Secret)
	}
	return nil, errors.New("needs one of secret, inline and inlineString")
}

// secretData is what a Secret of the mesh holds.
func (b *builder) secretData(name string) ([]byte, error) {
	if b.SecretData != nil {
		if data, ok := b.SecretData(name); ok {
			return data, nil
		}
	}
	return nil, fmt.Errorf("Secret %s/%s is not there; apply it", b.MeshName, name)
}
