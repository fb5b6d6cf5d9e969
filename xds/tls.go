package xds

import (
	"errors"
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

const tlsSocketName = "envoy.transport_sockets.tls"

func sds(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: ads()}
}

func commonTLS(certificates []string, alpn []string) *tlsv3.CommonTlsContext {
	out := &tlsv3.CommonTlsContext{
		TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2},
		AlpnProtocols: alpn,
	}
	for _, name := range certificates {
		out.TlsCertificateSdsSecretConfigs = append(out.TlsCertificateSdsSecretConfigs, sds(name))
	}
	return out
}

// setValidation demands that the peer is proven by the bundle and carries one of the URIs, or any for none.
func setValidation(out *tlsv3.CommonTlsContext, bundle string, uris []ir.TextMatch) error {
	if len(uris) == 0 {
		out.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{ValidationContextSdsSecretConfig: sds(bundle)}
		return nil
	}
	var sans []*tlsv3.SubjectAltNameMatcher
	var errs []error
	for _, uri := range uris {
		m, err := text(uri)
		errs = append(errs, err)
		sans = append(sans, &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: m})
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tls: peer's names: %w", err)
	}
	out.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: sans},
			ValidationContextSdsSecretConfig: sds(bundle),
		},
	}
	return nil
}

func tlsSocket(m validated) (*corev3.TransportSocket, error) {
	config, err := pack(m)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return &corev3.TransportSocket{
		Name:       tlsSocketName,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config},
	}, nil
}

func downstreamTLS(t *ir.DownstreamTLS) (*corev3.TransportSocket, error) {
	if len(t.Certificates) == 0 {
		return nil, errors.New("tls: has no certificate: name a secret with one")
	}
	out := &tlsv3.DownstreamTlsContext{CommonTlsContext: commonTLS(t.Certificates, t.ALPN)}
	switch {
	case t.ClientValidation != "":
		out.RequireClientCertificate = wrapperspb.Bool(true)
		if err := setValidation(out.CommonTlsContext, t.ClientValidation, t.ClientSANs); err != nil {
			return nil, err
		}
	case len(t.ClientSANs) > 0:
		// Without a bundle nobody would be asked, and the names would be dropped silently.
		return nil, errors.New("tls: names of clients are given without a trust bundle to prove them: name one")
	}
	return tlsSocket(out)
}

func upstreamTLS(t *ir.UpstreamTLS) (*corev3.TransportSocket, error) {
	if t.Roots != nil {
		return externalTLS(t)
	}
	// Envoy would take any server's certificate without these.
	if t.Validation == "" {
		return nil, errors.New("tls: has no trust bundle: name one")
	}
	if len(t.SANs) == 0 {
		return nil, errors.New("tls: no names are given of which the server must carry one: give at least one")
	}
	var certificates []string
	if t.Certificate != "" {
		certificates = []string{t.Certificate}
	}
	out := &tlsv3.UpstreamTlsContext{CommonTlsContext: commonTLS(certificates, t.ALPN), Sni: t.SNI}
	if err := setValidation(out.CommonTlsContext, t.Validation, t.SANs); err != nil {
		return nil, err
	}
	return tlsSocket(out)
}

// externalTLS proves a server outside the mesh by its DNS name or IP address.
func externalTLS(t *ir.UpstreamTLS) (*corev3.TransportSocket, error) {
	switch {
	case t.Validation != "" || len(t.SANs) > 0:
		return nil, errors.New("tls: has both roots and a trust bundle: set one")
	case t.Roots.ServerName == "":
		return nil, errors.New("tls: no name is given that the server's certificate must hold: give it")
	}
	var certificates []string
	if t.Certificate != "" {
		certificates = []string{t.Certificate}
	}
	out := &tlsv3.UpstreamTlsContext{CommonTlsContext: commonTLS(certificates, t.ALPN), Sni: t.SNI, AllowRenegotiation: t.Renegotiation}
	kind := tlsv3.SubjectAltNameMatcher_DNS
	if _, err := netip.ParseAddr(t.Roots.ServerName); err == nil {
		kind = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
	}
	sans := []*tlsv3.SubjectAltNameMatcher{{SanType: kind, Matcher: exactly(t.Roots.ServerName)}}
	if len(t.Roots.PEM) > 0 {
		out.CommonTlsContext.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(t.Roots.PEM), MatchTypedSubjectAltNames: sans,
		}}
	} else {
		out.CommonTlsContext.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: sans},
				// Without a source it is one of the bootstrap's.
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: ir.SystemRoots},
			},
		}
	}
	return tlsSocket(out)
}

// BuildSecret translates a certificate with its key, or a trust bundle. Its errors hold no part of the secret.
func BuildSecret(s *ir.Secret) (*Resource, error) {
	if s == nil {
		return nil, errors.New("secret is nil")
	}
	out := &tlsv3.Secret{Name: s.Name}
	switch {
	case s.Certificate != nil && len(s.Bundle) > 0:
		return nil, fmt.Errorf("secret %q: has both a certificate and a bundle: set one", s.Name)
	case s.Certificate != nil:
		if len(s.Certificate.Chain) == 0 || len(s.Certificate.Key) == 0 {
			return nil, fmt.Errorf("secret %q: its chain or its key is empty: set both", s.Name)
		}
		out.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(s.Certificate.Chain),
			PrivateKey:       inline(s.Certificate.Key),
		}}
	case len(s.Bundle) > 0:
		out.Type = &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(s.Bundle),
		}}
	default:
		return nil, fmt.Errorf("secret %q: has neither a certificate nor a bundle: set one", s.Name)
	}
	r, err := build(TypeSecret, s.Name, out)
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", s.Name, err)
	}
	return r, nil
}

func inline(bytes []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: bytes}}
}
