package resource

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Fields that refer to something of the same mesh, by their names, in whatever message they stand.
const (
	// secretField names a Secret.
	secretField = "secret"
	// destinationField holds the tags of a service to which requests are sent.
	destinationField = "destination"
)

// Secrets are the names of the Secrets that a resource refers to, sorted.
func Secrets(r *Resource) []string {
	found := map[string]bool{}
	if r.Kind != "Secret" {
		eachField(r.Spec.ProtoReflect(), func(field protoreflect.FieldDescriptor, value protoreflect.Value) {
			if field.Name() == secretField && !field.IsMap() && !field.IsList() && field.Kind() == protoreflect.StringKind && value.String() != "" {
				found[value.String()] = true
			}
		})
	}
	return slices.Sorted(maps.Keys(found))
}

// Destinations are the tags of the services to which a resource sends requests, as a backend, a mirror or one that a filter asks, in
// no order.
func Destinations(r *Resource) []map[string]string {
	if !holdsDestinations(r.Spec.ProtoReflect().Descriptor()) {
		return nil
	}
	var found []map[string]string
	eachField(r.Spec.ProtoReflect(), func(field protoreflect.FieldDescriptor, value protoreflect.Value) {
		if !isDestination(field) {
			return
		}
		tags := map[string]string{}
		value.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			tags[k.String()] = v.String()
			return true
		})
		found = append(found, tags)
	})
	return found
}

// eachField visits the fields of a message that are set, and those of the messages in it.
func eachField(m protoreflect.Message, visit func(protoreflect.FieldDescriptor, protoreflect.Value)) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		visit(field, value)
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					eachField(v.Message(), visit)
					return true
				})
			}
		case field.IsList():
			if field.Message() != nil {
				for i := range value.List().Len() {
					eachField(value.List().Get(i).Message(), visit)
				}
			}
		case field.Message() != nil:
			eachField(value.Message(), visit)
		}
		return true
	})
}
