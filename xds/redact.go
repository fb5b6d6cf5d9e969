package xds

import (
	"fmt"

	"github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// redacted stands where something sensitive was, as in Envoy's own dumps.
const redacted = "[redacted]"

// Redacted is a resource as Envoy's JSON, without what Envoy's schema calls sensitive, such as keys of clients.
func Redacted(r *Resource) ([]byte, error) {
	m, err := r.Any().UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	if err := redact(m.ProtoReflect(), false); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name, err)
	}
	return text, nil
}

// redact replaces what is sensitive in a message, and everything in one that is sensitive as a whole. Texts stay texts, so that one
// still sees that something is there; other values are cleared.
func redact(m protoreflect.Message, all bool) error {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		return redactPacked(packed, all)
	}
	var err error
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		all := all || sensitive(field)
		switch {
		case field.IsMap():
			err = redactMap(field, value.Map(), all)
		case field.IsList():
			err = redactList(field, value.List(), all)
		case field.Message() != nil:
			err = redact(value.Message(), all)
		case all:
			if v := hidden(field); v.IsValid() {
				m.Set(field, v)
			} else {
				m.Clear(field)
			}
		}
		return err == nil
	})
	return err
}

func redactMap(field protoreflect.FieldDescriptor, values protoreflect.Map, all bool) error {
	var err error
	values.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		switch v := hidden(field.MapValue()); {
		case field.MapValue().Message() != nil:
			err = redact(value.Message(), all)
		case all && v.IsValid():
			values.Set(key, v)
		case all:
			values.Clear(key)
		}
		return err == nil
	})
	return err
}

func redactList(field protoreflect.FieldDescriptor, values protoreflect.List, all bool) error {
	for i := range values.Len() {
		if field.Message() != nil {
			if err := redact(values.Get(i).Message(), all); err != nil {
				return err
			}
		} else if v := hidden(field); all && v.IsValid() {
			values.Set(i, v)
		} else if all {
			values.Set(i, values.NewElement())
		}
	}
	return nil
}

// redactPacked looks into a message of any type. It fails for a type that isn't known here, of which nobody knows what is sensitive.
func redactPacked(packed *anypb.Any, all bool) error {
	if packed.GetTypeUrl() == "" {
		return nil
	}
	inner, err := packed.UnmarshalNew()
	if err != nil {
		return err
	}
	if err := redact(inner.ProtoReflect(), all); err != nil {
		return err
	}
	return packed.MarshalFrom(inner)
}

// sensitive is also what Envoy's schema takes as public though it need not be: a set of keys may hold symmetric ones, which sign, too.
func sensitive(field protoreflect.FieldDescriptor) bool {
	if field.FullName() == "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider.local_jwks" {
		return true
	}
	is, _ := proto.GetExtension(field.Options(), annotations.E_Sensitive).(bool)
	return is
}

// hidden is what is shown instead of a value, or not valid where nothing can be.
func hidden(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(redacted)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(redacted))
	}
	return protoreflect.Value{}
}
