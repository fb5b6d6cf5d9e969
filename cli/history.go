package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/resource"
)

// entry is a change of the history.
type entry struct {
	Change   int64      `json:"change"`
	Revision int64      `json:"revision"`
	Author   string     `json:"author"`
	Message  string     `json:"message"`
	Time     *time.Time `json:"time"`
	Count    int        `json:"count"`
	Keys     []struct {
		keyOf
		Before json.RawMessage `json:"before"`
		After  json.RawMessage `json:"after"`
	} `json:"keys"`
}

func newHistory(streams Streams) *cobra.Command {
	var limit, before int
	cmd := &cobra.Command{Use: "history", Short: "List changes, newest first", Args: cobra.NoArgs}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many, at most 200")
	cmd.Flags().IntVar(&before, "before", 0, "only changes before this one")
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		if limit < 1 || limit > 200 || before < 0 {
			return usagef("--limit must lie between 1 and 200, and --before be the number of a change")
		}
		query := url.Values{"limit": {strconv.Itoa(limit)}}
		if before > 0 {
			query.Set("before", strconv.Itoa(before))
		}
		var list struct{ Items []json.RawMessage }
		if err := c.get(ctx, "/v1/changes?"+query.Encode(), &list); err != nil {
			return err
		}
		if *output != asTable {
			return printList(streams.Out, *output, list.Items)
		}
		t := &table{heading: []string{"CHANGE", "TIME", "AUTHOR", "RESOURCES", "MESSAGE"}}
		for _, raw := range list.Items {
			var e entry
			if err := json.Unmarshal(raw, &e); err != nil {
				return fmt.Errorf("%s answers with what is no change: %w", c.host, err)
			}
			t.add(e.Change, moment(e.Time), e.Author, e.Count, e.Message)
		}
		return t.print(streams.Out, "no changes")
	})
}

// number reads the number of a change.
func number(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, usagef("%q is no number of a change; zoneforge history lists them", text)
	}
	return n, nil
}

func newShow(streams Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "show CHANGE", Short: "Show what a change did, line by line", Args: cobra.ExactArgs(1)}
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		n, err := number(args[0])
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := c.get(ctx, path("v1", "changes", strconv.FormatInt(n, 10)), &raw); err != nil {
			return err
		}
		if *output != asTable {
			return printValue(streams.Out, *output, raw)
		}
		var e entry
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("%s answers with what is no change: %w", c.host, err)
		}
		head := &table{heading: []string{"Change:", strconv.FormatInt(e.Change, 10)}}
		head.add("Revision:", e.Revision)
		head.add("Author:", e.Author)
		head.add("Time:", moment(e.Time))
		head.add("Message:", e.Message)
		if err := head.print(streams.Out, ""); err != nil {
			return err
		}
		for _, k := range e.Keys {
			fmt.Fprintln(streams.Out)
			if err := printDifference(streams.Out, k.keyOf, k.Before, k.After); err != nil {
				return err
			}
		}
		return nil
	})
}

// printDifference prints what happened to a resource: a heading, and the lines that differ in YAML.
func printDifference(out io.Writer, key keyOf, before, after json.RawMessage) error {
	var texts [2]string
	for i, raw := range []json.RawMessage{before, after} {
		if len(raw) > 0 {
			text, err := toYAML(raw)
			if err != nil {
				return err
			}
			texts[i] = string(text)
		}
	}
	word := "updated"
	switch {
	case len(before) == 0:
		word = "created"
	case len(after) == 0:
		word = "deleted"
	}
	fmt.Fprintf(out, "%s %s\n", key, word)
	if texts[0] == texts[1] {
		fmt.Fprintln(out, "  its bytes, which are not shown")
		return nil
	}
	_, err := io.WriteString(out, difference(texts[0], texts[1]))
	return err
}

func newDiff(streams Streams) *cobra.Command {
	var paths []string
	var mesh string
	cmd := &cobra.Command{
		Use:   "diff -f PATH",
		Short: "Show what an apply of files would change, line by line",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringArrayVarP(&paths, "file", "f", nil, "file, directory or - (may be repeated)")
	cmd.Flags().StringVarP(&mesh, "mesh", "m", resource.DefaultMesh, "mesh of documents that name none")
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		if len(paths) == 0 {
			return usagef("name what to compare with -f: a file, a directory or -")
		}
		ch, resources, err := (&carry{streams: streams}).read(paths, mesh)
		if err != nil {
			return err
		}
		done, err := ch.post(ctx, c, true)
		if err != nil {
			return err
		}
		differs := map[keyOf]bool{}
		for _, k := range append(done.Created, done.Updated...) {
			differs[k] = true
		}
		first := true
		for _, r := range resources {
			key := keyOf(r.Key)
			if !differs[key] {
				continue
			}
			kind, _ := resource.Lookup(r.Kind)
			var before json.RawMessage
			if err := c.get(ctx, pathOf(kind, r.Mesh, r.Name), &before); err != nil && !isMissing(err) {
				return err
			}
			after, err := resource.EncodeJSON(r.Resource)
			if err != nil {
				return err
			}
			if !first {
				fmt.Fprintln(streams.Out)
			}
			first = false
			if err := printDifference(streams.Out, key, before, after); err != nil {
				return err
			}
		}
		if first {
			fmt.Fprintln(streams.Out, "no differences")
		}
		return nil
	})
}

func newRollback(streams Streams) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rollback CHANGE",
		Short: "Make a new change that puts back what stood before a change",
		Long: "Make a new change that puts back what stood before a change: what it created is deleted, what it updated or deleted is\n" +
			"as it was. Resources that were changed again since then are left alone, and refuse the rollback, unless --force is given.",
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&force, "force", false, "put back also what was changed again since then")
	carry := carryFlags(streams, cmd)
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		if err := carry.check(); err != nil {
			return err
		}
		n, err := number(args[0])
		if err != nil {
			return err
		}
		var e entry
		if err := c.get(ctx, path("v1", "changes", strconv.FormatInt(n, 10)), &e); err != nil {
			return err
		}
		ch, err := reverse(ctx, c, e, force)
		if err != nil {
			return err
		}
		ch.Message = cmp.Or(carry.message, strings.TrimSuffix(fmt.Sprintf("roll back change %d: %s", n, e.Message), ": "))
		return carry.carryOut(ctx, c, ch)
	})
}

// reverse makes the change that undoes another one.
func reverse(ctx context.Context, c *client, e entry, force bool) (change, error) {
	var ch change
	var wrong []string
	for _, k := range e.Keys {
		kind, ok := resource.Lookup(k.Kind)
		if !ok || kind.Writer != resource.WriterUser {
			continue // control planes keep these themselves
		}
		if kind.Sensitive && len(k.Before) > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: its bytes are never shown, so apply its former document instead", k.keyOf))
			continue
		}
		var now json.RawMessage
		if err := c.get(ctx, pathOf(kind, k.Mesh, k.Name), &now); err != nil && !isMissing(err) {
			return change{}, err
		}
		if !force && kind.Sensitive {
			wrong = append(wrong, fmt.Sprintf("%s: its bytes are never shown, so whether it was changed again since then is not known (use --force to delete it all the same)", k.keyOf))
			continue
		}
		if !force && !sameJSON(now, k.After) {
			wrong = append(wrong, fmt.Sprintf("%s: was changed again since then (use --force to put it back all the same)", k.keyOf))
			continue
		}
		if len(k.Before) == 0 {
			ch.Deletes = append(ch.Deletes, k.keyOf)
			continue
		}
		ch.Resources = append(ch.Resources, k.Before)
		ch.origins = append(ch.origins, k.keyOf.String())
	}
	if len(wrong) > 0 {
		return change{}, fmt.Errorf("change %d cannot be rolled back:\n  %s", e.Change, strings.Join(wrong, "\n  "))
	}
	if len(ch.Resources)+len(ch.Deletes) == 0 {
		return change{}, fmt.Errorf("change %d holds nothing that could be rolled back", e.Change)
	}
	return ch, nil
}

func sameJSON(a, b json.RawMessage) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
