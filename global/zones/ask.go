package zones

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Ask asks a zone: see stream.Server.Ask. Of a zone that runs in replicas each is asked for the list of its own proxies, or how it is, and
// the answers are joined.
func (r *Registry) Ask(ctx context.Context, zone string, q *kdsv1.Query) ([]byte, error) {
	if !Joined(q) {
		return r.server.Ask(ctx, zone, q)
	}
	answers, silent, err := r.server.AskAll(ctx, zone, q)
	if err != nil {
		return nil, err
	}
	if q.GetCheckUp() != nil {
		for i, body := range answers {
			answers[i] = slices.Concat([]byte(`{"items":[`), body, []byte(`]}`))
		}
	}
	return Join(q, answers, silent)
}

// Joined says whether the answer to a query is joined from those of all replicas, as an object with items, and with silent: the names of
// those that did not answer, where there are any.
func Joined(q *kdsv1.Query) bool { return q.GetListDataplanes() != nil || q.GetCheckUp() != nil }

// Join joins joined answers, and adds replicas that did not answer.
func Join(q *kdsv1.Query, answers [][]byte, silent []string) ([]byte, error) {
	if len(answers) == 1 && len(silent) == 0 {
		return answers[0], nil
	}
	items := []json.RawMessage{}
	for _, body := range answers {
		var one struct {
			Items  []json.RawMessage
			Silent []string
		}
		if err := json.Unmarshal(body, &one); err != nil {
			return nil, fmt.Errorf("the zone's answer is no list: %w", err)
		}
		items, silent = append(items, one.Items...), append(silent, one.Silent...)
	}
	if q.GetListDataplanes() != nil {
		var err error
		if items, err = proxiesOnce(items); err != nil {
			return nil, err
		}
	}
	out := map[string]any{"items": items}
	if len(silent) > 0 {
		slices.Sort(silent)
		out["silent"] = slices.Compact(silent)
	}
	return json.Marshal(out)
}

// Connected are the replicas of a zone that are connected, with the replica of global at which each is.
func (r *Registry) Connected(zone string) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]string{}
	if z := r.zones[zone]; z != nil {
		for _, rep := range z.sorted() {
			if rep.connected() {
				out[rep.name] = rep.peer
			}
		}
	}
	return out
}

// listedProxy is what is read of a proxy in a list.
type listedProxy struct {
	Kind  string    `json:"kind"`
	Mesh  string    `json:"mesh"`
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
	raw   json.RawMessage
}

// proxiesOnce orders proxies. One that is listed twice has gone from one replica to another, and is where it came last.
func proxiesOnce(in []json.RawMessage) ([]json.RawMessage, error) {
	all := make([]listedProxy, 0, len(in))
	for _, item := range in {
		p := listedProxy{raw: item}
		if err := json.Unmarshal(item, &p); err != nil {
			return nil, fmt.Errorf("the zone's answer is no list: %w", err)
		}
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b listedProxy) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Mesh, b.Mesh), cmp.Compare(a.Name, b.Name), b.Since.Compare(a.Since))
	})
	all = slices.CompactFunc(all, func(a, b listedProxy) bool { return a.Kind == b.Kind && a.Mesh == b.Mesh && a.Name == b.Name })
	items := make([]json.RawMessage, 0, len(all))
	for _, p := range all {
		items = append(items, p.raw)
	}
	return items, nil
}
