package proxyir

import (
	"fmt"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// terminates is how a listener terminates TLS; nil where it doesn't. It is false, and the reason reported, where a Secret is
// missing without which it can't: all certificates, or the authorities of its clients, without which it would let in anyone.
func (b *builder) terminates(gateway resource.Key, l *meshv1.MeshGateway_Listener) (*ir.DownstreamTLS, bool) {
	t := l.GetTls()
	https := l.GetProtocol() == meshv1.MeshGateway_PROTOCOL_HTTPS
	if !https && (l.GetProtocol() != meshv1.MeshGateway_PROTOCOL_TLS || t.GetMode() == meshv1.MeshGateway_MODE_PASSTHROUGH) {
		return nil, true
	}
	out := &ir.DownstreamTLS{MinVersion: tlsVersion(t.GetMinVersion()), MaxVersion: tlsVersion(t.GetMaxVersion()), CipherSuites: t.GetCipherSuites()}
	bad := func(format string, args ...any) {
		b.reject(gateway, len(b.order), fmt.Errorf("listener %d %s: %s", l.GetPort(), hostname(l.GetHostname()), fmt.Sprintf(format, args...)))
	}
	authorities := true
	if v := t.GetClientValidation(); v != nil {
		if authorities = b.HasAuthorities == nil || b.HasAuthorities(v.GetSecret()); !authorities {
			bad("Secret %s/%s is not there or holds no certificate of an authority; apply it", b.MeshName, v.GetSecret())
		} else {
			validateClients(out, v)
		}
	}
	var certificates []string
	for _, c := range t.GetCertificates() {
		if b.HasSecret != nil && !b.HasSecret(c.GetSecret()) {
			bad("Secret %s/%s is not there or holds no certificate with its key; apply it", b.MeshName, c.GetSecret())
			continue
		}
		certificates = append(certificates, "secret:"+c.GetSecret())
	}
	if !authorities || len(certificates) == 0 {
		return nil, false
	}
	if out.ClientValidation != "" {
		b.secret(out.ClientValidation)
	}
	for _, name := range certificates {
		out.Certificates = append(out.Certificates, b.secret(name))
	}
	return out, true
}

func validateClients(out *ir.DownstreamTLS, v *meshv1.MeshGateway_ClientValidation) {
	out.ClientValidation = "authorities:" + v.GetSecret()
	out.ClientOptional = v.GetMode() == meshv1.MeshGateway_CLIENT_MODE_OPTIONAL
	for _, n := range v.GetSubjectAltNames() {
		switch name := n.GetName().(type) {
		case *meshv1.MeshGateway_SubjectAltName_Dns:
			out.ClientSANs = append(out.ClientSANs, ir.SANMatch{SAN: ir.SANDNS, TextMatch: text(name.Dns)})
		case *meshv1.MeshGateway_SubjectAltName_Uri:
			out.ClientSANs = append(out.ClientSANs, ir.SANMatch{SAN: ir.SANURI, TextMatch: text(name.Uri)})
		case *meshv1.MeshGateway_SubjectAltName_Email:
			out.ClientSANs = append(out.ClientSANs, ir.SANMatch{SAN: ir.SANEmail, TextMatch: text(name.Email)})
		}
	}
	for _, h := range v.GetCertificateHashes() {
		out.ClientHashes = append(out.ClientHashes, strings.ToLower(strings.ReplaceAll(h, ":", "")))
	}
	out.ClientKeys = v.GetSpkiHashes()
}

func tlsVersion(v meshv1.MeshGateway_Version) string {
	switch v {
	case meshv1.MeshGateway_VERSION_TLS1_2:
		return "1.2"
	case meshv1.MeshGateway_VERSION_TLS1_3:
		return "1.3"
	}
	return ""
}
