package resource

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Fields of the canonical bytes, in the wire format of protobuf: labels first, ordered by key, then the spec.
const (
	fieldLabel      = 1 // a message of fieldLabelKey and fieldLabelValue
	fieldSpec       = 2
	fieldLabelKey   = 1
	fieldLabelValue = 2
)

// Marshal gives the canonical bytes of a resource without its key: equal resources give equal bytes within one version of
// the software, and any version reads those of any other.
func Marshal(r *Resource) ([]byte, error) {
	var out []byte
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		var label []byte
		label = protowire.AppendTag(label, fieldLabelKey, protowire.BytesType)
		label = protowire.AppendString(label, k)
		label = protowire.AppendTag(label, fieldLabelValue, protowire.BytesType)
		label = protowire.AppendString(label, r.Labels[k])
		out = protowire.AppendTag(out, fieldLabel, protowire.BytesType)
		out = protowire.AppendBytes(out, label)
	}
	spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Spec)
	if err != nil {
		return nil, fmt.Errorf("marshal %s: %w", r.Key, err)
	}
	out = protowire.AppendTag(out, fieldSpec, protowire.BytesType)
	return protowire.AppendBytes(out, spec), nil
}

// Unmarshal reads Marshal's bytes. Fields that this version doesn't know are kept in the spec. The error names the key.
func Unmarshal(key Key, payload []byte) (*Resource, error) {
	kind, ok := Lookup(key.Kind)
	if !ok {
		return nil, fmt.Errorf("%s: kind %q is not known to this version", key, key.Kind)
	}
	r := &Resource{Key: key, Spec: kind.New()}
	err := eachBytes(payload, func(num protowire.Number, value []byte) error {
		switch num {
		case fieldLabel:
			var k, v string
			if err := eachBytes(value, func(num protowire.Number, text []byte) error {
				switch num {
				case fieldLabelKey:
					k = string(text)
				case fieldLabelValue:
					v = string(text)
				}
				return nil
			}); err != nil {
				return err
			}
			if r.Labels == nil {
				r.Labels = map[string]string{}
			}
			r.Labels[k] = v
		case fieldSpec:
			return proto.Unmarshal(value, r.Spec)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: malformed payload: %w", key, err)
	}
	return r, nil
}

// eachBytes calls f for each length-delimited field of b and skips the others.
func eachBytes(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(num, value); err != nil {
			return err
		}
	}
	return nil
}
