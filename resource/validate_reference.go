package resource

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// checkSecretName takes the name of a Secret.
func checkSecretName(s scope, name string) {
	if !isDNSSubdomain(name) {
		s.errorf("", "%q is no name of a Secret", name)
	}
}

// checkDataSource wants one of its members; use says what for, in the words of an error.
func checkDataSource(s scope, d *meshv1.DataSource, use string) {
	switch v := d.GetType().(type) {
	case *meshv1.DataSource_Secret:
		checkSecretName(s.at("secret"), v.Secret)
	case *meshv1.DataSource_Inline:
		if len(v.Inline) == 0 {
			s.at("inline").errorf("", "is empty")
		}
		checkNoPrivateKey(s.at("inline"), v.Inline)
	case *meshv1.DataSource_InlineString:
		if v.InlineString == "" {
			s.at("inlineString").errorf("", "is empty")
		}
		checkNoPrivateKey(s.at("inlineString"), []byte(v.InlineString))
	default:
		s.errorf("", "needs %s: one of secret, inline and inlineString", use)
	}
}

// checkNoPrivateKey refuses PEM of a private key in what everybody may read who may read policies.
func checkNoPrivateKey(s scope, text []byte) {
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		s.errorf("put it into a Secret and write {secret: NAME}", "holds a private key, and everybody who may read policies could take it")
	}
}

// checkRoots wants PEM of certificates, as far as a document tells.
func checkRoots(s scope, d *meshv1.DataSource) {
	if d == nil {
		return
	}
	checkDataSource(s, d, "the roots' certificates")
	var text []byte
	switch v := d.GetType().(type) {
	case *meshv1.DataSource_Inline:
		text = v.Inline
	case *meshv1.DataSource_InlineString:
		text = []byte(v.InlineString)
	}
	if len(text) == 0 {
		return
	}
	n := 0
	for rest := text; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			s.errorf("give certificates alone", "PEM block %d is a %s", n, block.Type)
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			s.errorf("", "certificate %d can't be read: %v", n, err)
			return
		}
	}
	if n == 0 {
		s.errorf("give certificates in PEM", "holds no certificate")
	}
}

// checkTarget wants a service of the mesh or an address outside it.
func checkTarget(s scope, t *meshv1.Target) {
	switch {
	case len(t.GetDestination()) > 0 && t.GetUrl() != "":
		s.errorf("keep one of them", "destination excludes url")
	case len(t.GetDestination()) > 0:
		checkOwnTags(s.at("destination"), t.GetDestination())
		if t.GetCaCert() != nil {
			s.at("caCert").errorf("give it to the ExternalService", "is for a url")
		}
	case t.GetUrl() != "":
		checkURL(s.at("url"), t.GetUrl())
		checkRoots(s.at("caCert"), t.GetCaCert())
		if t.GetCaCert() != nil && !strings.HasPrefix(t.GetUrl(), "https:") {
			s.at("caCert").errorf("", "is for an https url")
		}
	default:
		s.errorf("", "needs destination or url")
	}
}

// checkURL takes a URL of http or https that holds no credentials; nil where it is none.
func checkURL(s scope, text string) *url.URL {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		s.errorf("write http://host:port/path or https://...", "%q is no URL of http or https", text)
		return nil
	case u.User != nil:
		s.errorf("", "a URL holds no credentials, as everybody may read it")
		return nil
	}
	checkHostOrIP(s, u.Hostname())
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			s.errorf("", "a port is a number from 1 to 65535")
		}
	}
	return u
}

// checkHostPort takes host:port, where the host may be a name.
func checkHostPort(s scope, address string) {
	u, err := url.Parse("//" + address)
	if err != nil || u.Host != address || u.Hostname() == "" || u.Port() == "" {
		s.errorf("write host:port", "%q is not host:port", address)
		return
	}
	checkHostOrIP(s, u.Hostname())
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || n == 0 {
		s.errorf("", "a port is a number from 1 to 65535")
	}
}

func checkHostOrIP(s scope, host string) {
	if _, err := netip.ParseAddr(host); err != nil && !isDNSSubdomain(strings.ToLower(host)) {
		s.errorf("", "%q is neither a host name nor an IP address", host)
	}
}
