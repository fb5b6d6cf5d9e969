// Package ingress owns how traffic crosses zones: the grammar of the server names (SNI) that tell a zone ingress where a
// connection belongs, the endpoints of a service as clients and as the ingress see them, and the zone ingress as an ir.Proxy.
//
// It is pure: no I/O, no goroutine, no clock, no logger. It knows neither Envoy's protobufs nor policies, and never
// terminates or opens TLS. All its functions may be called concurrently; they keep nothing and change no argument.
package ingress

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/resource"
)

// The grammar, in ABNF (RFC 5234), of a name in lower case:
//
//	sni     = service "." subset "." mesh ".mesh"
//	service = label *( "." label ) / hashed   ; an "_" of the service is written "."
//	mesh    = label / hashed
//	subset  = "all" / 20base32                ; hash of the sorted tags beside kuma.io/service
//	hashed  = "zx" 32base32                   ; where the readable form is not possible
//	label   = 1*63( a-z / 0-9 / "-" / escape ); "-" only between letters and digits of the name
//	escape  = "zz" / "zd" / "zh" / "zu"       ; z . - _
//
// echo-service_echo-ns_svc_80 of mesh default is echo-service.echo-ns.svc.80.all.default.mesh. Labels hold letters, digits
// and inner hyphens only (RFC 1123), so load balancers between zones that check server names let them pass.
const (
	suffix     = ".mesh"
	all        = "all"
	escapeByte = 'z'
	hashMark   = "zx"

	maxName      = 253
	maxLabel     = 63
	subsetLength = 20
	hashLength   = 32
	// maxService leaves room for the longest subset and mesh, so that how a service is written never depends on them.
	maxService = maxName - len(".") - subsetLength - len(".") - maxLabel - len(suffix)
)

// ServerNames matches every name of the grammar and nothing else that a proxy has.
const ServerNames = "*" + suffix

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Destination is a subset of a service of a mesh.
type Destination struct {
	Mesh    string
	Service string
	// Subset holds the tags beside kuma.io/service that an endpoint must carry; "*" asks for any value. Empty takes all.
	Subset map[string]string
}

// String is for messages; SNI is for the wire.
func (d Destination) String() string {
	return fmt.Sprintf("service %q of mesh %q, subset %q", d.Service, d.Mesh, subsetOf(d.Subset))
}

// SNI is the server name of the destination: equal destinations have equal names in all zones and versions. It fails only
// where mesh or service is empty.
func (d Destination) SNI() (string, error) {
	if d.Mesh == "" {
		return "", fmt.Errorf("sni of service %q: the mesh is empty; name the mesh that the service belongs to", d.Service)
	}
	if d.Service == "" {
		return "", fmt.Errorf("sni in mesh %q: the service is empty; set the tag %s", d.Mesh, resource.TagService)
	}
	return writeService(d.Service) + "." + subsetOf(d.Subset) + "." + writeMesh(d.Mesh) + suffix, nil
}

func writeMesh(mesh string) string {
	// A mesh is one label, so that its place is known from the right: its underscores are escaped.
	if s, ok := escape(mesh, true); ok && len(s) <= maxLabel {
		return s
	}
	return hashMark + hashOf(hashLength, mesh)
}

func writeService(service string) string {
	s, ok := escape(service, false)
	if !ok || len(s) > maxService {
		return hashMark + hashOf(hashLength, service)
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) > maxLabel {
			return hashMark + hashOf(hashLength, service)
		}
	}
	return s
}

// escape writes a name in letters, digits, hyphens and, for underscores between letters or digits, dots. It fails on
// any other byte, capitals among them: case does not survive in a server name.
func escape(s string, oneLabel bool) (string, bool) {
	if s == "" {
		return "", false
	}
	var b strings.Builder
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1 && isAlphanumeric(s[i-1]) && isAlphanumeric(s[i+1])
		switch c := s[i]; {
		case c == escapeByte:
			b.WriteString("zz")
		case isAlphanumeric(c):
			b.WriteByte(c)
		case c == '.':
			b.WriteString("zd")
		case c == '-' && inner:
			b.WriteByte('-')
		case c == '-':
			b.WriteString("zh")
		case c == '_' && inner && !oneLabel:
			b.WriteByte('.')
		case c == '_':
			b.WriteString("zu")
		default:
			return "", false
		}
	}
	return b.String(), true
}

func subsetOf(tags map[string]string) string {
	var parts []string
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		if tag != resource.TagService {
			parts = append(parts, tag, tags[tag])
		}
	}
	if len(parts) == 0 {
		return all
	}
	return hashOf(subsetLength, parts...)
}

// hashOf puts each part's length before it, so that no two lists of parts share their bytes.
func hashOf(length int, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return base32Lower.EncodeToString(h.Sum(nil))[:length]
}

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
