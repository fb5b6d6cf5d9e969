package rest

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/global/store"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// After a downgrade, what the newer version wrote is neither shown as if it were whole nor written over, and hides nothing else.
func TestWhatNewerSoftwareWroteIsNotWrittenOver(t *testing.T) {
	s := newStore(t)
	c := client{t, New(Config{Store: s, Authenticator: byName{}})}
	const timeout = "type: Timeout\nmesh: default\nname: %s\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\nconf: {connectTimeout: 1s}\n"
	c.want(c.do("admin", "POST", "/v1/changes", ym, "type: Mesh\nname: default\n---\n"+fmt.Sprintf(timeout, "plain")), 200)
	key := resource.Key{Kind: "Timeout", Mesh: "default", Name: "newer"}
	spec := &meshv1.Timeout{Conf: &meshv1.Timeout_Conf{ConnectTimeout: durationpb.New(1)}}
	spec.GetConf().ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 4000, protowire.VarintType), 1))
	done, err := s.Commit(t.Context(), store.Change{Ops: []store.Op{{Key: key, Put: &resource.Resource{Key: key, Spec: spec}}}})
	if err == nil {
		_, err = s.Wait(t.Context(), done.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.want(c.do("viewer", "GET", "/v1/meshes/default/timeouts/newer", "", ""), 500, `"code":"unreadable"`, "conf.(field 4000) is not known", "newer version")
	c.want(c.do("viewer", "GET", "/v1/timeouts", "", ""), 200, `"name":"plain"`, `"unreadable":[{"kind":"Timeout","mesh":"default","name":"newer","reason":`)
	c.want(c.do("admin", "POST", "/v1/changes", ym, fmt.Sprintf(timeout, "newer")), 422, "would drop: conf.(field 4000)", "or delete it first")
	c.want(c.do("admin", "POST", "/v1/changes", ym, fmt.Sprintf(timeout, "other")), 200, `"created":[{"kind":"Timeout"`)
	c.want(c.do("admin", "DELETE", "/v1/meshes/default/timeouts/newer", "", ""), 200)
	c.want(c.do("admin", "POST", "/v1/changes", ym, fmt.Sprintf(timeout, "newer")), 200)
}
