package admission

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestDocumentsShareTags: equal tags of documents are one map, and others are not.
func TestDocumentsShareTags(t *testing.T) {
	b := newBench(t)
	where := func(tags map[string]string) uintptr { return reflect.ValueOf(tags).Pointer() }
	admit := func(version string) *Proxy {
		p, err := b.admit(sidecar(strings.ReplaceAll(sidecarDocument, "v1", version)), b.token(nil))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first, second, other := admit("v1").Dataplane.GetNetworking(), admit("v1").Dataplane.GetNetworking(), admit("v2").Dataplane.GetNetworking()
	for i, in := range first.GetInbound() {
		if where(in.GetTags()) != where(second.GetInbound()[i].GetTags()) {
			t.Errorf("inbound %d: equal tags are kept twice", i)
		}
		if got := other.GetInbound()[i].GetTags()["version"]; got != "v2" || in.GetTags()["version"] != "v1" {
			t.Errorf("inbound %d: got version %s beside %s", i, got, in.GetTags()["version"])
		}
	}
	for _, n := range []interface{ GetTags() map[string]string }{second.GetOutbound()[0], other.GetOutbound()[0]} {
		if where(n.GetTags()) != where(first.GetOutbound()[0].GetTags()) {
			t.Error("equal tags of outbounds are kept twice")
		}
	}
}

// TestSharedTagsAreBounded: tags that none has again are forgotten, those that are asked for stay.
func TestSharedTagsAreBounded(t *testing.T) {
	sets := &newBench(t).admission.tags
	tags := func(n int) map[string]string { return map[string]string{"instance": fmt.Sprint(n)} }
	sets.mu.Lock()
	defer sets.mu.Unlock()
	kept := sets.sharedLocked(tags(-1))
	for i := range 5 * maxTags {
		sets.sharedLocked(tags(i))
		if again := sets.sharedLocked(tags(-1)); reflect.ValueOf(again).Pointer() != reflect.ValueOf(kept).Pointer() {
			t.Fatalf("after %d others, tags that are in use were forgotten", i)
		}
	}
	if n := len(sets.newer) + len(sets.older); n > 2*maxTags {
		t.Errorf("%d sets of tags are held", n)
	}
}
