package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// format is how a command prints.
type format string

const (
	asTable format = "table"
	asYAML  format = "yaml"
	asJSON  format = "json"
)

func (f *format) String() string { return string(*f) }

// Type is for cobra's help.
func (f *format) Type() string { return "format" }

// Set takes a format by name.
func (f *format) Set(text string) error {
	if !slices.Contains([]format{asTable, asYAML, asJSON}, format(text)) {
		return fmt.Errorf("%q is not one of table, yaml, json", text)
	}
	*f = format(text)
	return nil
}

func formatFlag(cmd *cobra.Command) *format {
	f := asTable
	cmd.Flags().VarP(&f, "output", "o", "table, yaml or json")
	return &f
}

// printValue prints an answer for scripts: its fields in their order, as YAML or indented JSON.
func printValue(out io.Writer, f format, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	if f == asJSON {
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return fmt.Errorf("print the answer: %w", err)
		}
		_, err := fmt.Fprintln(out, b.String())
		return err
	}
	text, err := toYAML(raw)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// printList prints each item as a document of its own in YAML, and {"items": [...]} in JSON.
func printList(out io.Writer, f format, items []json.RawMessage) error {
	if f == asJSON {
		if items == nil {
			items = []json.RawMessage{}
		}
		return printValue(out, f, map[string]any{"items": items})
	}
	for i, item := range items {
		if i > 0 {
			if _, err := fmt.Fprintln(out, "---"); err != nil {
				return err
			}
		}
		if err := printValue(out, f, item); err != nil {
			return err
		}
	}
	return nil
}

// toYAML keeps the order of fields.
func toYAML(raw []byte) ([]byte, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(raw, &n); err != nil {
		return nil, fmt.Errorf("print the answer: %w", err)
	}
	plain(&n)
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(&n); err != nil {
		return nil, fmt.Errorf("print the answer: %w", err)
	}
	return b.Bytes(), encoder.Close()
}

// plain drops JSON's brackets and quotes; the encoder puts back the quotes that matter.
func plain(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && strings.ContainsFunc(n.Value, func(r rune) bool { return r < ' ' && r != '\n' }) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// table aligns rows below a heading.
type table struct {
	heading []string
	rows    [][]string
}

func (t *table) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		text := fmt.Sprint(c)
		if text == "" {
			text = "-"
		}
		// What others wrote must not move the cursor or break the lines of a table.
		row[i] = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, text)
	}
	t.rows = append(t.rows, row)
}

// print writes nothing but none where there is no row.
func (t *table) print(out io.Writer, none string) error {
	if len(t.rows) == 0 {
		_, err := fmt.Fprintln(out, none)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{t.heading}, t.rows...) {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// moment prints a time of global, or - for none.
func moment(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// count is 1 thing or n things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
