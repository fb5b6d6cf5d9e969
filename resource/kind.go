package resource

import (
	"fmt"
	"sort"
	"strings"

	"google.golang.org/protobuf/proto"
)

// Groups of API versions.
const (
	KumaV1Alpha1      = "kuma.io/v1alpha1"
	ZoneforgeV1Alpha1 = "zoneforge.io/v1alpha1"
)

// Scope says whether a kind belongs to a mesh.
type Scope int

// Scopes.
const (
	ScopeMesh Scope = iota
	ScopeGlobal
)

// Writer says who may write a kind.
type Writer int

// Writers.
const (
	// WriterUser is a user, by apply.
	WriterUser Writer = iota
	// WriterProxy is a proxy that presents itself to its zone.
	WriterProxy
	// WriterSystem is a control plane.
	WriterSystem
)

// Kind is one registered kind of resource. Kinds are read-only after the package is initialised.
type Kind struct {
	// Name as in `type:` and `kind:`, such as TrafficPermission.
	Name string
	// Plural as in REST paths, such as traffic-permissions.
	Plural string
	// Aliases are short names for the command line, such as tp.
	Aliases    []string
	APIVersion string
	Scope      Scope
	Writer     Writer
	// ToZones says whether global sends it to zones.
	ToZones bool
	// Sensitive says that its content is sealed at rest and redacted wherever it is printed.
	Sensitive bool
	// Summary is one line for tables and docs.
	Summary string

	// New makes an empty spec.
	New func() proto.Message

	// normalize stores what a spec says in one of several ways in one of them; nil when there is nothing to do.
	normalize func(proto.Message)
	// validate reports what is wrong with a spec beyond its types; nil when nothing can be.
	validate func(scope, *Resource)
}

// Global reports whether resources of the kind belong to no mesh.
func (k *Kind) Global() bool { return k.Scope == ScopeGlobal }

// Kinds returns all registered kinds, ordered by name.
func Kinds() []*Kind { return ordered }

// Lookup finds a kind by its exact name.
func Lookup(name string) (*Kind, bool) {
	k, ok := byName[name]
	return k, ok
}

// Find finds a kind by name, plural or alias, in any case, as people type it.
func Find(word string) (*Kind, bool) {
	k, ok := byWord[strings.ToLower(word)]
	return k, ok
}

var (
	ordered []*Kind
	byName  = map[string]*Kind{}
	byWord  = map[string]*Kind{}
)

func init() {
	for _, k := range registry {
		if _, dup := byName[k.Name]; dup {
			panic(fmt.Sprintf("resource: kind %s is registered twice", k.Name))
		}
		byName[k.Name] = k
		for _, w := range append([]string{k.Name, k.Plural}, k.Aliases...) {
			w = strings.ToLower(w)
			if other, dup := byWord[w]; dup && other != k {
				panic(fmt.Sprintf("resource: %q names both %s and %s", w, other.Name, k.Name))
			}
			byWord[w] = k
		}
		ordered = append(ordered, k)
	}
	sort.Slice(ordered, func(i, j int) bool { return ordered[i].Name < ordered[j].Name })
}
