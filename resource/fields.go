package resource

import (
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// A message of a policy has few fields that hold messages, and most of them none of those that one looks for. So what a type can hold is
// found out once, and only there is looked.

// messageFields are the fields of a type that hold messages, by its descriptor.
var messageFields sync.Map // of protoreflect.MessageDescriptor to []protoreflect.FieldDescriptor

func fieldsWithMessages(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if known, ok := messageFields.Load(d); ok {
		return known.([]protoreflect.FieldDescriptor)
	}
	var out []protoreflect.FieldDescriptor
	for i := range d.Fields().Len() {
		if f := d.Fields().Get(i); f.Message() != nil && !(f.IsMap() && f.MapValue().Message() == nil) {
			out = append(out, f)
		}
	}
	messageFields.Store(d, out)
	return out
}

// eachMessage visits the messages in a message, not those in them, each with its field and its key or index there.
func eachMessage(m protoreflect.Message, visit func(of protoreflect.FieldDescriptor, key any, in protoreflect.Message)) {
	for _, f := range fieldsWithMessages(m.Descriptor()) {
		if !m.Has(f) {
			continue
		}
		switch value := m.Get(f); {
		case f.IsMap():
			value.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				visit(f, k, v.Message())
				return true
			})
		case f.IsList():
			for i := range value.List().Len() {
				visit(f, i, value.List().Get(i).Message())
			}
		default:
			visit(f, nil, value.Message())
		}
	}
}

// leading tells of types whether something in them says where requests go.
var leading sync.Map // of protoreflect.MessageDescriptor to bool

// holdsDestinations tells whether a message of a type can hold a destination, itself or in its messages.
func holdsDestinations(d protoreflect.MessageDescriptor) bool {
	if known, ok := leading.Load(d); ok {
		return known.(bool)
	}
	found := false
	seen := map[protoreflect.MessageDescriptor]bool{d: true}
	for queue := []protoreflect.MessageDescriptor{d}; len(queue) > 0 && !found; queue = queue[1:] {
		fields := queue[0].Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			found = found || isDestination(f)
			next := f.Message()
			if f.IsMap() {
				next = f.MapValue().Message()
			}
			if next != nil && !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	leading.Store(d, found)
	return found
}

func isDestination(f protoreflect.FieldDescriptor) bool {
	return f.Name() == destinationField && f.IsMap() && f.MapValue().Kind() == protoreflect.StringKind
}
