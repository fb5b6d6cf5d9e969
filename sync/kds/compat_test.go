package kds

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/zoneforge/zoneforge/resource"

	_ "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

var samples = flag.Bool("samples", false, "add samples of what has none yet; those that are there are never changed")

// sample is one frame as it was sent by the version that added it.
type sample struct {
	Frame string          `json:"frame"`
	Wire  string          `json:"wire"`
	Means json.RawMessage `json:"means"`
}

// frames gives an empty frame of each type, by name.
func frames() map[string]protoreflect.Message {
	out := map[string]protoreflect.Message{}
	for _, m := range []proto.Message{&kdsv1.ZoneFrame{}, &kdsv1.GlobalFrame{}} {
		d := m.ProtoReflect().Descriptor()
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			frame := m.ProtoReflect().New()
			fill(frame.Mutable(fd).Message(), 0)
			out[string(d.Name())+"."+string(fd.Name())] = frame
		}
	}
	return out
}

// fill gives each field a value of its own.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if depth > 4 || fd.ContainingOneof() != nil && m.WhichOneof(fd.ContainingOneof()) != nil {
			continue
		}
		one := func() protoreflect.Value {
			switch fd.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(fmt.Sprintf("text-%d", fd.Number()))
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte{byte(fd.Number()), 0, 255})
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.EnumKind:
				return protoreflect.ValueOfEnum(1)
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(uint32(100 + fd.Number()))
			case protoreflect.Int32Kind:
				return protoreflect.ValueOfInt32(int32(100 + fd.Number()))
			case protoreflect.Uint64Kind:
				return protoreflect.ValueOfUint64(1<<40 + uint64(fd.Number()))
			case protoreflect.Int64Kind, protoreflect.Sint64Kind:
				return protoreflect.ValueOfInt64(1_700_000_000 + int64(fd.Number()))
			}
			panic("no sample of " + string(fd.FullName()))
		}
		switch {
		case fd.IsMap():
			v := m.Mutable(fd).Map()
			entry := v.NewValue()
			fill(entry.Message(), depth+1)
			v.Set(protoreflect.ValueOfString("key").MapKey(), entry)
		case fd.IsList() && fd.Message() != nil:
			fill(m.Mutable(fd).List().AppendMutable().Message(), depth+1)
		case fd.IsList():
			m.Mutable(fd).List().Append(one())
		case fd.Message() != nil:
			fill(m.Mutable(fd).Message(), depth+1)
		default:
			m.Set(fd, one())
		}
	}
}

func readSamples(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil && !(*samples && os.IsNotExist(err)) {
		t.Fatal(err)
	}
}

// Frames that earlier versions sent are read as they were meant, and each type of frame has one.
func TestStoredFramesAreUnderstood(t *testing.T) {
	path := filepath.Join("..", "..", "proto", "testdata", "frames-1.json")
	var stored []sample
	readSamples(t, path, &stored)
	all := frames()
	for name, frame := range all {
		if slices.ContainsFunc(stored, func(s sample) bool { return s.Frame == name }) {
			continue
		}
		if !*samples {
			t.Errorf("%s has no sample; run this test with -samples", name)
			continue
		}
		wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(frame.Interface())
		if err != nil {
			t.Fatal(err)
		}
		means, err := protojson.Marshal(frame.Interface())
		if err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer // protojson's spaces are random
		if err := json.Compact(&compact, means); err != nil {
			t.Fatal(err)
		}
		stored = append(stored, sample{name, base64.StdEncoding.EncodeToString(wire), compact.Bytes()})
	}
	if *samples {
		slices.SortFunc(stored, func(a, b sample) int { return strings.Compare(a.Frame, b.Frame) })
		text, err := json.MarshalIndent(stored, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range stored {
		frame, ok := all[s.Frame]
		if !ok {
			t.Errorf("%s is no frame any more: ends of the version before send it", s.Frame)
			continue
		}
		wire, err := base64.StdEncoding.DecodeString(s.Wire)
		if err != nil {
			t.Fatal(err)
		}
		got, want := frame.New().Interface(), frame.New().Interface()
		if err := proto.Unmarshal(wire, got); err != nil {
			t.Errorf("%s: %v", s.Frame, err)
		}
		if err := protojson.Unmarshal(s.Means, want); err != nil {
			t.Errorf("%s: %v", s.Frame, err)
		}
		if !proto.Equal(got, want) || len(resource.Unknown(got)) > 0 {
			t.Errorf("%s means\n%v\nnot\n%v", s.Frame, got, want)
		}
	}
}

// schema lists each field of all messages of ours, and each value of enums: what stored and sent bytes mean.
func schema() (out []string) {
	var each func(protoreflect.MessageDescriptors)
	each = func(all protoreflect.MessageDescriptors) {
		for i := range all.Len() {
			m := all.Get(i)
			for j := range m.Fields().Len() {
				fd := m.Fields().Get(j)
				kind := fd.Kind().String()
				if fd.Message() != nil {
					kind = string(fd.Message().FullName())
				}
				if fd.Enum() != nil {
					kind = string(fd.Enum().FullName())
				}
				out = append(out, fmt.Sprintf("%s %d %s %s", m.FullName(), fd.Number(), fd.Cardinality(), kind))
			}
			each(m.Messages())
		}
	}
	enums := func(all protoreflect.EnumDescriptors) {
		for i := range all.Len() {
			values := all.Get(i).Values()
			for j := range values.Len() {
				out = append(out, fmt.Sprintf("%s %d is %s", all.Get(i).FullName(), values.Get(j).Number(), values.Get(j).Name()))
			}
		}
	}
	var inside func(protoreflect.MessageDescriptors)
	inside = func(all protoreflect.MessageDescriptors) {
		for i := range all.Len() {
			enums(all.Get(i).Enums())
			inside(all.Get(i).Messages())
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(f.Package()), "zoneforge.") {
			each(f.Messages())
			enums(f.Enums())
			inside(f.Messages())
		}
		return true
	})
	slices.Sort(out)
	return out
}

// A field that was ever stored or sent keeps its number and type, as its bytes are in etcd, on the disks of zones, in backups and
// on the wire. A field that is dropped is reserved in its message and listed here as gone.
func TestStoredSchemaIsKept(t *testing.T) {
	path := filepath.Join("..", "..", "proto", "testdata", "schema-1.txt")
	now := schema()
	if len(now) < 500 {
		t.Fatalf("only %d fields are found", len(now))
	}
	text, err := os.ReadFile(path)
	if err != nil && !*samples {
		t.Fatal(err)
	}
	stored := strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
	if *samples {
		stored = append(stored, now...)
		slices.Sort(stored)
		stored = slices.Compact(stored)
		if err := os.WriteFile(path, []byte(strings.Join(stored, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range stored {
		if _, there := slices.BinarySearch(now, line); !there {
			t.Errorf("what was stored as %q would be read as something else: give the new field a number of its own", line)
		}
	}
	for _, line := range now {
		if _, there := slices.BinarySearch(stored, line); !there {
			t.Errorf("%q is not in %s; run this test with -samples", line, path)
		}
	}
}

// Ends that speak several versions find the newest that both do, and those that have none say so.
func TestProtocolsAreNegotiated(t *testing.T) {
	for _, test := range []struct {
		ours, theirs []uint32
		want         uint32
	}{
		{[]uint32{1}, []uint32{1}, 1}, {[]uint32{2, 1}, []uint32{1}, 1}, {[]uint32{1}, []uint32{2, 1}, 1}, {[]uint32{3, 2}, []uint32{2, 3, 4}, 3},
		{[]uint32{3, 2}, []uint32{1}, 0}, {[]uint32{1}, nil, 0},
	} {
		got, ok := common(test.ours, test.theirs)
		if got != test.want || ok != (test.want != 0) {
			t.Errorf("%v and %v: %d %v", test.ours, test.theirs, got, ok)
		}
	}
	now := time.Unix(1000, 0)
	for name, test := range map[string]struct {
		offered []uint32
		says    string
	}{
		"one minor version newer": {[]uint32{Protocol + 1, Protocol}, ""},
		"far newer":               {[]uint32{Protocol + 2, Protocol + 1}, "global speaks the protocols [1], the zone [3 2]: upgrade the older one"},
		"none":                    {nil, "global speaks the protocols [1], the zone []: upgrade the older one"},
	} {
		g := NewGlobal(GlobalConfig{Zone: "west"}, now)
		g.Receive(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Hello{Hello: &kdsv1.Hello{Zone: "west", Version: "9.9.9", Protocols: test.offered}}}, now)
		r := g.Ready()
		if test.says != "" {
			if r.Closed == nil || len(r.Frames) != 1 || r.Frames[0].GetRefusal().GetCode() != kdsv1.Refusal_CODE_PROTOCOL || r.Frames[0].GetRefusal().GetReason() != test.says {
				t.Errorf("%s: %v %v", name, r.Frames, r.Closed)
			}
			continue
		}
		g.Admit(Verdict{}, now)
		if f := g.Ready().Frames; len(f) != 1 || f[0].GetWelcome().GetProtocol() != Protocol {
			t.Errorf("%s: %v", name, f)
		}
	}
	z := NewZone(ZoneConfig{Zone: "west"}, NewSet(), Position{})
	z.Connect(now)
	z.Ready()
	z.Receive(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Welcome{Welcome: &kdsv1.Welcome{Protocol: Protocol + 1}}}, now)
	if r := z.Ready(); r.Closed == nil || !strings.Contains(r.Closed.Error(), "was not offered") {
		t.Errorf("a Welcome in a protocol that was not offered: %v", r.Closed)
	}
}

// future adds a field that no version knows.
func future[M proto.Message](t *testing.T, m M) M {
	t.Helper()
	extra := protowire.AppendString(protowire.AppendTag(nil, 4000, protowire.BytesType), "of the future")
	wire, err := proto.Marshal(m)
	if err == nil {
		err = proto.Unmarshal(append(wire, extra...), m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A peer of a newer version sends frames and fields that this one doesn't know: the stream goes on without them, and a record that is
// not understood is held, counted in the digest and told as what it is.
func TestNewerPeersAreUnderstood(t *testing.T) {
	now := time.Unix(1000, 0)
	g := NewGlobal(GlobalConfig{Zone: "west"}, now)
	z := NewZone(ZoneConfig{Zone: "west"}, NewSet(), Position{})
	z.Connect(now)
	hello := z.Ready().Frames[0]
	future(t, hello.GetHello())
	g.Receive(future(t, hello), now)
	g.Admit(Verdict{}, now)
	strange := future(t, &kdsv1.GlobalFrame{})
	z.Receive(strange, now)
	z.Receive(future(t, decoded(g.Ready().Frames[0])), now)
	z.Receive(strange, now)
	g.Receive(future(t, &kdsv1.ZoneFrame{}), now)
	if z.State() != Online || g.State() != Steady {
		t.Fatalf("zone %s, global %s", z.State(), g.State())
	}
	set := NewSet()
	for _, r := range []*kdsv1.Record{
		future(t, NewRecord(resource.Key{Kind: "Hologram", Mesh: "default", Name: "h"}, []byte("of the future"))), NewRecord(key("Mesh/default"), []byte{})} {
		if err := set.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	g.SetView(&testView{Set: set, pos: set.Position("e", 3), memo: &Memo{}}, now)
	for _, f := range g.Ready().Frames {
		z.Receive(future(t, decoded(f)), now)
	}
	d := z.Ready().Apply
	if d == nil || len(d.Upserts) != 2 {
		t.Fatalf("%+v", d)
	}
	z.Applied(d.Nonce, []*kdsv1.Rejection{{Key: &kdsv1.Key{Kind: "Hologram", Mesh: "default", Name: "h"}, Reason: "not known"}}, nil, now)
	for _, f := range z.Ready().Frames {
		g.Receive(future(t, f), now)
	}
	if z.Position() != set.Position("e", 3) || g.Confirmed() != z.Position() || len(g.Rejected()) != 1 || g.Repairs() != 0 {
		t.Errorf("zone %v, global %v, rejected %v", z.Position(), g.Confirmed(), g.Rejected())
	}
}
