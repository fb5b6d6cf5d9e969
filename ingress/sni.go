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
	"errors"
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

// ErrSNI says that a server name is not one of the grammar.
var ErrSNI = errors.New("not a server name of a mesh")

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

// Name is what a server name tells by itself.
type Name struct {
	// Mesh is empty where MeshHash is set, and likewise Service.
	Mesh     string
	MeshHash string

	Service     string
	ServiceHash string
	// SubsetHash is empty where all endpoints are meant.
	SubsetHash string
}

// Parse reads a server name in any case. Its error wraps ErrSNI and says which part is wrong.
func Parse(sni string) (Name, error) {
	var n Name
	fail := func(format string, args ...any) (Name, error) {
		return Name{}, fmt.Errorf("%w: %q: %s", ErrSNI, sni, fmt.Sprintf(format, args...))
	}
	if len(sni) > maxName {
		return Name{}, fmt.Errorf("%w: it has %d bytes, more than %d", ErrSNI, len(sni), maxName)
	}
	name, ok := strings.CutSuffix(lower(sni), suffix)
	if !ok {
		return fail("it does not end in %q", suffix)
	}
	labels := strings.Split(name, ".")
	if len(labels) < 3 {
		return fail("it needs service, subset and mesh before %q", suffix)
	}
	for _, label := range labels {
		if label == "" || len(label) > maxLabel {
			return fail("label %q does not have 1 to %d bytes", label, maxLabel)
		}
	}
	mesh, subset, service := labels[len(labels)-1], labels[len(labels)-2], labels[:len(labels)-2]

	if subset != all {
		if !isHash(subset, subsetLength) {
			return fail("subset %q is neither %q nor a hash of %d characters", subset, all, subsetLength)
		}
		n.SubsetHash = subset
	}
	if hash, ok := strings.CutPrefix(mesh, hashMark); ok {
		if !isHash(hash, hashLength) {
			return fail("mesh %q is not a hash of %d characters", mesh, hashLength)
		}
		n.MeshHash = hash
	} else if n.Mesh, ok = unescape(mesh); !ok || writeMesh(n.Mesh) != mesh {
		return fail("mesh %q is not written as the grammar demands", mesh)
	}
	written := strings.Join(service, ".")
	if hash, ok := strings.CutPrefix(written, hashMark); ok {
		if !isHash(hash, hashLength) {
			return fail("service %q is not a hash of %d characters", written, hashLength)
		}
		n.ServiceHash = hash
		return n, nil
	}
	parts := make([]string, len(service))
	for i, label := range service {
		if parts[i], ok = unescape(label); !ok {
			return fail("label %q holds an unknown escape", label)
		}
	}
	// One destination has one spelling; without this check two names could lead to the same service.
	if n.Service = strings.Join(parts, "_"); writeService(n.Service) != written {
		return fail("service %q is not written as the grammar demands", written)
	}
	return n, nil
}

// Is tells whether n is the name of d.
func (n Name) Is(d Destination) bool {
	sni, err := d.SNI()
	return err == nil && sni == n.String()
}

// String writes the name as it is on the wire.
func (n Name) String() string {
	service, subset, mesh := hashMark+n.ServiceHash, n.SubsetHash, hashMark+n.MeshHash
	if n.Service != "" {
		service = writeService(n.Service)
	}
	if subset == "" {
		subset = all
	}
	if n.Mesh != "" {
		mesh = writeMesh(n.Mesh)
	}
	return service + "." + subset + "." + mesh + suffix
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

func unescape(label string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(label); i++ {
		c := label[i]
		if c != escapeByte {
			b.WriteByte(c)
			continue
		}
		i++
		if i == len(label) {
			return "", false
		}
		switch label[i] {
		case 'z':
			b.WriteByte('z')
		case 'd':
			b.WriteByte('.')
		case 'h':
			b.WriteByte('-')
		case 'u':
			b.WriteByte('_')
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

func isHash(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// lower changes ASCII only: strings.ToLower would turn the Kelvin sign into a k.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
