package resource

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func validateMeshGateway(s scope, r *Resource) {
	g := Spec[*meshv1.MeshGateway](r)
	checkSelectors(s, "selectors", g.GetSelectors())
	conf := s.at("conf")
	if len(g.GetConf().GetListeners()) == 0 {
		conf.errorf("", "needs listeners")
	}
	for i, l := range g.GetConf().GetListeners() {
		at := conf.at("listeners").index(i)
		checkPort(at.at("port"), l.GetPort())
		checkHostname(at.at("hostname"), listenerHostname(l))
		checkListenerProtocol(at, l)
		checkListenerOptions(at, l)
		checkShared(at, l, g.GetConf().GetListeners()[:i])
		checkTags(at.at("tags"), l.GetTags(), false)
		checkFilters(at.at("filters"), nil, l.GetFilters())
		checkOneCors(at, l.GetCors(), l.GetFilters())
	}
}

func listenerHostname(l *meshv1.MeshGateway_Listener) string {
	if l.GetHostname() == "" {
		return "*"
	}
	return strings.ToLower(l.GetHostname())
}

// checkShared compares a listener with those before it that share its port.
func checkShared(s scope, l *meshv1.MeshGateway_Listener, before []*meshv1.MeshGateway_Listener) {
	if l.GetPort() == 0 {
		return
	}
	byName := func(l *meshv1.MeshGateway_Listener) bool {
		return l.GetProtocol() == meshv1.MeshGateway_PROTOCOL_HTTPS || l.GetProtocol() == meshv1.MeshGateway_PROTOCOL_TLS
	}
	plain := l.GetProtocol() == meshv1.MeshGateway_PROTOCOL_HTTP
	for i, o := range before {
		if o.GetPort() != l.GetPort() {
			continue
		}
		// The first that differs is told, as the others follow from it.
		switch {
		case o.GetProtocol() != l.GetProtocol() && !(byName(o) && byName(l)):
			s.at("protocol").errorf("give it another port; only HTTPS and TLS share one, by their hostnames", "port %d is that of listener %d already, whose protocol differs", l.GetPort(), i)
		case listenerHostname(o) == listenerHostname(l) && l.GetProtocol() == meshv1.MeshGateway_PROTOCOL_TCP:
			s.errorf("give it another port; TCP listeners share none", "port %d is that of listener %d already", l.GetPort(), i)
		case listenerHostname(o) == listenerHostname(l):
			s.errorf("", "port %d with hostname %s is that of listener %d already", l.GetPort(), listenerHostname(l), i)
		case o.GetProxyProtocol() != l.GetProxyProtocol():
			s.at("proxyProtocol").errorf("write the same for both", "listener %d on the same port has another; it is read before the hostname is known", i)
		case plain && o.GetTrustedHops() != l.GetTrustedHops():
			s.at("trustedHops").errorf("write the same for both", "listener %d on the same port has %d; it is decided before the hostname is known", i, o.GetTrustedHops())
		default:
			continue
		}
		return
	}
}

// checkListenerProtocol checks what belongs to one protocol and not to another.
func checkListenerProtocol(s scope, l *meshv1.MeshGateway_Listener) {
	tls := s.at("tls")
	switch l.GetProtocol() {
	case meshv1.MeshGateway_PROTOCOL_UNSPECIFIED:
		s.errorf("", "needs protocol: HTTP, HTTPS, TCP or TLS")
		return
	case meshv1.MeshGateway_PROTOCOL_HTTP:
		if l.GetTls() != nil {
			tls.errorf("remove it, or make the protocol HTTPS", "an HTTP listener has no tls")
		}
	case meshv1.MeshGateway_PROTOCOL_TCP:
		if l.GetTls() != nil {
			tls.errorf("remove it, or make the protocol TLS", "a TCP listener has no tls")
		}
		if listenerHostname(l) != "*" {
			s.at("hostname").errorf("remove it, or make the protocol TLS", "bytes without TLS name no host")
		}
	case meshv1.MeshGateway_PROTOCOL_HTTPS:
		if l.GetTls().GetMode() == meshv1.MeshGateway_MODE_PASSTHROUGH {
			tls.at("mode").errorf("make the protocol TLS, or the mode TERMINATE", "requests can't be read where TLS is passed through")
		} else if len(l.GetTls().GetCertificates()) == 0 {
			tls.errorf("add tls: {mode: TERMINATE, certificates: [{secret: NAME}]}", "an HTTPS listener needs certificates")
		}
	case meshv1.MeshGateway_PROTOCOL_TLS:
		checkModeOfTLS(tls, l.GetTls())
	}
	checkTLS(tls, l.GetTls())
}

// checkModeOfTLS is for TLS listeners, whose mode has no default, as one of both would open what should be closed.
func checkModeOfTLS(s scope, t *meshv1.MeshGateway_Tls) {
	switch t.GetMode() {
	case meshv1.MeshGateway_MODE_UNSPECIFIED:
		s.errorf("add tls: {mode: TERMINATE, certificates: [{secret: NAME}]}, or tls: {mode: PASSTHROUGH}", "a TLS listener needs a mode")
	case meshv1.MeshGateway_MODE_TERMINATE:
		if len(t.GetCertificates()) == 0 {
			s.errorf("add certificates: [{secret: NAME}]", "a TLS listener that terminates needs certificates")
		}
	case meshv1.MeshGateway_MODE_PASSTHROUGH:
		for _, has := range []struct {
			field string
			set   bool
		}{
			{"certificates", len(t.GetCertificates()) > 0}, {"clientValidation", t.GetClientValidation() != nil},
			{"minVersion", t.GetMinVersion() != 0}, {"maxVersion", t.GetMaxVersion() != 0}, {"cipherSuites", len(t.GetCipherSuites()) > 0},
		} {
			if has.set {
				s.at(has.field).errorf("remove it, or make the mode TERMINATE", "it is the backend that speaks TLS where TLS is passed through")
			}
		}
	}
}

// cipherSuites are those of TLS 1.2 that proxies know.
var cipherSuites = []string{
	"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
	"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA",
	"ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA",
}

func checkTLS(s scope, t *meshv1.MeshGateway_Tls) {
	seen := map[string]int{}
	for i, c := range t.GetCertificates() {
		at := s.at("certificates").index(i).at("secret")
		if other, twice := seen[c.GetSecret()]; twice {
			at.errorf("remove one of them", "Secret %s is that of certificate %d already", c.GetSecret(), other)
		} else if seen[c.GetSecret()] = i; !isDNSSubdomain(c.GetSecret()) {
			at.errorf("", "%q is no name of a Secret", c.GetSecret())
		}
	}
	if t.GetMaxVersion() != 0 && t.GetMaxVersion() < t.GetMinVersion() {
		s.at("maxVersion").errorf("raise it, or lower minVersion", "no version is left to speak")
	}
	if len(t.GetCipherSuites()) > 0 && t.GetMinVersion() == meshv1.MeshGateway_VERSION_TLS1_3 {
		s.at("cipherSuites").errorf("remove them, or minVersion", "those of TLS 1.3 are fixed")
	}
	for i, c := range t.GetCipherSuites() {
		if !slices.Contains(cipherSuites, c) {
			s.at("cipherSuites").index(i).errorf("use "+strings.Join(cipherSuites[:2], ", ")+" and the like", "%q is no cipher suite that proxies know", c)
		}
	}
	checkClientValidation(s.at("clientValidation"), t.GetClientValidation())
}

var hash = regexp.MustCompile(`^[0-9A-Fa-f]{64}$|^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31}$`)

func checkClientValidation(s scope, v *meshv1.MeshGateway_ClientValidation) {
	if v == nil {
		return
	}
	if !isDNSSubdomain(v.GetSecret()) {
		s.at("secret").errorf("name the Secret with the PEM of the authorities that sign clients", "%q is no name of a Secret", v.GetSecret())
	}
	for i, n := range v.GetSubjectAltNames() {
		at := s.at("subjectAltNames").index(i)
		switch name := n.GetName().(type) {
		case *meshv1.MeshGateway_SubjectAltName_Dns:
			checkClientName(at.at("dns"), name.Dns)
		case *meshv1.MeshGateway_SubjectAltName_Uri:
			checkClientName(at.at("uri"), name.Uri)
		case *meshv1.MeshGateway_SubjectAltName_Email:
			checkClientName(at.at("email"), name.Email)
		default:
			at.errorf("", "needs one of dns, uri and email")
		}
	}
	for i, h := range v.GetCertificateHashes() {
		if !hash.MatchString(h) {
			s.at("certificateHashes").index(i).errorf("openssl x509 -fingerprint -sha256 prints it", "a hash is 32 bytes in hexadecimal")
		}
	}
	for i, h := range v.GetSpkiHashes() {
		if b, err := base64.StdEncoding.Strict().DecodeString(h); err != nil || len(b) != 32 {
			s.at("spkiHashes").index(i).errorf("", "a hash of a public key is 32 bytes in base64")
		}
	}
}

// checkClientName refuses what is written as nothing, which would match no name, or every one.
func checkClientName(s scope, m *meshv1.StringMatcher) {
	if m.GetMatcher() != nil && m.GetExact()+m.GetPrefix()+m.GetRegex() == "" {
		s.errorf("leave out subjectAltNames to take any name", "the text is empty")
		return
	}
	checkStringMatcher(s, m)
}

// bounds of buffers: less holds no TLS record, more is no bound.
const minBuffer, maxBuffer = 16 << 10, 1 << 30

func checkListenerOptions(s scope, l *meshv1.MeshGateway_Listener) {
	http := l.GetProtocol() == meshv1.MeshGateway_PROTOCOL_HTTP
	https := l.GetProtocol() == meshv1.MeshGateway_PROTOCOL_HTTPS
	switch {
	case l.GetHttp3() && !https:
		s.at("http3").errorf("remove it, or make the protocol HTTPS", "HTTP/3 is served by HTTPS listeners only")
	case l.GetHttp3() && l.GetTls().GetMaxVersion() == meshv1.MeshGateway_VERSION_TLS1_2:
		s.at("http3").errorf("remove it, or tls.maxVersion", "HTTP/3 speaks TLS 1.3 only")
	}
	if l.GetHttp3AdvertisedPort() != 0 {
		if !l.GetHttp3() {
			s.at("http3AdvertisedPort").errorf("add http3: true, or remove it", "HTTP/3 is not served")
		}
		checkPort(s.at("http3AdvertisedPort"), l.GetHttp3AdvertisedPort())
	}
	if to := l.GetRedirectToHttps(); to != nil {
		at := s.at("redirectToHttps")
		if !http {
			at.errorf("remove it, or make the protocol HTTP", "only an HTTP listener redirects to HTTPS")
		}
		if to.GetPort() != 0 {
			checkPort(at.at("port"), to.GetPort())
		}
		if !slices.Contains([]uint32{0, 301, 302, 303, 307, 308}, to.GetStatusCode()) {
			at.at("statusCode").errorf("", "a redirect has status 301, 302, 303, 307 or 308")
		}
	}
	if b := l.GetResources().GetBufferLimit(); b != 0 && (b < minBuffer || b > maxBuffer) {
		s.at("resources", "bufferLimit").errorf(fmt.Sprintf("use %d to %d", minBuffer, maxBuffer), "%d bytes can't bound a connection's buffer", b)
	}
	if n := l.GetTrustedHops(); n > 0 && !http && !https {
		s.at("trustedHops").errorf("remove it, or use proxyProtocol", "only requests name their client in X-Forwarded-For")
	} else if n > 32 {
		s.at("trustedHops").errorf("", "at most 32 proxies can stand in front")
	}
}
