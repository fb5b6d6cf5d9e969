package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// zoneStatus is what global knows of a zone.
type zoneStatus struct {
	Zone      string      `json:"zone"`
	Connected bool        `json:"connected"`
	Enabled   bool        `json:"enabled"`
	Since     *time.Time  `json:"since"`
	LastSeen  *time.Time  `json:"lastSeen"`
	Version   string      `json:"version"`
	Revision  int64       `json:"revision"`
	Wanted    int64       `json:"wanted"`
	InSync    bool        `json:"inSync"`
	Problem   string      `json:"problem"`
	Proxies   int         `json:"proxies"`
	Acked     int         `json:"acked"`
	Nacks     []nack      `json:"nacks"`
	Rejected  []rejection `json:"rejected"`
	Ingresses []struct {
		Name    string `json:"name"`
		Address string `json:"address"`
		Port    int    `json:"port"`
	} `json:"ingresses"`
	Services []struct {
		Mesh    string `json:"mesh"`
		Service string `json:"service"`
		Count   int    `json:"count"`
	} `json:"services"`
	Repairs  int64 `json:"repairs"`
	Replicas []struct {
		Replica   string     `json:"replica"`
		Connected bool       `json:"connected"`
		Since     *time.Time `json:"since"`
		Revision  int64      `json:"revision"`
		Proxies   int        `json:"proxies"`
		Acked     int        `json:"acked"`
	} `json:"replicas"`
}

func (z zoneStatus) state() string {
	switch {
	case !z.Enabled:
		return "disabled"
	case !z.Connected:
		return "not connected"
	case z.Problem != "":
		return "failing"
	case !z.InSync:
		return "catching up"
	case len(z.Nacks) > 0 || len(z.Rejected) > 0:
		return "rejecting"
	}
	return "in sync"
}

func getZones(ctx context.Context, streams Streams, c *client, name string, f format) error {
	var items []json.RawMessage
	if name != "" {
		var item json.RawMessage
		if err := c.get(ctx, path("v1", "status", "zones", name), &item); err != nil {
			return err
		}
		if f != asTable {
			return printValue(streams.Out, f, item)
		}
		items = append(items, item)
	} else {
		var list struct{ Items []json.RawMessage }
		if err := c.get(ctx, "/v1/status/zones", &list); err != nil {
			return err
		}
		if f != asTable {
			return printList(streams.Out, f, list.Items)
		}
		items = list.Items
	}
	t := &table{heading: []string{"ZONE", "STATE", "PROXIES", "ACKED", "NACKS", "REVISION", "VERSION", "SINCE"}}
	for _, raw := range items {
		var z zoneStatus
		if err := json.Unmarshal(raw, &z); err != nil {
			return fmt.Errorf("%s answers with what is no status of a zone: %w", c.host, err)
		}
		t.add(z.Zone, z.state(), z.Proxies, z.Acked, len(z.Nacks), z.Revision, z.Version, moment(z.Since))
	}
	return t.print(streams.Out, "no zones")
}

// dataplane is a proxy as its zone tells of it.
type dataplane struct {
	Zone     string     `json:"zone"`
	Kind     string     `json:"kind"`
	Mesh     string     `json:"mesh"`
	Name     string     `json:"name"`
	Services []string   `json:"services"`
	Address  string     `json:"address"`
	Since    *time.Time `json:"since"`
	Revision int64      `json:"revision"`
	Acked    bool       `json:"acked"`
	Waiting  string     `json:"waiting"`
	Nacks    []nack     `json:"nacks"`
	Policies []policy   `json:"policies"`
	// Rejected are policies that match and cannot be used.
	Rejected []policy        `json:"rejected"`
	Config   json.RawMessage `json:"config"`
}

type policy struct {
	Kind     string `json:"kind"`
	Mesh     string `json:"mesh"`
	Name     string `json:"name"`
	Revision int64  `json:"revision"`
	Why      string `json:"why"`
}

// state says how far the proxy is.
func (d dataplane) state() string {
	switch {
	case len(d.Nacks) > 0:
		return "rejecting"
	case d.Waiting != "":
		return "waiting"
	case d.Acked:
		return "in sync"
	}
	return "catching up"
}

func (d dataplane) services() string { return strings.Join(d.Services, ",") }

// connectedZones are those that can be asked, or the one that was named.
func connectedZones(ctx context.Context, c *client, zone string) ([]string, error) {
	if zone != "" {
		return []string{zone}, nil
	}
	var list struct{ Items []zoneStatus }
	if err := c.get(ctx, "/v1/status/zones", &list); err != nil {
		return nil, err
	}
	var out []string
	for _, z := range list.Items {
		if z.Connected {
			out = append(out, z.Zone)
		}
	}
	slices.Sort(out)
	return out, nil
}

// askAtOnce bounds how many zones are asked at a time.
const askAtOnce = 16

// askZones lists the proxies of zones, in the order of the zones, as raw items that name their zone. A zone that doesn't
// answer, or a replica of one, is told of on the side; it is an error only where none does.
func askZones(ctx context.Context, streams Streams, c *client, zones []string, mesh string) ([]json.RawMessage, error) {
	answers := make([][]json.RawMessage, len(zones))
	failures := make([]error, len(zones))
	silent := make([][]string, len(zones))
	slots := make(chan struct{}, askAtOnce)
	var asking sync.WaitGroup
	for i, zone := range zones {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			if answers[i], silent[i], failures[i] = askZone(ctx, c, zone, mesh); failures[i] != nil {
				failures[i] = fmt.Errorf("zone %s: %w", zone, failures[i])
			}
		})
	}
	asking.Wait()
	failed := slices.DeleteFunc(failures, func(err error) bool { return err == nil })
	if len(failed) > 0 && len(failed) == len(zones) {
		return nil, errors.Join(failed...)
	}
	for _, err := range failed {
		fmt.Fprintln(streams.Err, "zoneforge:", err)
	}
	for i, zone := range zones {
		for _, replica := range silent[i] {
			fmt.Fprintf(streams.Err, "zoneforge: zone %s: its replica %s did not answer; its proxies are missing\n", zone, replica)
		}
	}
	return slices.Concat(answers...), nil
}

func askZone(ctx context.Context, c *client, zone, mesh string) (items []json.RawMessage, silent []string, err error) {
	route := path("v1", "zones", zone, "dataplanes")
	if mesh != "" {
		route += "?mesh=" + url.QueryEscape(mesh)
	}
	var list struct {
		Items  []json.RawMessage
		Silent []string
	}
	if err := c.get(ctx, route, &list); err != nil {
		return nil, nil, err
	}
	for i, item := range list.Items {
		named, err := withZone(item, zone)
		if err != nil {
			return nil, nil, err
		}
		list.Items[i] = named
	}
	return list.Items, list.Silent, nil
}

// withZone puts the zone first into an object that may lack it.
func withZone(raw json.RawMessage, zone string) (json.RawMessage, error) {
	var d struct{ Zone *string }
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("the answer holds what is no dataplane: %w", err)
	}
	if d.Zone != nil {
		return raw, nil
	}
	name, err := json.Marshal(zone)
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(raw), "{")
	if strings.TrimSpace(rest) == "}" {
		return json.RawMessage(`{"zone":` + string(name) + "}"), nil
	}
	return json.RawMessage(`{"zone":` + string(name) + "," + rest), nil
}

func getDataplanes(ctx context.Context, streams Streams, c *client, zone, mesh, name string, f format) error {
	zones, err := connectedZones(ctx, c, zone)
	if err != nil {
		return err
	}
	all, err := askZones(ctx, streams, c, zones, mesh)
	if err != nil {
		return err
	}
	var items []json.RawMessage
	t := &table{heading: []string{"ZONE", "KIND", "MESH", "NAME", "SERVICES", "ADDRESS", "STATE", "REVISION", "SINCE"}}
	for _, raw := range all {
		var d dataplane
		if err := json.Unmarshal(raw, &d); err != nil {
			return fmt.Errorf("%s answers with what is no dataplane: %w", c.host, err)
		}
		if name != "" && d.Name != name {
			continue
		}
		items = append(items, raw)
		t.add(d.Zone, d.Kind, d.Mesh, d.Name, d.services(), d.Address, d.state(), d.Revision, moment(d.Since))
	}
	if name != "" && len(items) == 0 {
		return fmt.Errorf("no proxy %q is connected to %s", name, inZones(zones))
	}
	if f != asTable {
		return printList(streams.Out, f, items)
	}
	return t.print(streams.Out, "no dataplanes")
}

func inZones(zones []string) string {
	if len(zones) == 0 {
		return "any zone, as no zone is connected"
	}
	return "zone " + strings.Join(zones, ", ")
}

func newInspect(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Tell what a zone or a proxy has, and why",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newInspectZone(streams), newInspectDataplane(streams))
	return cmd
}

func newInspectZone(streams Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "zone NAME", Short: "Tell what a zone has: connection, services, ingresses, refusals", Args: cobra.ExactArgs(1)}
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		var raw json.RawMessage
		if err := c.get(ctx, path("v1", "status", "zones", args[0]), &raw); err != nil {
			return err
		}
		if *output != asTable {
			return printValue(streams.Out, *output, raw)
		}
		var z zoneStatus
		if err := json.Unmarshal(raw, &z); err != nil {
			return fmt.Errorf("%s answers with what is no status of a zone: %w", c.host, err)
		}
		return printZone(streams, z)
	})
}

func printZone(streams Streams, z zoneStatus) error {
	head := &table{heading: []string{"Zone:", z.Zone}}
	head.add("State:", z.state())
	head.add("Enabled:", yesNo(z.Enabled))
	head.add("Connected:", yesNo(z.Connected))
	head.add("Since:", moment(z.Since))
	head.add("Last seen:", moment(z.LastSeen))
	head.add("Version:", z.Version)
	head.add("Revision:", fmt.Sprintf("%d of %d", z.Revision, z.Wanted))
	head.add("Proxies:", fmt.Sprintf("%d, of which %d have all of it", z.Proxies, z.Acked))
	head.add("Repairs:", z.Repairs)
	if z.Problem != "" {
		head.add("Problem:", oneLine(z.Problem))
	}
	if err := head.print(streams.Out, ""); err != nil {
		return err
	}
	ingresses := &table{heading: []string{"INGRESS", "ADDRESS"}}
	for _, i := range z.Ingresses {
		ingresses.add(i.Name, fmt.Sprintf("%s:%d", i.Address, i.Port))
	}
	services := &table{heading: []string{"MESH", "SERVICE", "ENDPOINTS"}}
	for _, s := range z.Services {
		services.add(s.Mesh, s.Service, s.Count)
	}
	replicas := &table{heading: []string{"REPLICA", "CONNECTED", "REVISION", "PROXIES", "ACKED", "SINCE"}}
	for _, r := range z.Replicas {
		replicas.add(r.Replica, yesNo(r.Connected), r.Revision, r.Proxies, r.Acked, moment(r.Since))
	}
	for _, part := range []struct {
		t    *table
		none string
	}{{replicas, "no replicas"}, {ingresses, "no ingresses"}, {services, "no services"}} {
		fmt.Fprintln(streams.Out)
		if err := part.t.print(streams.Out, part.none); err != nil {
			return err
		}
	}
	var reasons []string
	for _, r := range z.Rejected {
		reasons = append(reasons, r.String())
	}
	printReasons(streams, "The zone cannot use:", reasons)
	printNacks(streams, z.Nacks)
	return nil
}

func printNacks(streams Streams, nacks []nack) {
	var reasons []string
	for _, n := range nacks {
		reasons = append(reasons, n.String())
	}
	printReasons(streams, "Refused by proxies:", reasons)
}

func printReasons(streams Streams, heading string, reasons []string) {
	if len(reasons) == 0 {
		return
	}
	fmt.Fprintf(streams.Out, "\n%s\n", heading)
	for _, r := range reasons {
		fmt.Fprintln(streams.Out, "  "+r)
	}
}

func newInspectDataplane(streams Streams) *cobra.Command {
	var mesh, zone string
	var withConfig bool
	cmd := &cobra.Command{
		Use:   "dataplane NAME",
		Short: "Tell what a connected proxy has: policies and why, refusals, and Envoy's configuration",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().StringVarP(&mesh, "mesh", "m", "", "mesh of the proxy; - for a zone ingress; default: any")
	cmd.Flags().StringVar(&zone, "zone", "", "zone that the proxy is connected to; default: any")
	cmd.Flags().BoolVar(&withConfig, "config", false, "Envoy's configuration too, without secrets")
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		found, err := findDataplane(ctx, streams, c, zone, mesh, args[0])
		if err != nil {
			return err
		}
		route := path("v1", "zones", found.Zone, "dataplanes", cmp.Or(found.Mesh, "-"), found.Name)
		if withConfig {
			route += "?config=true"
		}
		var raw json.RawMessage
		if err := c.get(ctx, route, &raw); err != nil {
			return err
		}
		if raw, err = withZone(raw, found.Zone); err != nil {
			return err
		}
		if *output != asTable {
			return printValue(streams.Out, *output, raw)
		}
		var d dataplane
		if err := json.Unmarshal(raw, &d); err != nil {
			return fmt.Errorf("%s answers with what is no dataplane: %w", c.host, err)
		}
		return printDataplane(streams, d)
	})
}

// findDataplane finds a proxy by name; where zone and mesh are both known nothing needs to be asked.
func findDataplane(ctx context.Context, streams Streams, c *client, zone, mesh, name string) (dataplane, error) {
	if zone != "" && mesh != "" {
		return dataplane{Zone: zone, Mesh: strings.TrimPrefix(mesh, "-"), Name: name}, nil
	}
	zones, err := connectedZones(ctx, c, zone)
	if err != nil {
		return dataplane{}, err
	}
	filter := mesh
	if mesh == "-" {
		filter = ""
	}
	items, err := askZones(ctx, streams, c, zones, filter)
	if err != nil {
		return dataplane{}, err
	}
	var found []dataplane
	var places []string
	for _, raw := range items {
		var d dataplane
		if err := json.Unmarshal(raw, &d); err != nil {
			return dataplane{}, fmt.Errorf("%s answers with what is no dataplane: %w", c.host, err)
		}
		if d.Name == name && (mesh != "-" || d.Mesh == "") {
			found = append(found, d)
			places = append(places, fmt.Sprintf("zone %s mesh %s", d.Zone, cmp.Or(d.Mesh, "-")))
		}
	}
	switch len(found) {
	case 0:
		return dataplane{}, fmt.Errorf("no proxy %q is connected to %s", name, inZones(zones))
	case 1:
		return found[0], nil
	}
	return dataplane{}, usagef("%q is connected in several places: %s; say which by --zone and --mesh", name, strings.Join(places, ", "))
}

func printDataplane(streams Streams, d dataplane) error {
	head := &table{heading: []string{"Proxy:", d.Name}}
	head.add("Kind:", d.Kind)
	head.add("Zone:", d.Zone)
	head.add("Mesh:", d.Mesh)
	head.add("Services:", d.services())
	head.add("Address:", d.Address)
	head.add("Since:", moment(d.Since))
	head.add("Revision:", d.Revision)
	head.add("State:", d.state())
	if d.Waiting != "" {
		head.add("Waits for:", oneLine(d.Waiting))
	}
	if err := head.print(streams.Out, ""); err != nil {
		return err
	}
	fmt.Fprintln(streams.Out)
	policies := &table{heading: []string{"POLICY", "NAME", "REVISION", "WHY"}}
	for _, p := range d.Policies {
		policies.add(p.Kind, p.Name, p.Revision, p.Why)
	}
	if err := policies.print(streams.Out, "no policy concerns it"); err != nil {
		return err
	}
	var rejected []string
	for _, p := range d.Rejected {
		rejected = append(rejected, rejection{p.Kind, p.Mesh, p.Name, p.Why}.String())
	}
	printReasons(streams, "Cannot be used:", rejected)
	printNacks(streams, d.Nacks)
	if len(d.Config) == 0 {
		return nil
	}
	fmt.Fprintln(streams.Out)
	return printValue(streams.Out, asYAML, d.Config)
}
