package resource

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Bounds of what one document may make the decoder do, whatever its aliases and merges repeat.
const (
	maxNodes      = 200_000
	maxDepth      = 64
	maxViolations = 1000
)

// Messages that are written as a text.
const (
	durationName  = "google.protobuf.Duration"
	timestampName = "google.protobuf.Timestamp"
)

// place is a value in a document: where it stands, the author's path to it and the canonical one.
type place struct {
	line, column int
	display      string
	path         []string
}

func (p place) field(n *yaml.Node, display, canonical string) place {
	return place{n.Line, n.Column, join(p.display, display), append(slices.Clip(p.path), canonical)}
}

func (p place) item(n *yaml.Node, i int) place {
	seg := "[" + strconv.Itoa(i) + "]"
	return place{n.Line, n.Column, p.display + seg, append(slices.Clip(p.path), seg)}
}

func (p place) entry(n *yaml.Node, key string) place {
	seg := "[" + key + "]"
	return place{n.Line, n.Column, p.display + seg, append(slices.Clip(p.path), seg)}
}

func join(path, field string) string {
	if field == "" {
		return path
	}
	if path == "" {
		return field
	}
	return path + "." + field
}

// walker decodes the nodes of one document.
type walker struct {
	file   string
	line   int              // lines before the document in its file
	budget *int             // values that may still be visited, shared by the items of a List
	schema EnvoySchema      // may be nil
	secret bool             // messages repeat no value, as the document is of a kind that holds secrets
	spent  bool             // the document exceeded a bound, and nothing more is reported
	places map[string]place // by canonical path
	// broken are the canonical paths of violations; validation is silent about them and what is above and below.
	broken     [][]string
	violations []Violation
}

func (w *walker) errorf(p place, hint, format string, args ...any) {
	if len(w.violations) >= maxViolations {
		if w.spent {
			return
		}
		w.spent, *w.budget = true, 0
		hint, format, args = "mend those first", "more than %d errors; the others are not shown", []any{maxViolations}
	}
	w.violations = append(w.violations, Violation{
		File: w.file, Line: w.line + p.line, Column: p.column, Path: p.display, Message: fmt.Sprintf(format, args...), Hint: hint,
	})
	w.broken = append(w.broken, p.path)
}

// enter follows aliases and counts the node; false when the document's bounds are exceeded.
func (w *walker) enter(n *yaml.Node, p place) (*yaml.Node, bool) {
	for hops := 0; n.Kind == yaml.AliasNode && n.Alias != nil; hops++ {
		if hops > maxDepth {
			return n, false
		}
		n = n.Alias
	}
	*w.budget--
	if *w.budget < 0 || len(p.path) > maxDepth {
		if !w.spent {
			w.spent = true
			w.errorf(p, "write fewer aliases and less nesting", "the document grows beyond %d values or %d levels", maxNodes, maxDepth)
		}
		return n, false
	}
	return n, true
}

// pair is one entry of a mapping after merges.
type pair struct{ key, value *yaml.Node }

// pairs lists a mapping's entries in order, with those that << merges where the mapping doesn't set them itself.
func (w *walker) pairs(n *yaml.Node, p place, depth int) []pair {
	var out, merged []pair
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := place{key.Line, key.Column, p.display, p.path}
		key, ok := w.enter(key, at)
		if !ok {
			return out
		}
		if key.Kind != yaml.ScalarNode {
			w.errorf(at, "", "a key must be a text")
			continue
		}
		if key.ShortTag() == "!!merge" {
			merged = append(merged, w.merged(value, at, depth)...)
			continue
		}
		if seen[key.Value] {
			w.errorf(p.field(n.Content[i], key.Value, key.Value), "remove one of them", "the key is there twice")
			continue
		}
		seen[key.Value] = true
		out = append(out, pair{key, value})
	}
	for _, m := range merged {
		if !seen[m.key.Value] {
			seen[m.key.Value] = true
			out = append(out, m)
		}
	}
	return out
}

func (w *walker) merged(value *yaml.Node, p place, depth int) []pair {
	value, ok := w.enter(value, p)
	if !ok {
		return nil
	}
	if depth >= maxDepth {
		w.errorf(p, "", "merges nest deeper than %d levels", maxDepth)
		return nil
	}
	switch value.Kind {
	case yaml.MappingNode:
		return w.pairs(value, p, depth+1)
	case yaml.SequenceNode:
		var out []pair
		for _, c := range value.Content {
			out = append(out, w.merged(c, p, depth+1)...)
		}
		return out
	}
	w.errorf(p, "", "<< takes a mapping or a list of mappings")
	return nil
}

// message decodes a mapping into m.
func (w *walker) message(n *yaml.Node, m protoreflect.Message, p place) {
	n, ok := w.enter(n, p)
	if !ok {
		return
	}
	n = respell(m.Descriptor().FullName(), n)
	if n.Kind != yaml.MappingNode {
		w.errorf(p, "", "expected a mapping, found %s", w.describe(n))
		return
	}
	w.fields(w.pairs(n, p, 0), m, p)
}

// fields decodes entries into m's fields.
func (w *walker) fields(pairs []pair, m protoreflect.Message, p place) {
	desc := m.Descriptor()
	from := map[protoreflect.Name]string{}
	for _, e := range pairs {
		if w.spent {
			return
		}
		fd := findField(desc, e.key.Value)
		display := e.key.Value
		if e.key.LineComment == impliedMark {
			display = ""
		} else if written, ok := strings.CutPrefix(e.key.LineComment, shownMark); ok {
			display = written
		}
		at := p.field(e.key, display, e.key.Value)
		if fd == nil {
			w.errorf(at, didYouMean(e.key.Value, fieldNames(desc)), "unknown field")
			continue
		}
		at.path[len(at.path)-1] = fd.JSONName()
		if other, dup := from[fd.Name()]; dup {
			w.errorf(at, "remove one of them", "means the same as %s, which is there too", other)
			continue
		}
		from[fd.Name()] = e.key.Value
		if one := fd.ContainingOneof(); one != nil && !one.IsSynthetic() {
			if set := m.WhichOneof(one); set != nil {
				w.errorf(at, "keep one of them", "excludes %s, which is there too", set.JSONName())
				continue
			}
		}
		w.value(e.value, m, fd, at)
	}
}

func (w *walker) value(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, p place) {
	n, ok := w.enter(n, p)
	if !ok {
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		w.places[pathKey(p.path)] = p
		return // as absent, as Kubernetes has it
	}
	if n.Line > 0 && n.Kind == yaml.ScalarNode {
		p.line, p.column = n.Line, n.Column
	}
	w.places[pathKey(p.path)] = p
	switch {
	case fd.IsMap():
		w.mapField(n, m, fd, p)
	case fd.IsList():
		if n.Kind != yaml.SequenceNode {
			w.errorf(p, `begin each item with "- "`, "expected a list, found %s", w.describe(n))
			return
		}
		list := m.Mutable(fd).List()
		for i, c := range n.Content {
			at := p.item(c, i)
			w.places[pathKey(at.path)] = at
			if isMessage(fd) {
				item := list.NewElement()
				w.message(c, item.Message(), at)
				list.Append(item)
			} else if v, ok := w.scalar(c, fd, at); ok {
				list.Append(v)
			}
		}
	case isMessage(fd):
		w.message(n, m.Mutable(fd).Message(), p)
	default:
		if v, ok := w.scalar(n, fd, p); ok {
			m.Set(fd, v)
		}
	}
}

func (w *walker) mapField(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, p place) {
	if n.Kind != yaml.MappingNode {
		w.errorf(p, "", "expected a mapping, found %s", w.describe(n))
		return
	}
	out := m.Mutable(fd).Map()
	for _, e := range w.pairs(n, p, 0) {
		at := p.entry(e.key, e.key.Value)
		w.places[pathKey(at.path)] = at
		key := protoreflect.ValueOfString(e.key.Value).MapKey()
		if isMessage(fd.MapValue()) {
			v := out.NewValue()
			w.message(e.value, v.Message(), at)
			out.Set(key, v)
		} else if v, ok := w.scalar(e.value, fd.MapValue(), at); ok {
			out.Set(key, v)
		}
	}
}

// isMessage says whether a field's values are decoded as mappings; durations and times are texts.
func isMessage(fd protoreflect.FieldDescriptor) bool {
	m := fd.Message()
	return m != nil && m.FullName() != durationName && m.FullName() != timestampName
}

func (w *walker) scalar(n *yaml.Node, fd protoreflect.FieldDescriptor, p place) (protoreflect.Value, bool) {
	var none protoreflect.Value
	n, ok := w.enter(n, p)
	if !ok {
		return none, false
	}
	p.line, p.column = n.Line, n.Column
	tag := n.ShortTag()
	wrong := func(want, hint string) (protoreflect.Value, bool) {
		w.errorf(p, hint, "expected %s, found %s", want, w.describe(n))
		return none, false
	}
	if n.Kind != yaml.ScalarNode {
		return wrong(expected(fd), "")
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		if tag != "!!str" {
			return wrong("a text", fmt.Sprintf("put it in quotes: %q", n.Value))
		}
		return protoreflect.ValueOfString(n.Value), true
	case protoreflect.BoolKind:
		switch {
		case tag == "!!bool" && strings.EqualFold(n.Value, "true"):
			return protoreflect.ValueOfBool(true), true
		case tag == "!!bool" && strings.EqualFold(n.Value, "false"):
			return protoreflect.ValueOfBool(false), true
		}
		return wrong("true or false", "")
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		bits := 32
		if fd.Kind() == protoreflect.Uint64Kind {
			bits = 64
		}
		v, err := strconv.ParseUint(n.Value, 0, bits)
		if tag != "!!int" || err != nil {
			hint := ""
			if tag == "!!str" && err == nil {
				hint = "remove the quotes"
			}
			return wrong(fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<bits-1), hint)
		}
		if bits == 32 {
			return protoreflect.ValueOfUint32(uint32(v)), true
		}
		return protoreflect.ValueOfUint64(v), true
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		bits := 32
		if fd.Kind() == protoreflect.Int64Kind {
			bits = 64
		}
		v, err := strconv.ParseInt(n.Value, 0, bits)
		if tag != "!!int" || err != nil {
			return wrong("a whole number", "")
		}
		if bits == 32 {
			return protoreflect.ValueOfInt32(int32(v)), true
		}
		return protoreflect.ValueOfInt64(v), true
	case protoreflect.DoubleKind:
		v, err := strconv.ParseFloat(n.Value, 64)
		if tag != "!!int" && tag != "!!float" || err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return wrong("a number", "")
		}
		return protoreflect.ValueOfFloat64(v), true
	case protoreflect.BytesKind:
		if tag != "!!str" && tag != "!!binary" {
			w.errorf(p, "encode it with base64 and put it in quotes", "expected bytes in base64")
			return none, false
		}
		v, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil {
			// The content may be a key: it is not repeated.
			w.errorf(p, "encode it with base64", "the bytes are not base64")
			return none, false
		}
		return protoreflect.ValueOfBytes(v), true
	case protoreflect.EnumKind:
		names := enumNames(fd.Enum())
		for _, e := range names {
			if tag == "!!str" && strings.EqualFold(e.name, n.Value) {
				return protoreflect.ValueOfEnum(e.number), true
			}
		}
		all := make([]string, len(names))
		for i, e := range names {
			all[i] = e.name
		}
		return wrong(strings.Join(all, ", "), didYouMean(n.Value, all))
	case protoreflect.MessageKind: // a duration or a time, as isMessage says
		if fd.Message().FullName() == timestampName {
			v, err := time.Parse(time.RFC3339Nano, n.Value)
			if err != nil {
				return wrong(expected(fd), "")
			}
			return protoreflect.ValueOfMessage(timestamppb.New(v).ProtoReflect()), true
		}
		v, err := time.ParseDuration(n.Value)
		if err != nil {
			hint := ""
			if tag == "!!int" {
				hint = "did you mean " + n.Value + "s?"
			}
			return wrong("a duration such as 5s, 100ms or 1h30m", hint)
		}
		return protoreflect.ValueOfMessage(durationpb.New(v).ProtoReflect()), true
	}
	return wrong("a value this version can read", "")
}

func expected(fd protoreflect.FieldDescriptor) string {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return "a text"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.MessageKind:
		if fd.Message().FullName() == timestampName {
			return "a time such as 2006-01-02T15:04:05Z"
		}
		return "a duration such as 5s"
	case protoreflect.EnumKind:
		return "a name"
	case protoreflect.BytesKind:
		return "bytes in base64"
	case protoreflect.DoubleKind:
		return "a number"
	}
	return "a whole number"
}

// describe names what a node holds, cut to a length that fits a line; what may be secret is a text.
func (w *walker) describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return "nothing"
		}
		if w.secret {
			return "a text"
		}
		text := n.Value
		if len(text) > 40 {
			text = strings.ToValidUTF8(text[:40], "") + "..."
		}
		return strconv.Quote(text)
	}
	return "an alias of nothing"
}

func findField(desc protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if canonical, ok := fieldAliases[desc.FullName()][name]; ok {
		return desc.Fields().ByName(canonical)
	}
	if fd := desc.Fields().ByJSONName(name); fd != nil {
		return fd
	}
	return desc.Fields().ByName(protoreflect.Name(name))
}

func fieldNames(desc protoreflect.MessageDescriptor) []string {
	var out []string
	for i := range desc.Fields().Len() {
		out = append(out, desc.Fields().Get(i).JSONName())
	}
	for alias := range fieldAliases[desc.FullName()] {
		out = append(out, alias)
	}
	slices.Sort(out)
	return out
}

type enumName struct {
	name   string
	number protoreflect.EnumNumber
}

// enumNames lists an enum's values without their prefix and without the unspecified one.
func enumNames(desc protoreflect.EnumDescriptor) []enumName {
	prefix := strings.TrimSuffix(string(desc.Values().Get(0).Name()), "UNSPECIFIED")
	var out []enumName
	for i := range desc.Values().Len() {
		v := desc.Values().Get(i)
		if v.Number() != 0 {
			out = append(out, enumName{strings.TrimPrefix(string(v.Name()), prefix), v.Number()})
		}
	}
	return out
}

// pathKey joins a canonical path; keys of maps may hold any byte, so each part goes behind its length.
func pathKey(path []string) string {
	var b strings.Builder
	for _, s := range path {
		b.WriteString(strconv.Itoa(len(s)) + ":" + s)
	}
	return b.String()
}
