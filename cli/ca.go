package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// rotation is how the root of a mesh stands.
type rotation struct {
	Mesh    string     `json:"mesh"`
	Backend string     `json:"backend"`
	Phase   string     `json:"phase"`
	Since   *time.Time `json:"since"`
	Roots   []struct {
		Fingerprint string     `json:"fingerprint"`
		NotAfter    *time.Time `json:"notAfter"`
		Signs       bool       `json:"signs"`
		Wanted      bool       `json:"wanted"`
	} `json:"roots"`
	Waiting []struct {
		Zone    string   `json:"zone"`
		Reason  string   `json:"reason"`
		Proxies []string `json:"proxies"`
	} `json:"waiting"`
	Without []string `json:"without"`
	// RemovedZones are deleted Zones whose certificates are still trusted.
	RemovedZones []string   `json:"removedZones"`
	Problem      string     `json:"problem"`
	SettlesAt    *time.Time `json:"settlesAt"`
}

// noPhase is that of a mesh whose one root signs.
const noPhase = "none"

func newCA(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "See the roots of meshes, and rotate them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCAStatus(streams), newCARotate(streams))
	return cmd
}

func newCAStatus(streams Streams) *cobra.Command {
	var mesh string
	cmd := &cobra.Command{
		Use: "status", Short: "Show which roots meshes trust, which one signs, and whom a rotation waits for", Args: cobra.NoArgs,
		Example: "  zoneforge ca status --mesh default",
	}
	cmd.Flags().StringVarP(&mesh, "mesh", "m", "", "only this mesh")
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		var items []json.RawMessage
		if mesh == "" {
			var list struct{ Items []json.RawMessage }
			if err := c.get(ctx, "/v1/roots", &list); err != nil {
				return err
			}
			items = list.Items
		} else {
			var one json.RawMessage
			if err := c.get(ctx, path("v1", "roots", mesh), &one); err != nil {
				return err
			}
			items = append(items, one)
		}
		if *output != asTable {
			return printList(streams.Out, *output, items)
		}
		t := &table{heading: []string{"MESH", "BACKEND", "PHASE", "SINCE", "ROOT", "ENDS", "SIGNS", "WAITS FOR"}}
		for _, raw := range items {
			var r rotation
			if err := json.Unmarshal(raw, &r); err != nil {
				return fmt.Errorf("%s answers with what is no state of roots: %w", c.host, err)
			}
			for i, root := range r.Roots {
				if i > 0 {
					t.add("", "", "", "", root.Fingerprint[:min(16, len(root.Fingerprint))], moment(root.NotAfter), sign(root.Signs, root.Wanted), "")
					continue
				}
				t.add(r.Mesh, r.Backend, r.Phase, moment(r.Since), root.Fingerprint[:min(16, len(root.Fingerprint))], moment(root.NotAfter), sign(root.Signs, root.Wanted), r.waits())
			}
			if len(r.Roots) == 0 {
				t.add(r.Mesh, r.Backend, r.Phase, "", "", "", "", r.waits())
			}
		}
		return t.print(streams.Out, "no roots")
	})
}

// sign says whether a root signs, or is to.
func sign(signs, wanted bool) string {
	switch {
	case signs:
		return "yes"
	case wanted:
		return "next"
	}
	return "no more"
}

// waits says what holds the phase.
func (r rotation) waits() string {
	var all []string
	if r.Problem != "" {
		all = append(all, r.Problem)
	}
	for _, w := range r.Waiting {
		text := w.Zone + ": " + w.Reason
		if len(w.Proxies) > 0 {
			text += " (" + strings.Join(w.Proxies, ", ") + ")"
		}
		all = append(all, text)
	}
	if len(all) == 0 && r.SettlesAt != nil {
		all = append(all, "connections that began before all had acknowledged this, until "+moment(r.SettlesAt))
	}
	return strings.Join(all, "; ")
}

func newCARotate(streams Streams) *cobra.Command {
	var mesh string
	var without []string
	var wait bool
	cmd := &cobra.Command{
		Use: "rotate --mesh MESH", Short: "Replace the builtin root of a mesh without a failed request", Args: cobra.NoArgs,
		Long: "Replace the builtin root of a mesh without a failed request. The next root is trusted beside the former one first; once every proxy of\n" +
			"every zone has acknowledged that, certificates are made anew below it; and once all use them, the former root is trusted no more.\n\n" +
			"A zone that is away holds the rotation, and `zoneforge ca status` names it. Where it is gone for good, delete its Zone or disable it.\n" +
			"With --without, a rotation that is under way goes on without some zones: certificates there may be refused by other zones until\n" +
			"they are back. A root of your own (provided) is replaced by applying the Mesh with another backend.",
		Example: "  zoneforge ca rotate --mesh default --wait\n  zoneforge ca rotate --mesh default --without west",
	}
	cmd.Flags().StringVarP(&mesh, "mesh", "m", "", "the mesh (required)")
	cmd.Flags().StringSliceVar(&without, "without", nil, "go on without this zone (may be repeated)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the rotation has ended")
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		if mesh == "" {
			return usagef("say by --mesh whose root is to be rotated")
		}
		var r rotation
		at, body := path("v1", "roots", mesh, "rotation"), map[string]any{}
		if len(without) > 0 {
			at, body = path("v1", "roots", mesh, "rotation", "without"), map[string]any{"zones": without}
		}
		if err := c.do(ctx, http.MethodPost, at, body, &r); err != nil {
			return err
		}
		for told := ""; ; {
			if now := r.says(); now != told {
				told = now
				if _, err := fmt.Fprintln(streams.Out, now); err != nil {
					return err
				}
			}
			if !wait || r.Phase == noPhase {
				return nil
			}
			pause := time.NewTimer(settlePoll)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return ctx.Err()
			}
			r = rotation{}
			if err := c.get(ctx, path("v1", "roots", mesh), &r); err != nil {
				return err
			}
		}
	})
}

// says is where a rotation stands, in a line.
func (r rotation) says() string {
	line := map[string]string{
		noPhase:   "the next root signs, and it alone is trusted",
		"trust":   "both roots are trusted by more and more, and the former one signs",
		"reissue": "the next root signs, and both are trusted",
	}[r.Phase]
	if waits := r.waits(); waits != "" {
		line += "; waiting for " + waits
	}
	return fmt.Sprintf("mesh %s: %s", r.Mesh, line)
}
