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

// Ask asks a zone: see stream.Server.Ask. Of a zone that runs in replicas, each lists its own proxies, and the lists are joined.
func (r *Registry) Ask(ctx context.Context, zone string, q *kdsv1.Query) ([]byte, error) {
	if q.GetListDataplanes() == nil {
		return r.server.Ask(ctx, zone, q)
	}
	lists, err := r.server.AskAll(ctx, zone, q)
	if err != nil {
		return nil, err
	}
	return JoinLists(lists)
}

// listedProxy is what is read of a proxy in a list.
type listedProxy struct {
	Kind  string    `json:"kind"`
	Mesh  string    `json:"mesh"`
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
	raw   json.RawMessage
}

// JoinLists joins lists of proxies, ordered. A proxy that stands in several has gone from one replica to another, and is where it came last.
func JoinLists(lists [][]byte) ([]byte, error) {
	if len(lists) == 1 {
		return lists[0], nil
	}
	var all []listedProxy
	for _, list := range lists {
		var raw struct{ Items []json.RawMessage }
		if err := json.Unmarshal(list, &raw); err != nil {
			return nil, fmt.Errorf("the zone's answer is no list: %w", err)
		}
		for _, item := range raw.Items {
			p := listedProxy{raw: item}
			if err := json.Unmarshal(item, &p); err != nil {
				return nil, fmt.Errorf("the zone's answer is no list: %w", err)
			}
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(a, b listedProxy) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Mesh, b.Mesh), cmp.Compare(a.Name, b.Name), b.Since.Compare(a.Since))
	})
	all = slices.CompactFunc(all, func(a, b listedProxy) bool { return a.Kind == b.Kind && a.Mesh == b.Mesh && a.Name == b.Name })
	items := make([]json.RawMessage, 0, len(all))
	for _, p := range all {
		items = append(items, p.raw)
	}
	return json.Marshal(map[string]any{"items": items})
}
