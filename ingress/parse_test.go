package ingress

import (
	"errors"
	"fmt"
	"strings"
)

// Nothing in the product reads a server name: an ingress picks a cluster by it as a whole. That no two destinations share one is shown by
// reading them back.

// errSNI says that a server name is not one of the grammar.
var errSNI = errors.New("not a server name of a mesh")

// sniName is what a server name tells by itself.
type sniName struct {
	// Mesh is empty where MeshHash is set, and likewise Service.
	Mesh     string
	MeshHash string

	Service     string
	ServiceHash string
	// SubsetHash is empty where all endpoints are meant.
	SubsetHash string
}

// parse reads a server name in any case. Its error wraps errSNI and says which part is wrong.
func parse(sni string) (sniName, error) {
	var n sniName
	fail := func(format string, args ...any) (sniName, error) {
		return sniName{}, fmt.Errorf("%w: %q: %s", errSNI, sni, fmt.Sprintf(format, args...))
	}
	if len(sni) > maxName {
		return sniName{}, fmt.Errorf("%w: it has %d bytes, more than %d", errSNI, len(sni), maxName)
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

// is tells whether n is the name of d.
func (n sniName) is(d Destination) bool {
	sni, err := d.SNI()
	return err == nil && sni == n.String()
}

// String writes the name as it is on the wire.
func (n sniName) String() string {
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

func isHash(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// lower changes ASCII only: strings.ToLower would turn the Kelvin sign into a k.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
