// Package resource owns the language of zoneforge: its kinds, their names and keys, how documents are decoded and
// validated, the canonical bytes of a resource, and digests over sets of them.
//
// It never does I/O, starts no goroutine and reads no clock; what a kind means for traffic is not its matter.
package resource

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Well-known tags.
const (
	TagService  = "kuma.io/service"
	TagZone     = "kuma.io/zone"
	TagProtocol = "kuma.io/protocol"
	TagGateway  = "kuma.io/gateway"
	// AnyValue matches any value of a tag that is present.
	AnyValue = "*"
)

// DefaultMesh is the mesh of a document that names none.
const DefaultMesh = "default"

// Key names a resource. Mesh is empty for a global kind.
type Key struct {
	Kind string
	Mesh string
	Name string
}

// String is Kind mesh/name, or Kind name for a global kind.
func (k Key) String() string {
	if k.Mesh == "" {
		return k.Kind + " " + k.Name
	}
	return fmt.Sprintf("%s %s/%s", k.Kind, k.Mesh, k.Name)
}

// Compare orders keys by kind, mesh and name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Kind, o.Kind), cmp.Compare(k.Mesh, o.Mesh), cmp.Compare(k.Name, o.Name))
}

// Path is the key as one string whose byte order is that of Compare: kind, mesh and name behind NUL bytes. Names hold no NUL.
func (k Key) Path() []byte {
	b := make([]byte, 0, len(k.Kind)+len(k.Mesh)+len(k.Name)+2)
	b = append(b, k.Kind...)
	b = append(b, 0)
	b = append(b, k.Mesh...)
	b = append(b, 0)
	return append(b, k.Name...)
}

// Resource is one resource of a registered kind. It is immutable once decoded: writers make a new one.
type Resource struct {
	Key
	// Labels are free; documents of Kubernetes bring their namespace as k8s.kuma.io/namespace.
	Labels map[string]string
	// Spec is of the type that the kind's New makes.
	Spec proto.Message
}

// Spec returns r's spec as M; it panics when r is of another kind, which is a programmer's error.
func Spec[M proto.Message](r *Resource) M {
	m, ok := r.Spec.(M)
	if !ok {
		panic(fmt.Sprintf("resource: %s holds a %T", r.Key, r.Spec))
	}
	return m
}
