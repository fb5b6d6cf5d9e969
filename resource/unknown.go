package resource

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Unknown lists, in order, what newer software wrote into a message that this version doesn't know: as the path of the message
// that holds it, and the numbers of its fields. It stays in the message, and goes out with it again.
func Unknown(m proto.Message) []string {
	var out []string
	unknown(m.ProtoReflect(), "", &out)
	slices.Sort(out)
	return out
}

func unknown(m protoreflect.Message, path string, out *[]string) {
	for rest := m.GetUnknown(); len(rest) > 0; {
		num, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			break // what was unmarshalled is well-formed
		}
		rest = rest[n:]
		*out = append(*out, strings.TrimPrefix(fmt.Sprintf("%s.(field %d)", path, num), "."))
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + "." + fd.JSONName()
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			v.Map().Range(func(k protoreflect.MapKey, one protoreflect.Value) bool {
				unknown(one.Message(), fmt.Sprintf("%s[%s]", at, k), out)
				return true
			})
		case fd.Message() == nil || fd.IsMap():
		case fd.IsList():
			for i := range v.List().Len() {
				unknown(v.List().Get(i).Message(), fmt.Sprintf("%s[%d]", at, i), out)
			}
		default:
			unknown(v.Message(), at, out)
		}
		return true
	})
}
