package xds

import (
	"errors"
	"fmt"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// validateDeep holds a message against Envoy's rules, and what is packed within it against its own. Types that are not known
// here are refused, as Envoy would refuse most of them.
func validateDeep(m protoreflect.Message) error {
	if v, ok := m.Interface().(validated); ok {
		if err := v.ValidateAll(); err != nil {
			return err
		}
	}
	return eachPacked(m, func(packed *anypb.Any) error {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("%s: %w", packed.GetTypeUrl(), tidy(err))
		}
		if err := validateDeep(inner.ProtoReflect()); err != nil {
			return fmt.Errorf("%s: %w", strings.TrimPrefix(packed.GetTypeUrl(), typePrefix), err)
		}
		return nil
	})
}

// eachPacked calls f for the messages that are packed directly within a message.
func eachPacked(m protoreflect.Message, f func(*anypb.Any) error) error {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		if packed.GetTypeUrl() == "" {
			return errors.New("a typed configuration has no @type")
		}
		return f(packed)
	}
	if turnsOn, ok := m.Interface().(*routev3.FilterConfig); ok && proto.Size(turnsOn.GetConfig()) == 0 {
		return nil // the filter as it stands in the listener
	}
	var errs []error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					errs = append(errs, eachPacked(v.Message(), f))
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				errs = append(errs, eachPacked(v.List().Get(i).Message(), f))
			}
		default:
			errs = append(errs, eachPacked(v.Message(), f))
		}
		return true
	})
	return least(errs)
}

// least is the error whose text comes first, as Range has no order; nil for none. One at a time is enough to mend.
func least(errs []error) error {
	var out error
	for _, err := range errs {
		if err != nil && (out == nil || err.Error() < out.Error()) {
			out = err
		}
	}
	return out
}

// tidy makes the text of protobuf's errors the same each time, as it varies its spaces on purpose, and leaves out places.
func tidy(err error) error {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	text = strings.TrimPrefix(text, "proto: ")
	text = strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
	// Lines are those of a JSON that nobody wrote.
	if rest, ok := strings.CutPrefix(text, "(line "); ok {
		if _, after, ok := strings.Cut(rest, "): "); ok {
			text = after
		}
	}
	return errors.New(text)
}
