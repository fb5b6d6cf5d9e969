package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/resource"
)

// kindOf finds a kind as people type it.
func kindOf(word string) (*resource.Kind, error) {
	if kind, ok := resource.Find(word); ok {
		return kind, nil
	}
	var names []string
	for _, k := range resource.Kinds() {
		names = append(names, k.Plural)
	}
	return nil, usagef("unknown kind %q; there are %s", word, strings.Join(names, ", "))
}

func newGet(streams Streams) *cobra.Command {
	var mesh, zone string
	cmd := &cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "List resources, zones with their state, connected proxies, or replicas of global",
		Long: "List the resources of a kind, or print one.\n" +
			"zones are shown with their state; dataplanes are asked of the zones that they are connected to; replicas are those of global, as the\n" +
			"one knows them that is asked.",
		Example: "  zoneforge get zones\n  zoneforge get traffic-routes -m default -o yaml\n  zoneforge get dataplanes --zone east",
		Args:    cobra.RangeArgs(1, 2),
	}
	cmd.Flags().StringVarP(&mesh, "mesh", "m", "", "mesh; default: all for a list, default for one resource")
	cmd.Flags().StringVar(&zone, "zone", "", "only the dataplanes of this zone")
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		name := ""
		if len(args) == 2 {
			name = args[1]
		}
		if args[0] == "replicas" {
			if mesh != "" || zone != "" || name != "" {
				return usagef("replicas are those of global: leave all but --output out; `zoneforge inspect zone NAME` lists those of a zone")
			}
			return getReplicas(ctx, streams, c, *output)
		}
		kind, err := kindOf(args[0])
		if err != nil {
			return err
		}
		if kind.Global() && mesh != "" {
			return usagef("a %s belongs to no mesh: leave --mesh out", kind.Name)
		}
		if zone != "" && kind.Name != "Dataplane" {
			return usagef("--zone is for dataplanes only: leave it out")
		}
		switch kind.Name {
		case "Zone":
			return getZones(ctx, streams, c, name, *output)
		case "Dataplane":
			return getDataplanes(ctx, streams, c, zone, mesh, name, *output)
		}
		return getResources(ctx, streams, c, kind, mesh, name, *output)
	})
}

func getResources(ctx context.Context, streams Streams, c *client, kind *resource.Kind, mesh, name string, f format) error {
	var items []json.RawMessage
	if name != "" {
		var item json.RawMessage
		if err := c.get(ctx, pathOf(kind, cmp.Or(mesh, resource.DefaultMesh), name), &item); err != nil {
			return err
		}
		if f != asTable {
			return printValue(streams.Out, f, item)
		}
		items = append(items, item)
	} else {
		route := path("v1", kind.Plural)
		if mesh != "" {
			route += "?mesh=" + url.QueryEscape(mesh)
		}
		var list struct {
			Items      []json.RawMessage
			Unreadable []struct {
				keyOf
				Reason string `json:"reason"`
			}
		}
		if err := c.get(ctx, route, &list); err != nil {
			return err
		}
		for _, u := range list.Unreadable {
			fmt.Fprintf(streams.Err, "%s is not listed: %s\n", u.keyOf, u.Reason)
		}
		if f != asTable {
			return printList(streams.Out, f, list.Items)
		}
		items = list.Items
	}
	t := &table{heading: []string{"MESH", "NAME", "ABOUT"}}
	if kind.Global() {
		t.heading = t.heading[1:]
	}
	for _, raw := range items {
		var item map[string]any
		if err := json.Unmarshal(raw, &item); err != nil {
			return fmt.Errorf("%s answers with what is no resource: %w", c.host, err)
		}
		row := []any{item["name"], about(kind, item)}
		if !kind.Global() {
			row = append([]any{item["mesh"]}, row...)
		}
		t.add(row...)
	}
	return t.print(streams.Out, "no "+kind.Plural)
}

// about is one resource in a few words: whom it concerns.
func about(kind *resource.Kind, item map[string]any) string {
	switch kind.Name {
	case "Mesh":
		mtls, _ := item["mtls"].(map[string]any)
		if backend, _ := mtls["enabledBackend"].(string); backend != "" {
			return "mTLS by " + backend
		}
		return "no mTLS"
	case "ZoneIngress":
		networking, _ := item["networking"].(map[string]any)
		address, port := cmp.Or(networking["advertisedAddress"], networking["address"]), cmp.Or(networking["advertisedPort"], networking["port"])
		return fmt.Sprintf("zone %v at %v:%v", item["zone"], address, port)
	}
	var parts []string
	if sources := services(item["sources"]); sources != "" {
		parts = append(parts, "from "+sources)
	}
	if destinations := services(item["destinations"]); destinations != "" {
		parts = append(parts, "to "+destinations)
	}
	if selectors := services(item["selectors"]); selectors != "" {
		parts = append(parts, "of "+selectors)
	}
	return strings.Join(parts, " ")
}

// services gives the services that selectors pick, or all tags of those that name none.
func services(selectors any) string {
	list, _ := selectors.([]any)
	var out []string
	for _, one := range list {
		selector, _ := one.(map[string]any)
		match, _ := selector["match"].(map[string]any)
		var tags []string
		for k, v := range match {
			if k == resource.TagService {
				tags = []string{fmt.Sprint(v)}
				break
			}
			tags = append(tags, fmt.Sprintf("%s=%v", k, v))
		}
		slices.Sort(tags)
		out = append(out, strings.Join(tags, "+"))
	}
	return strings.Join(out, ",")
}

func newDelete(streams Streams) *cobra.Command {
	var mesh string
	cmd := &cobra.Command{
		Use:   "delete KIND NAME",
		Short: "Delete a resource",
		Args:  cobra.ExactArgs(2),
	}
	cmd.Flags().StringVarP(&mesh, "mesh", "m", "", "mesh of the resource (default \"default\")")
	carry := carryFlags(streams, cmd)
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		if err := carry.check(); err != nil {
			return err
		}
		kind, err := kindOf(args[0])
		if err != nil {
			return err
		}
		if kind.Global() && mesh != "" {
			return usagef("a %s belongs to no mesh: leave --mesh out", kind.Name)
		}
		key := keyOf{Kind: kind.Name, Name: args[1]}
		if !kind.Global() {
			key.Mesh = cmp.Or(mesh, resource.DefaultMesh)
		}
		// A change of deletes alone does not mind what is gone already, but a person who mistypes a name does.
		if err := c.get(ctx, pathOf(kind, key.Mesh, key.Name), new(json.RawMessage)); err != nil {
			return err
		}
		return carry.carryOut(ctx, c, change{Message: cmp.Or(carry.message, "delete "+key.String()), Deletes: []keyOf{key}})
	})
}

// isMissing tells an answer of 404.
func isMissing(err error) bool {
	var p *problem
	return errors.As(err, &p) && p.Status == http.StatusNotFound
}
