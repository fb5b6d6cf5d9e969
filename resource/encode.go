package resource

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Redacted stands in for bytes that are not shown. It is no base64, so what was redacted is never applied by mistake.
const Redacted = "[redacted]"

// EncodeOption changes what the encoders show.
type EncodeOption func(*encoder)

// WithSecrets shows the bytes of sensitive kinds, which are redacted otherwise.
func WithSecrets() EncodeOption { return func(e *encoder) { e.secrets = true } }

// EncodeYAML gives the universal spelling: type, mesh, name, labels by key, then the spec's fields in the order of its
// schema. Equal resources give equal bytes, and Decode reads them back. It fails on what this version doesn't know: an enum number
// without a name, or a field.
func EncodeYAML(r *Resource, opts ...EncodeOption) ([]byte, error) {
	n, err := universal(r, opts)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.Key, err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.Key, err)
	}
	return out.Bytes(), nil
}

// EncodeJSON is EncodeYAML in JSON, on one line.
func EncodeJSON(r *Resource, opts ...EncodeOption) ([]byte, error) {
	n, err := universal(r, opts)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := writeJSON(&out, n); err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.Key, err)
	}
	return out.Bytes(), nil
}

type encoder struct{ secrets bool }

// envelopeFields are the names that a spec's own fields cannot have in the universal spelling.
var envelopeFields = []string{"type", "mesh", "name", "labels", "spec", "creationTime", "modificationTime", "apiVersion"}

func universal(r *Resource, opts []EncodeOption) (*yaml.Node, error) {
	kind, ok := Lookup(r.Kind)
	if !ok {
		return nil, fmt.Errorf("encode %s: kind %q is not known to this version", r.Key, r.Kind)
	}
	e := &encoder{secrets: !kind.Sensitive}
	for _, o := range opts {
		o(e)
	}
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	put(n, "type", text(r.Kind))
	if r.Mesh != "" {
		put(n, "mesh", text(r.Mesh))
	}
	put(n, "name", text(r.Name))
	if len(r.Labels) > 0 {
		labels := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
			put(labels, k, text(r.Labels[k]))
		}
		put(n, "labels", labels)
	}
	if unknown := Unknown(r.Spec); len(unknown) > 0 {
		return nil, fmt.Errorf("encode %s: %s is not known to this version", r.Key, unknown[0])
	}
	m := r.Spec.ProtoReflect()
	spec, err := e.message(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.Key, err)
	}
	for _, f := range envelopeFields {
		if m.Descriptor().Fields().ByJSONName(f) != nil {
			put(n, "spec", spec)
			return n, nil
		}
	}
	n.Content = append(n.Content, spec.Content...)
	return n, nil
}

func (e *encoder) message(m protoreflect.Message) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) {
			continue
		}
		v, err := e.field(fd, m.Get(fd))
		if err != nil {
			return nil, err
		}
		put(n, fd.JSONName(), v)
	}
	return n, nil
}

func (e *encoder) field(fd protoreflect.FieldDescriptor, v protoreflect.Value) (*yaml.Node, error) {
	switch {
	case fd.IsMap():
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		var keys []string
		for k := range v.Map().Range {
			keys = append(keys, k.String())
		}
		slices.Sort(keys)
		for _, k := range keys {
			c, err := e.single(fd.MapValue(), v.Map().Get(protoreflect.ValueOfString(k).MapKey()))
			if err != nil {
				return nil, err
			}
			put(n, k, c)
		}
		return n, nil
	case fd.IsList():
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for i := range v.List().Len() {
			c, err := e.single(fd, v.List().Get(i))
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		return n, nil
	}
	return e.single(fd, v)
}

func (e *encoder) single(fd protoreflect.FieldDescriptor, v protoreflect.Value) (*yaml.Node, error) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return text(v.String()), nil
	case protoreflect.BoolKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}, nil
	case protoreflect.BytesKind:
		if !e.secrets {
			return text(Redacted), nil
		}
		return text(base64.StdEncoding.EncodeToString(v.Bytes())), nil
	case protoreflect.DoubleKind:
		// Plain digits, as an exponent without a point is a text in YAML.
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: strconv.FormatFloat(v.Float(), 'f', -1, 64)}
		if !strings.Contains(n.Value, ".") {
			n.Tag = "!!int"
		}
		return n, nil
	case protoreflect.EnumKind:
		for _, n := range enumNames(fd.Enum()) {
			if n.number == v.Enum() {
				return text(n.name), nil
			}
		}
		return nil, fmt.Errorf("%s: number %d has no name in this version", fd.FullName(), v.Enum())
	case protoreflect.MessageKind:
		if d, ok := v.Message().Interface().(*durationpb.Duration); ok {
			return text(formatDuration(d.AsDuration())), nil
		}
		if t, ok := v.Message().Interface().(*timestamppb.Timestamp); ok {
			return text(t.AsTime().Format(time.RFC3339Nano)), nil
		}
		return e.message(v.Message())
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: v.String()}, nil
}

// formatDuration is Go's spelling without its trailing zeros: 1h, not 1h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func put(n *yaml.Node, key string, value *yaml.Node) { n.Content = append(n.Content, text(key), value) }

// text makes a text, escaped where it isn't all printable; the library quotes what would read as something else.
func text(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if !printable(s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func printable(s string) bool {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return false
		}
	}
	return true
}

func writeJSON(out *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.MappingNode:
		out.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := writeJSON(out, n.Content[i]); err != nil {
				return err
			}
			out.WriteByte(':')
			if err := writeJSON(out, n.Content[i+1]); err != nil {
				return err
			}
		}
		out.WriteByte('}')
	case yaml.SequenceNode:
		out.WriteByte('[')
		for i, c := range n.Content {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := writeJSON(out, c); err != nil {
				return err
			}
		}
		out.WriteByte(']')
	default:
		if n.Tag != "!!str" {
			out.WriteString(n.Value)
			return nil
		}
		var quoted bytes.Buffer
		enc := json.NewEncoder(&quoted)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(n.Value); err != nil {
			return err
		}
		for _, r := range strings.TrimSuffix(quoted.String(), "\n") {
			// JSON takes these as they are, YAML doesn't, and Decode reads JSON as YAML.
			if r >= 0x7f && r <= 0xffff && !strconv.IsPrint(r) {
				fmt.Fprintf(out, `\u%04x`, r)
				continue
			}
			out.WriteRune(r)
		}
	}
	return nil
}
