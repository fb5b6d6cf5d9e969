package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// auditShown is how many of the things that a request was to do fit a line of the table; JSON and YAML have what global recorded.
const auditShown = 3

// audited is a request that a replica of global recorded.
type audited struct {
	Entry                   int64
	Time                    *time.Time
	Name, Role, Token, From string
	Method, Path            string
	What                    []string
	Count                   int
	Status                  int
	Code                    string
	Change, Omitted         int64
}

func newAudit(streams Streams) *cobra.Command {
	var limit, before int
	cmd := &cobra.Command{
		Use: "audit", Short: "List who asked a replica of global for what beyond reading, newest first", Args: cobra.NoArgs,
		Long: "List who asked a replica of global for what beyond reading, from where, and what came of it, newest first. Each replica keeps a log\n" +
			"of its own, and tells of that. Of what a request was to do the table has the first three. An admin's token is needed.",
		Example: "  zoneforge audit --limit 100",
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many, at most 1000")
	cmd.Flags().IntVar(&before, "before", 0, "only entries before this one")
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		if limit < 1 || limit > 1000 || before < 0 {
			return usagef("--limit must lie between 1 and 1000, and --before be the number of an entry")
		}
		query := url.Values{"limit": {strconv.Itoa(limit)}}
		if before > 0 {
			query.Set("before", strconv.Itoa(before))
		}
		var list struct{ Items []json.RawMessage }
		if err := c.get(ctx, "/v1/audit?"+query.Encode(), &list); err != nil {
			return err
		}
		if *output != asTable {
			return printList(streams.Out, *output, list.Items)
		}
		t := &table{heading: []string{"ENTRY", "TIME", "WHO", "FROM", "WHAT", "RESULT"}}
		for _, raw := range list.Items {
			var e audited
			if err := json.Unmarshal(raw, &e); err != nil {
				return fmt.Errorf("%s answers with what is no entry: %w", c.host, err)
			}
			t.add(e.Entry, moment(e.Time), e.who(), e.From, e.what(), e.result())
		}
		return t.print(streams.Out, "no entries")
	})
}

func (e audited) who() string {
	if e.Name == "" {
		return "a stranger"
	}
	return e.Name + " (" + e.Role + ")"
}

func (e audited) what() string {
	if len(e.What) == 0 {
		return e.Method + " " + e.Path
	}
	shown := e.What[:min(len(e.What), auditShown)]
	text := strings.Join(shown, ", ")
	if more := max(e.Count, len(e.What)) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func (e audited) result() string {
	text := strings.TrimSpace(strconv.Itoa(e.Status) + " " + e.Code)
	switch {
	case e.Status == 0:
		text = "cut off"
	case e.Change > 0:
		text = fmt.Sprintf("change %d", e.Change)
	}
	if e.Omitted > 0 {
		text += fmt.Sprintf("; %d refused before it are not told", e.Omitted)
	}
	return text
}
