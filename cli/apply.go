package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/zoneforge/zoneforge/resource"
)

// change is what a request to change something says.
type change struct {
	Message   string            `json:"message,omitempty"`
	Resources []json.RawMessage `json:"resources,omitempty"`
	Deletes   []keyOf           `json:"deletes,omitempty"`

	// origins says where each resource comes from.
	origins []string
}

type keyOf struct {
	Kind string `json:"kind"`
	Mesh string `json:"mesh,omitempty"`
	Name string `json:"name"`
}

func (k keyOf) String() string { return resource.Key(k).String() }

// changed is what global answers.
type changed struct {
	Change    int64   `json:"change"`
	Revision  int64   `json:"revision"`
	DryRun    bool    `json:"dryRun,omitempty"`
	Created   []keyOf `json:"created"`
	Updated   []keyOf `json:"updated"`
	Unchanged []keyOf `json:"unchanged"`
	Deleted   []keyOf `json:"deleted"`
	Notes     []struct {
		File string `json:"file,omitempty"`
		Line int    `json:"line,omitempty"`
		Text string `json:"text"`
	} `json:"notes,omitempty"`
	// Receipt is ours: how far the change came, with --wait.
	Receipt *receipt `json:"receipt,omitempty"`
}

// carry holds the flags of all commands that make a change.
type carry struct {
	streams Streams
	dryRun  bool
	wait    bool
	timeout time.Duration
	message string
	output  *format
}

func carryFlags(streams Streams, cmd *cobra.Command) *carry {
	c := &carry{streams: streams, output: formatFlag(cmd)}
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().BoolVar(&c.wait, "wait", false, "wait until the change is live on the last proxy, and print its receipt")
	cmd.Flags().DurationVar(&c.timeout, "timeout", time.Minute, "how long --wait waits, at most 1h")
	cmd.Flags().StringVar(&c.message, "message", "", "why the change is made, for the history")
	return c
}

func (c *carry) check() error {
	if c.dryRun && c.wait {
		return usagef("--dry-run changes nothing that --wait could wait for: leave one of them out")
	}
	if c.timeout <= 0 || c.timeout > time.Hour {
		return usagef("--timeout %s: wait longer than 0s, and at most 1h", c.timeout)
	}
	return nil
}

func newApply(streams Streams) *cobra.Command {
	var paths []string
	var mesh string
	cmd := &cobra.Command{
		Use:   "apply -f PATH",
		Short: "Apply files of resources, all or nothing",
		Long: "Apply files of resources as one change: all or nothing.\n" +
			"PATH is a file, a directory (read recursively), or - for standard input.\n" +
			"With --wait a line for each zone tells how far the change has come, and the last line is its receipt.\n" +
			"Exits 0 when it is applied (with --wait: live everywhere), 1 when it is refused or not live in time, 2 on wrong usage.",
		Example: "  zoneforge apply -f policies/ --message 'retry twice' --wait",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringArrayVarP(&paths, "file", "f", nil, "file, directory or - (may be repeated)")
	cmd.Flags().StringVarP(&mesh, "mesh", "m", resource.DefaultMesh, "mesh of documents that name none")
	c := carryFlags(streams, cmd)
	return verb(cmd, func(ctx context.Context, client *client, _ []string) error {
		if err := c.check(); err != nil {
			return err
		}
		if len(paths) == 0 {
			return usagef("name what to apply with -f: a file, a directory or -")
		}
		ch, _, err := c.read(paths, mesh)
		if err != nil {
			return err
		}
		return c.carryOut(ctx, client, ch)
	})
}

// read decodes files here, so that errors name file, line and column, and nothing is sent with an error in it.
func (c *carry) read(paths []string, mesh string) (change, []located, error) {
	inputs, err := readInputs(c.streams.In, paths)
	if err != nil {
		return change{}, nil, err
	}
	resources, err := decodeInputs(c.streams.Err, c.streams.Err, inputs, resource.Options{DefaultMesh: mesh, RefuseProxy: true})
	if err != nil {
		return change{}, nil, err
	}
	ch := change{Message: c.message}
	for _, r := range resources {
		raw, err := resource.EncodeJSON(r.Resource, resource.WithSecrets())
		if err != nil {
			return change{}, nil, fmt.Errorf("%s: %w", r.file, err)
		}
		ch.Resources = append(ch.Resources, raw)
		ch.origins = append(ch.origins, r.file+": "+r.Key.String())
	}
	return ch, resources, nil
}

// post sends a change. Violations that global finds name the file and key instead of the place in the request.
func (ch change) post(ctx context.Context, client *client, dryRun bool) (changed, error) {
	route := "/v1/changes"
	if dryRun {
		route += "?dryRun=true"
	}
	var done changed
	err := client.do(ctx, http.MethodPost, route, ch, &done)
	var p *problem
	if errors.As(err, &p) {
		for i, v := range p.Violations {
			index, ok := strings.CutPrefix(v.File, "resources[")
			if n, err := strconv.Atoi(strings.TrimSuffix(index, "]")); ok && err == nil && n >= 0 && n < len(ch.origins) {
				p.Violations[i].File, p.Violations[i].Line, p.Violations[i].Column = ch.origins[n], 0, 0
			}
		}
	}
	return done, err
}

func (c *carry) carryOut(ctx context.Context, client *client, ch change) error {
	done, err := ch.post(ctx, client, c.dryRun)
	if err != nil {
		return err
	}
	for _, n := range done.Notes {
		fmt.Fprintln(c.streams.Err, "note: "+n.Text)
	}
	table := *c.output == asTable
	if table {
		c.tell(done)
	}
	if c.wait && done.Change > 0 {
		progress := c.streams.Out
		if !table {
			progress = c.streams.Err
		}
		f := &follower{out: progress}
		if file, ok := progress.(*os.File); ok {
			f.inPlace = term.IsTerminal(int(file.Fd()))
		}
		done.Receipt, err = f.follow(ctx, client, done.Change, c.timeout)
	}
	if !table {
		return errors.Join(err, printValue(c.streams.Out, *c.output, done))
	}
	return err
}

// tell prints a line for each resource and one for the change.
func (c *carry) tell(done changed) {
	suffix := ""
	if done.DryRun {
		suffix = " (dry run)"
	}
	for _, group := range []struct {
		word string
		keys []keyOf
	}{{"created", done.Created}, {"updated", done.Updated}, {"deleted", done.Deleted}, {"unchanged", done.Unchanged}} {
		for _, k := range group.keys {
			fmt.Fprintf(c.streams.Out, "%s %s%s\n", k, group.word, suffix)
		}
	}
	switch {
	case done.Change > 0:
		fmt.Fprintf(c.streams.Out, "change %d is committed as revision %d\n", done.Change, done.Revision)
	case done.DryRun:
		fmt.Fprintln(c.streams.Out, "nothing was changed (dry run)")
	default:
		fmt.Fprintln(c.streams.Out, "nothing to change")
	}
}
