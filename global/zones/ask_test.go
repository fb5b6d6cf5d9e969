package zones

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Each replica of a zone lists its own proxies; the list that is asked for holds all of them, and one that went from one to the other once.
func TestListsOfReplicasAreJoined(t *testing.T) {
	f := start(t)
	lists := map[string]string{
		"a": `{"items": [{"kind": "Dataplane", "mesh": "m", "name": "web", "since": "2026-01-01T00:00:00Z", "at": "a"},
			{"kind": "Dataplane", "mesh": "m", "name": "edge", "since": "2026-01-01T00:00:00Z", "at": "a"}]}`,
		"b": `{"items": [{"kind": "Dataplane", "mesh": "m", "name": "web", "since": "2026-01-02T00:00:00Z", "at": "b"}]}`,
		"d": "",
	}
	for name, list := range lists {
		p := f.zone("east", name, "id", "zone:east")
		f.event(p, func(e kds.ZoneEvent) bool { return e.Welcome != nil })
		go func() {
			for e := range p.events {
				if e.Query == nil {
					continue
				}
				a := &kdsv1.Answer{Id: e.Query.GetId(), Body: []byte(list), Last: true}
				if list == "" {
					a.Error = "this one knows nothing"
				}
				if p.Do(f.ctx, func(z *kds.Zone) { z.Answer(a) }) != nil {
					return
				}
			}
		}()
		f.Cleanup(func() { p.stop(); close(p.events) })
	}
	q := &kdsv1.Query{Query: &kdsv1.Query_ListDataplanes_{ListDataplanes: &kdsv1.Query_ListDataplanes{}}}
	body, err := f.Ask(f.ctx, "east", q)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Items  []struct{ Name, At string }
		Silent []string
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if said := fmt.Sprint(got.Items, got.Silent); said != "[{edge a} {web b}] [d]" {
		t.Errorf("listed are %s", said)
	}
	// How each is stands side by side.
	body, err = f.Ask(f.ctx, "east", &kdsv1.Query{Query: &kdsv1.Query_CheckUp_{CheckUp: &kdsv1.Query_CheckUp{}}})
	if err == nil {
		var all struct {
			Items  []struct{ Items []any }
			Silent []string
		}
		if err = json.Unmarshal(body, &all); err == nil && (len(all.Items) != 2 || len(all.Items[0].Items) != 2 || len(all.Items[1].Items) != 1 || fmt.Sprint(all.Silent) != "[d]") {
			err = fmt.Errorf("it is %s", body)
		}
	}
	if err != nil {
		t.Errorf("how they are: %v", err)
	}
	if at := f.Connected("east"); len(at) != 3 || at["a"] != "" {
		t.Errorf("connected are %v", at)
	}
	// What other replicas of global say is joined with it.
	body, err = Join(q, [][]byte{body, []byte(`{"items": [{"kind": "Dataplane", "mesh": "m", "name": "far"}], "silent": ["c"]}`)}, []string{"z", "c"})
	if err != nil || !strings.Contains(string(body), `"silent":["c","d","z"]`) || !strings.Contains(string(body), `"far"`) {
		t.Errorf("joined are %s, %v", body, err)
	}
	if _, err := f.Ask(f.ctx, "west", q); !errors.Is(err, stream.ErrNotConnected) {
		t.Errorf("a zone that is not there gave %v", err)
	}
	if _, err := Join(q, [][]byte{[]byte(lists["a"]), []byte("no list")}, nil); err == nil || !strings.Contains(err.Error(), "is no list") {
		t.Errorf("what is no list gave %v", err)
	}
}
