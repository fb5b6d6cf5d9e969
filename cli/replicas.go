package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// globalReplica is a replica of global, as one of them tells.
type globalReplica struct {
	Name    string   `json:"name"`
	Address string   `json:"address"`
	Self    bool     `json:"self"`
	Away    bool     `json:"away"`
	Zones   []string `json:"zones"`
}

// state is how it is.
func (r globalReplica) state() string {
	if r.Away {
		return "cut off from the store"
	}
	return "ready"
}

// globalReplicas are those that the replica knows that is asked; none where it is too old to say.
func (c *client) globalReplicas(ctx context.Context) ([]globalReplica, error) {
	var list struct{ Items []globalReplica }
	if err := c.get(ctx, "/v1/status/replicas", &list); err != nil && !isMissing(err) {
		return nil, err
	}
	return list.Items, nil
}

func getReplicas(ctx context.Context, streams Streams, c *client, f format) error {
	var list struct{ Items []json.RawMessage }
	if err := c.get(ctx, "/v1/status/replicas", &list); err != nil {
		return err
	}
	if f != asTable {
		return printList(streams.Out, f, list.Items)
	}
	t := &table{heading: []string{"REPLICA", "STATE", "ADDRESS", "ASKED", "ZONES"}}
	for _, raw := range list.Items {
		var r globalReplica
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("%s answers with what is no replica: %w", c.host, err)
		}
		t.add(r.Name, r.state(), r.Address, yesNo(r.Self), strings.Join(r.Zones, ","))
	}
	return t.print(streams.Out, "no replicas")
}
