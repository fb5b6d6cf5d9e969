package xds

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// mergeInto lays src over dst: members of messages one by one, items of lists at the end, all else in place of what was. Packed
// messages of one type are merged too. Unlike proto.Merge, a duration or a wrapped number replaces the other.
func mergeInto(dst, src protoreflect.Message) error {
	var failed error
	src.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			to := dst.Mutable(fd).Map()
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				to.Set(k, v)
				return true
			})
		case fd.IsList():
			to := dst.Mutable(fd).List()
			for i := range v.List().Len() {
				to.Append(v.List().Get(i))
			}
		case fd.Message() == nil || !dst.Has(fd):
			dst.Set(fd, v)
		default:
			failed = mergeMessage(dst, fd, v)
		}
		return failed == nil
	})
	return failed
}

func mergeMessage(dst protoreflect.Message, fd protoreflect.FieldDescriptor, v protoreflect.Value) error {
	if from, ok := v.Message().Interface().(*anypb.Any); ok {
		to, ok := dst.Get(fd).Message().Interface().(*anypb.Any)
		if !ok || to.GetTypeUrl() != from.GetTypeUrl() {
			dst.Set(fd, v)
			return nil
		}
		merged, err := mergePacked(to, from)
		if err != nil {
			return err
		}
		dst.Set(fd, protoreflect.ValueOfMessage(merged.ProtoReflect()))
		return nil
	}
	if fd.Message().ParentFile().Package() == "google.protobuf" {
		dst.Set(fd, v)
		return nil
	}
	return mergeInto(dst.Mutable(fd).Message(), v.Message())
}

func mergePacked(to, from *anypb.Any) (*anypb.Any, error) {
	a, err := to.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", to.GetTypeUrl(), tidy(err))
	}
	b, err := from.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from.GetTypeUrl(), tidy(err))
	}
	if err := mergeInto(a.ProtoReflect(), b.ProtoReflect()); err != nil {
		return nil, err
	}
	return repack(a)
}

// repack is pack for a message that is validated later, with all around it.
func repack(m proto.Message) (*anypb.Any, error) {
	out := &anypb.Any{}
	err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true})
	return out, err
}
