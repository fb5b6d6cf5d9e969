package resource

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// secretField is the name of the fields that name a Secret of the same mesh, in whatever message they stand.
const secretField = "secret"

// Secrets are the names of the Secrets that a resource refers to, sorted.
func Secrets(r *Resource) []string {
	found := map[string]bool{}
	if r.Kind != "Secret" {
		secretsOf(r.Spec.ProtoReflect(), found)
	}
	return slices.Sorted(maps.Keys(found))
}

func secretsOf(m protoreflect.Message, found map[string]bool) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					secretsOf(v.Message(), found)
					return true
				})
			}
		case field.IsList():
			if field.Message() != nil {
				for i := range value.List().Len() {
					secretsOf(value.List().Get(i).Message(), found)
				}
			}
		case field.Message() != nil:
			secretsOf(value.Message(), found)
		case field.Kind() == protoreflect.StringKind && field.Name() == secretField && value.String() != "":
			found[value.String()] = true
		}
		return true
	})
}
