package kds

import (
	"fmt"
	"strings"
	"testing"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// A zone that says it holds endless kinds or keys makes global keep none of them.
func TestInventoryIsBounded(t *testing.T) {
	var kinds []string
	for i := range maxKinds + 1 {
		kinds = append(kinds, fmt.Sprint("Kind", i))
	}
	long := strings.Repeat("x", maxKey)
	for name, i := range map[string]*kdsv1.Inventory{
		"kinds":     {Kinds: kinds, More: true},
		"long kind": {Kinds: []string{long + "x"}, More: true},
		"long key":  {Kinds: []string{"Mesh"}, Entries: []*kdsv1.Inventory_Entry{{Key: &kdsv1.Key{Kind: "Mesh", Name: long}, Hash: make([]byte, 32)}}, More: true},
	} {
		c := newCluster()
		c.change("Mesh/a=1")
		c.connect()
		if err := c.stabilize(); err != nil {
			t.Fatal(err)
		}
		g := c.global
		g.doubt = true
		g.Tick(c.now)
		if i.Nonce = g.asked; g.state != Comparing {
			t.Fatalf("global is %s", g.state)
		}
		g.Receive(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Inventory{Inventory: i}}, c.now)
		r := g.Ready()
		if r.Closed == nil || len(r.Frames) == 0 || r.Frames[len(r.Frames)-1].GetRefusal().GetCode() != kdsv1.Refusal_CODE_BAD_FRAME {
			t.Errorf("%s: accepted: %v", name, r.Frames)
		}
	}
}
