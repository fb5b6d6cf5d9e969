package proxyir_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// A filter that a newer version wrote may guard by what this one doesn't know: its rule is closed.
func TestFilterWithUnknownFieldsIsClosed(t *testing.T) {
	filter := func() *meshv1.Filter {
		return &meshv1.Filter{Filter: &meshv1.Filter_BodySize{BodySize: &meshv1.BodySize{Max: "1Mi"}}}
	}
	guarded, _, rejected := guardedRoutes(t, filter(), nil)
	if guarded.Forward == nil || len(rejected) != 0 {
		t.Fatalf("%+v %v", guarded, rejected)
	}
	of := filter()
	of.GetBodySize().ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 4000, protowire.VarintType), 1))
	guarded, open, rejected := guardedRoutes(t, of, nil)
	if guarded.Forward != nil || open.Forward == nil || len(rejected) != 1 || !strings.Contains(rejected[0].Reason, "bodySize.(field 4000); upgrade the zone") {
		t.Errorf("guarded %+v, open %+v, rejected %v", guarded, open, rejected)
	}
}
