package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a file of settings, in bytes.
const maxFile = 1 << 20

// entry is one line of a file.
type entry struct {
	name string
	// value is a text as a flag would have it, or a list of such.
	value any
	// at is file:line:column of the value.
	at string
}

func lookupEnv(name string) string { return os.Getenv(name) }

// readFile reads a file strictly: each key is one of the settings, once, with a value of its kind. The entries that are
// well are returned beside the error, so that a reader learns of all errors at once.
func readFile(path string, all []setting) ([]entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes, so it is no file of settings", path, maxFile)
	}
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var more yaml.Node
	if err := decoder.Decode(&more); err == nil {
		return nil, fmt.Errorf("%s:%d:%d: a second document; keep all settings in one", path, more.Line, more.Column)
	} else if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(document.Content) == 0 {
		return nil, nil
	}
	return readMapping(path, document.Content[0], all)
}

func readMapping(path string, root *yaml.Node, all []setting) ([]entry, error) {
	at := func(n *yaml.Node) string { return fmt.Sprintf("%s:%d:%d", path, n.Line, n.Column) }
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: expected settings as name: value, found %s", at(root), describe(root))
	}
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	var out []entry
	var errs []error
	lines := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		index := slices.Index(names, key.Value)
		if index < 0 {
			errs = append(errs, fmt.Errorf("%s: unknown setting %q%s", at(key), key.Value, hint(key.Value, names)))
			continue
		}
		if line := lines[key.Value]; line > 0 {
			errs = append(errs, fmt.Errorf("%s: %s is set in line %d already; keep one of them", at(key), key.Value, line))
			continue
		}
		lines[key.Value] = key.Line
		parsed, err := readValue(value, all[index])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", at(value), key.Value, err))
			continue
		}
		out = append(out, entry{key.Value, parsed, at(value)})
	}
	return out, errors.Join(errs...)
}

// readValue checks the kind of a value and gives it as a flag would.
func readValue(n *yaml.Node, s setting) (any, error) {
	tag := n.ShortTag()
	scalar := n.Kind == yaml.ScalarNode && tag != "!!null"
	switch s.value.Interface().(type) {
	case []string:
		if scalar && tag == "!!str" {
			return n.Value, nil
		}
		if n.Kind != yaml.SequenceNode {
			return nil, fmt.Errorf("expected a list of texts, found %s", describe(n))
		}
		items := []string{}
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.ShortTag() != "!!str" {
				return nil, fmt.Errorf("expected a list of texts, found %s in it", describe(item))
			}
			items = append(items, item.Value)
		}
		return items, nil
	case bool:
		if !scalar || tag != "!!bool" {
			return nil, fmt.Errorf("expected true or false, found %s", describe(n))
		}
		return strings.ToLower(n.Value), nil
	case int:
		if !scalar || tag != "!!int" {
			return nil, fmt.Errorf("expected a number, found %s", describe(n))
		}
		return n.Value, nil
	}
	if !scalar || tag != "!!str" {
		want := "a text"
		if s.value.Type() == reflect.TypeOf(Secret("")) {
			return nil, fmt.Errorf("expected %s; quote it", want)
		}
		if s.value.Kind() == reflect.Int64 {
			want = "a duration such as 30s"
		}
		return nil, fmt.Errorf("expected %s, found %s", want, describe(n))
	}
	return n.Value, nil
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return n.Value
	case "!!str":
		return fmt.Sprintf("the text %q", n.Value)
	}
	return n.Value
}

func contains(all []string, one string) bool { return slices.Contains(all, one) }

// hint names the candidate nearest to a word, such as a slip of the finger would have left.
func hint(word string, candidates []string) string {
	const longest = 64 // longer words are no slips, and the comparison is quadratic
	best, nearest := "", max(1, len(word)/3)+1
	if word == "" || len(word) > longest {
		return ""
	}
	plain := strings.ReplaceAll(strings.ToLower(word), "_", "-")
	for _, c := range candidates {
		d := distance(plain, c)
		// dataDir and data_dir are the other spellings that people try.
		if strings.ReplaceAll(plain, "-", "") == strings.ReplaceAll(c, "-", "") {
			d = 0
		}
		if len(c) >= 3 && len(plain) >= 3 && (strings.HasPrefix(plain, c) || strings.HasPrefix(c, plain)) {
			d = min(d, 1)
		}
		if d < nearest {
			best, nearest = c, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance counts insertions, deletions, replacements and swaps of neighbours.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
