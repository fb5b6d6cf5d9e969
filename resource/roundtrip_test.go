package resource

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"go.yaml.in/yaml/v3"
)

// texts are those that YAML is prone to read as something else.
var texts = []string{"", "a", "true", "no", "null", "~", "12", "0x1", "1e3", "2020-01-01", "<<", "- x", "a: b", "#x", "*a", "&a", "'", `"`,
	`\.`, "two\nlines\n", "\ttab", " space ", "\x00", "\x7f", "é", "\u2028", "\U0001f600", "\ufeff", "{", "---", "...", "%x", "@", "`", "=", "y"}

// Any spec of any kind comes back from its encoding, whether it is valid or not.
func TestAnySpecRoundTrips(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	for _, kind := range Kinds() {
		for range 100 {
			spec := kind.New()
			fill(random, spec.ProtoReflect())
			r := &Resource{Key: Key{Kind: kind.Name, Name: "n"}, Labels: map[string]string{pick(random): pick(random)}, Spec: spec}
			for _, encode := range []func(*Resource, ...EncodeOption) ([]byte, error){EncodeYAML, EncodeJSON} {
				data, err := encode(r, WithSecrets())
				if err != nil {
					t.Fatal(err)
				}
				if got := decodeOnly(t, data, kind); !proto.Equal(got, spec) {
					t.Fatalf("seed %d: got %v\nwant %v\nof:\n%s", seed, got, spec, data)
				}
			}
			if data, err := EncodeJSON(r); err != nil || !json.Valid(data) {
				t.Fatalf("seed %d: %v: no JSON: %s", seed, err, data)
			}
		}
	}
}

// decodeOnly decodes a spec without validating it.
func decodeOnly(t *testing.T, data []byte, kind *Kind) proto.Message {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal(data, &n); err != nil {
		t.Fatalf("%v, of:\n%s", err, data)
	}
	budget := maxNodes
	w := &walker{budget: &budget, places: map[string]place{}}
	e := &envelope{w: w, labels: map[string]string{}}
	e.entries = w.pairs(n.Content[0], place{}, 0)
	spec := kind.New()
	e.universal(spec)
	if len(w.violations) > 0 {
		t.Fatalf("%v, of:\n%s", w.violations, data)
	}
	return spec
}

func pick(r *rand.Rand) string { return texts[r.IntN(len(texts))] }

func fill(r *rand.Rand, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if r.IntN(3) == 0 || fd.ContainingOneof() != nil && m.WhichOneof(fd.ContainingOneof()) != nil {
			continue
		}
		switch {
		case fd.IsMap():
			for range r.IntN(3) {
				m.Mutable(fd).Map().Set(protoreflect.ValueOfString(pick(r)).MapKey(), anything(r, fd.MapValue(), m.Mutable(fd).Map().NewValue))
			}
		case fd.IsList():
			for range r.IntN(3) {
				m.Mutable(fd).List().Append(anything(r, fd, m.Mutable(fd).List().NewElement))
			}
		default:
			m.Set(fd, anything(r, fd, func() protoreflect.Value { return m.NewField(fd) }))
		}
	}
}

func anything(r *rand.Rand, fd protoreflect.FieldDescriptor, empty func() protoreflect.Value) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(pick(r))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(r.IntN(2) == 0)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(r.Uint32() >> r.IntN(32))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(r.Uint64() >> r.IntN(64))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(r.NormFloat64())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(pick(r)))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(fd.Enum().Values().Get(1 + r.IntN(fd.Enum().Values().Len()-1)).Number())
	case protoreflect.MessageKind:
		switch fd.Message().FullName() {
		case durationName:
			return protoreflect.ValueOfMessage(durationpb.New(time.Duration(r.Int64() >> r.IntN(63))).ProtoReflect())
		case timestampName:
			return protoreflect.ValueOfMessage(timestamppb.New(time.Unix(r.Int64N(1<<32), r.Int64N(1e9))).ProtoReflect())
		}
		v := empty()
		fill(r, v.Message())
		return v
	}
	panic(fmt.Sprintf("%s: a kind of field this test must learn", fd.FullName()))
}
