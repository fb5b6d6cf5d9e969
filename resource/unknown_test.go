package resource

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// field is one of the future, in wire format.
func field(num protowire.Number) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), "of the future")
}

// What a newer version wrote is told by its place, kept, and goes out again as it came.
func TestUnknownFieldsAreKeptAndNamed(t *testing.T) {
	spec := &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{EnabledBackend: "a", Backends: []*meshv1.Mesh_CertificateAuthority{{Name: "a"}, {Name: "b"}}}}
	spec.ProtoReflect().SetUnknown(field(4000))
	spec.GetMtls().GetBackends()[1].ProtoReflect().SetUnknown(append(field(4001), field(4001)...))
	key := Key{Kind: "Mesh", Name: "default"}
	payload, err := Marshal(&Resource{Key: key, Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Unmarshal(key, payload)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"(field 4000)", "mtls.backends[1].(field 4001)", "mtls.backends[1].(field 4001)"}
	if got := Unknown(r.Spec); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if again, err := Marshal(r); err != nil || !bytes.Equal(again, payload) {
		t.Errorf("it goes out as %x, not %x: %v", again, payload, err)
	}
	if got := Unknown(&meshv1.Zone{}); got != nil {
		t.Errorf("nothing gives %q", got)
	}
	if got := Unknown(proto.Clone(spec)); !slices.Equal(got, want) {
		t.Errorf("a copy gives %q", got)
	}
}
