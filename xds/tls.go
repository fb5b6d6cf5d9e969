package xds

import (
	"errors"
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
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

var sanTypes = map[ir.SANKind]tlsv3.SubjectAltNameMatcher_SanType{
	ir.SANDNS: tlsv3.SubjectAltNameMatcher_DNS, ir.SANURI: tlsv3.SubjectAltNameMatcher_URI, ir.SANEmail: tlsv3.SubjectAltNameMatcher_EMAIL,
}

// sanMatchers are all matched by one of the names.
func sanMatchers(sans []ir.SANMatch) ([]*tlsv3.SubjectAltNameMatcher, error) {
	var out []*tlsv3.SubjectAltNameMatcher
	var errs []error
	for _, san := range sans {
		kind, ok := sanTypes[san.SAN]
		if !ok {
			errs = append(errs, fmt.Errorf("tls: peer's names: kind %q is not known: use dns, uri or email", san.SAN))
			continue
		}
		m, err := text(san.TextMatch)
		if err != nil {
			errs = append(errs, fmt.Errorf("tls: peer's names: %w", err))
			continue
		}
		out = append(out, &tlsv3.SubjectAltNameMatcher{SanType: kind, Matcher: m})
	}
	return out, errors.Join(errs...)
}

// setValidation demands that the peer is proven by the bundle and, where more is given, fulfils that too.
func setValidation(out *tlsv3.CommonTlsContext, bundle string, more *tlsv3.CertificateValidationContext) {
	if proto.Size(more) == 0 {
		out.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{ValidationContextSdsSecretConfig: sds(bundle)}
		return
	}
	out.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         more,
			ValidationContextSdsSecretConfig: sds(bundle),
		},
	}
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

var tlsVersions = map[string]tlsv3.TlsParameters_TlsProtocol{
	"": tlsv3.TlsParameters_TLS_AUTO, "1.2": tlsv3.TlsParameters_TLSv1_2, "1.3": tlsv3.TlsParameters_TLSv1_3,
}

// downstreamContext is what a listener's TLS says, whatever carries it.
func downstreamContext(t *ir.DownstreamTLS) (*tlsv3.DownstreamTlsContext, error) {
	if len(t.Certificates) == 0 {
		return nil, errors.New("tls: has no certificate: name a secret with one")
	}
	out := &tlsv3.DownstreamTlsContext{CommonTlsContext: commonTLS(t.Certificates, t.ALPN)}
	for _, version := range []string{t.MinVersion, t.MaxVersion} {
		if _, ok := tlsVersions[version]; !ok {
			return nil, fmt.Errorf("tls: version %q is not known: use 1.2, 1.3 or none", version)
		}
	}
	if t.MinVersion != "" {
		out.CommonTlsContext.TlsParams.TlsMinimumProtocolVersion = tlsVersions[t.MinVersion]
	}
	out.CommonTlsContext.TlsParams.TlsMaximumProtocolVersion = tlsVersions[t.MaxVersion]
	out.CommonTlsContext.TlsParams.CipherSuites = t.CipherSuites
	sans, err := sanMatchers(t.ClientSANs)
	if err != nil {
		return nil, err
	}
	switch {
	case t.ClientValidation != "":
		out.RequireClientCertificate = wrapperspb.Bool(!t.ClientOptional)
		setValidation(out.CommonTlsContext, t.ClientValidation, &tlsv3.CertificateValidationContext{
			MatchTypedSubjectAltNames: sans, VerifyCertificateHash: t.ClientHashes, VerifyCertificateSpki: t.ClientKeys,
		})
	case len(sans)+len(t.ClientHashes)+len(t.ClientKeys) > 0 || t.ClientOptional:
		// Without a bundle nobody would be asked, and what clients must fulfil would be dropped silently.
		return nil, errors.New("tls: names of clients are given without a trust bundle to prove them: name one")
	}
	return out, nil
}

func downstreamTLS(t *ir.DownstreamTLS) (*corev3.TransportSocket, error) {
	out, err := downstreamContext(t)
	if err != nil {
		return nil, err
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
	var sans []ir.SANMatch
	for _, uri := range t.SANs {
		sans = append(sans, ir.SANMatch{SAN: ir.SANURI, TextMatch: uri})
	}
	matchers, err := sanMatchers(sans)
	if err != nil {
		return nil, err
	}
	setValidation(out.CommonTlsContext, t.Validation, &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: matchers})
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

// BuildSecret translates a certificate with its key, a trust bundle or a text. Its errors hold no part of the secret.
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
	case len(s.Text) > 0:
		out.Type = &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{Secret: inline(s.Text)}}
	default:
		return nil, fmt.Errorf("secret %q: has neither a certificate, a bundle nor a text: set one", s.Name)
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
