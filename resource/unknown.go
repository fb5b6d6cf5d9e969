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
	if !anyUnknown(m.ProtoReflect()) {
		return nil
	}
	var out []string
	unknown(m.ProtoReflect(), "", &out)
	slices.Sort(out)
	return out
}

// anyUnknown is for nearly all messages all that has to be asked.
func anyUnknown(m protoreflect.Message) bool {
	found := len(m.GetUnknown()) > 0
	eachMessage(m, func(_ protoreflect.FieldDescriptor, _ any, in protoreflect.Message) { found = found || anyUnknown(in) })
	return found
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
	eachMessage(m, func(of protoreflect.FieldDescriptor, key any, in protoreflect.Message) {
		at := path + "." + of.JSONName()
		if key != nil {
			at = fmt.Sprintf("%s[%v]", at, key)
		}
		unknown(in, at, out)
	})
}
