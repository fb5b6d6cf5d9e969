package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/zoneforge/zoneforge/resource"
)

// schema is what proto/ says, with its comments.
type schema struct{ files *protoregistry.Files }

func readSchema(descriptors []byte) (*schema, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(descriptors, &set); err != nil {
		return nil, fmt.Errorf("descriptors of proto/: %w", err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("descriptors of proto/: %w", err)
	}
	return &schema{files}, nil
}

// spec finds the message of a kind, with its comments.
func (s *schema) spec(kind *resource.Kind) (protoreflect.MessageDescriptor, error) {
	return s.message(kind.New().ProtoReflect().Descriptor().FullName())
}

// comment is the comment before a declaration, on one line.
func comment(d protoreflect.Descriptor) string {
	return strings.Join(strings.Fields(d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments), " ")
}

// shared are the messages that several kinds hold: each is described once, on the page of shared types.
var shared = []protoreflect.FullName{
	"zoneforge.mesh.v1alpha1.Filter", "zoneforge.mesh.v1alpha1.RequestMatch", "zoneforge.mesh.v1alpha1.Cors", "zoneforge.mesh.v1alpha1.HeaderChange",
	"zoneforge.mesh.v1alpha1.StringMatcher", "zoneforge.mesh.v1alpha1.Target", "zoneforge.mesh.v1alpha1.DataSource",
}

// message finds a message by its full name, with its comments.
func (s *schema) message(name protoreflect.FullName) (protoreflect.MessageDescriptor, error) {
	d, err := s.files.FindDescriptorByName(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	m, ok := d.(protoreflect.MessageDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is no message", name)
	}
	return m, nil
}

// field is one row of a table.
type field struct {
	path        string // as people write it: conf.http.rules[].backends[].weight
	kind        string
	fallback    string
	description string
}

// fields lists what a message holds, each message field followed by its own fields.
func fields(m protoreflect.MessageDescriptor) []field {
	return appendFields(nil, "", m, nil)
}

func appendFields(out []field, prefix string, m protoreflect.MessageDescriptor, within []protoreflect.FullName) []field {
	for i := range m.Fields().Len() {
		fd := m.Fields().Get(i)
		path := prefix + fd.JSONName()
		said := describeField(fd)
		row := field{path: path, kind: typeOf(fd), description: said}
		if !fd.IsMap() { // there it is that of an entry
			row.fallback = fallback(said)
		}
		out = append(out, row)
		inner := fd.Message()
		switch {
		case fd.IsMap():
			inner, path = fd.MapValue().Message(), path+".KEY"
		case fd.IsList():
			path += "[]"
		}
		if inner == nil || scalar(inner) || slices.Contains(shared, inner.FullName()) {
			continue
		}
		// A message within itself is listed once.
		again := false
		for _, outer := range within {
			again = again || outer == inner.FullName()
		}
		if !again {
			out = appendFields(out, path+".", inner, append(within, inner.FullName()))
		}
	}
	return out
}

// describeField is the field's comment, or that of its message or enum.
func describeField(fd protoreflect.FieldDescriptor) string {
	if text := comment(fd); text != "" {
		return text
	}
	switch {
	case fd.IsMap():
		return ""
	case fd.Enum() != nil:
		return comment(fd.Enum())
	case fd.Message() != nil && !scalar(fd.Message()):
		return comment(fd.Message())
	}
	return ""
}

func scalar(m protoreflect.MessageDescriptor) bool {
	return m.ParentFile().Package() == "google.protobuf"
}

func typeOf(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.IsMap():
		return "mapping of text to " + single(fd.MapValue())
	case fd.IsList():
		return "list of " + plural(single(fd))
	}
	return single(fd)
}

func plural(word string) string {
	switch word {
	case "text", "number", "object", "duration":
		return word + "s"
	}
	return word
}

func single(fd protoreflect.FieldDescriptor) string {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return "text"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.BytesKind:
		return "base64"
	case protoreflect.DoubleKind:
		return "number"
	case protoreflect.EnumKind:
		return strings.Join(enumWords(fd.Enum()), ", ")
	case protoreflect.MessageKind:
		switch fd.Message().FullName() {
		case "google.protobuf.Duration":
			return "duration"
		case "google.protobuf.Timestamp":
			return "time (RFC 3339)"
		}
		if slices.Contains(shared, fd.Message().FullName()) {
			name := string(fd.Message().Name())
			return "[" + name + "](types.md#" + strings.ToLower(name) + ")"
		}
		return "object"
	}
	return "number"
}

// enumWords are an enum's values as they are written: without their prefix and without the unspecified one.
func enumWords(e protoreflect.EnumDescriptor) []string {
	prefix := strings.TrimSuffix(string(e.Values().Get(0).Name()), "UNSPECIFIED")
	var out []string
	for i := 1; i < e.Values().Len(); i++ {
		out = append(out, "`"+strings.TrimPrefix(string(e.Values().Get(i).Name()), prefix)+"`")
	}
	return out
}

// Comments say a default in one of these ways.
var (
	defaultBefore = regexp.MustCompile(`(\S+) (?:\(the default\)|is the default)`)
	// A colon begins what may hold commas.
	defaultColon = regexp.MustCompile(`[Dd]efault: (.+?)(?:;|\)|\.(?: |$)|$)`)
	defaultAfter = regexp.MustCompile(`[Dd]efault (.+?)(?:[,;)]|\.(?: |$)|$)`)
)

// fallback reads the default out of a comment; empty when it names none.
func fallback(text string) string {
	for _, re := range []*regexp.Regexp{defaultBefore, defaultColon, defaultAfter} {
		if m := re.FindStringSubmatch(text); m != nil {
			if strings.Contains(m[1], "(") {
				return m[1] + ")"
			}
			return m[1]
		}
	}
	return ""
}
