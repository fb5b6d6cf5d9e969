package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/zoneforge/zoneforge/resource"
)

const generated = "<!-- Generated from proto/, resource/registry.go and deploy/examples by `make docs`: edit those. -->\n"

// kinds are those that have a page: what users or proxies write.
func kinds() []*resource.Kind {
	return slices.DeleteFunc(slices.Clone(resource.Kinds()), func(k *resource.Kind) bool { return k.Writer == resource.WriterSystem })
}

// render makes the pages of the kinds and their index, by path below docs. The example of a kind is asked for by its plural.
func render(s *schema, example func(plural string) ([]byte, error)) (map[string][]byte, error) {
	pages := map[string][]byte{"resources/README.md": index()}
	for _, kind := range kinds() {
		text, err := example(kind.Plural)
		if err != nil {
			return nil, fmt.Errorf("%s needs an example: %w", kind.Name, err)
		}
		if pages["resources/"+kind.Plural+".md"], err = page(s, kind, text); err != nil {
			return nil, fmt.Errorf("%s: %w", kind.Name, err)
		}
	}
	var err error
	if pages["resources/types.md"], err = types(s); err != nil {
		return nil, err
	}
	return pages, nil
}

// types is the page of the messages that several kinds hold.
func types(s *schema) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Types in several kinds\n\n" + generated + "\nWhat more than one kind of resource holds.\n")
	for _, name := range shared {
		m, err := s.message(name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", m.Name(), comment(m))
		table(&b, m)
	}
	return b.Bytes(), nil
}

func table(b *bytes.Buffer, m protoreflect.MessageDescriptor) {
	b.WriteString("| Field | Type | Default | Description |\n|---|---|---|---|\n")
	for _, f := range fields(m) {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.path, f.kind, cell(f.fallback), cell(f.description))
	}
}

// example reads the example of a kind: the file in deploy/examples that is named for the kind, in the singular.
func example(root, plural string) ([]byte, error) {
	folder := filepath.Join(root, "deploy", "examples")
	kind, ok := resource.Find(plural)
	if !ok {
		return nil, fmt.Errorf("%q is no kind", plural)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.ReplaceAll(strings.TrimSuffix(e.Name(), ".yaml"), "-", "") == strings.ToLower(kind.Name) {
			return os.ReadFile(filepath.Join(folder, e.Name()))
		}
	}
	return nil, fmt.Errorf("no file in %s is named for it", folder)
}

func index() []byte {
	var b bytes.Buffer
	b.WriteString("# Resources\n\n" + generated + `
What people and proxies tell zoneforge. Each kind has a page with its fields, their defaults and an example.

| Kind | What it is | Written by |
|---|---|---|
`)
	for _, k := range kinds() {
		fmt.Fprintf(&b, "| [%s](%s.md) | %s | %s |\n", k.Name, k.Plural, k.Summary, writer(k))
	}
	b.WriteString(`
What several of them hold, such as filters, is on [a page of its own](types.md).

## Two spellings

A document is written in the universal spelling (` + "`type`, `mesh`, `name`" + `, then the fields) or in that of Kubernetes
(` + "`apiVersion`, `kind`, `metadata`, `spec`" + `). Both are read everywhere, stored as one and printed in the universal one. A file may
hold many documents. Objects of Kubernetes itself (a Deployment, a Service) in the same file are skipped, and a line says so.

| | universal | Kubernetes |
|---|---|---|
| kind | ` + "`type`" + ` | ` + "`apiVersion` and `kind`" + ` |
| name | ` + "`name`" + ` | ` + "`metadata.name`" + ` |
| mesh | ` + "`mesh`" + ` | ` + "`mesh`, `spec.mesh` or the label `kuma.io/mesh`" + ` |
| labels | ` + "`labels`" + ` | ` + "`metadata.labels`; the namespace becomes the label `k8s.kuma.io/namespace`" + ` |
| fields | beside them, or under ` + "`spec`" + ` | ` + "`spec`" + ` |

Where no mesh is named, it is ` + "`default`" + `. A field may be written in camel case (` + "`connectTimeout`" + `) or with underscores
(` + "`connect_timeout`" + `). Durations are numbers with units: ` + "`500ms`, `1h30m`" + `. Reading is strict: an unknown field, a wrong type or a
bad value is an error with file, line, column and field, all errors of a file are told at once, and nothing of a file with an error
is applied.
`)
	return b.Bytes()
}

func writer(k *resource.Kind) string {
	if k.Writer == resource.WriterProxy {
		return "its proxy"
	}
	return "users"
}

func page(s *schema, kind *resource.Kind, example []byte) ([]byte, error) {
	spec, err := s.spec(kind)
	if err != nil {
		return nil, err
	}
	kubernetes, err := inKubernetes(kind, example)
	if err != nil {
		return nil, fmt.Errorf("its example: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n%s\n%s\n\n", kind.Name, generated, comment(spec))
	scope, path := "a mesh", "/v1/meshes/{mesh}/"+kind.Plural
	if kind.Global() {
		scope, path = "no mesh: its names are those of the whole federation", "/v1/"+kind.Plural
	}
	fmt.Fprintf(&b, "- Belongs to %s.\n", scope)
	if kind.Writer == resource.WriterProxy {
		b.WriteString("- Presented by its proxy when it connects to its zone; it can't be applied.\n")
	} else {
		fmt.Fprintf(&b, "- Written by users: `zoneforge apply`, or REST at `%s`.\n", path)
	}
	if len(kind.Aliases) > 0 {
		fmt.Fprintf(&b, "- On the command line also `%s`.\n", strings.Join(kind.Aliases, "`, `"))
	}
	if kind.Sensitive {
		b.WriteString("- Sealed where it is stored, and shown as `" + resource.Redacted + "`.\n")
	}
	fmt.Fprintf(&b, "\n## Example\n\n```yaml\n%s\n```\n\nIn the spelling of Kubernetes:\n\n```yaml\n%s```\n", bytes.TrimSpace(example), kubernetes)
	b.WriteString("\n## Fields\n\n")
	table(&b, spec)
	return b.Bytes(), nil
}

// cell escapes what would end a cell, or mark text up.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "<", "&lt;", "_", `\_`).Replace(text)
}

// inKubernetes spells the documents of an example in the other way, and makes sure that both mean the same.
func inKubernetes(kind *resource.Kind, example []byte) ([]byte, error) {
	var out bytes.Buffer
	want, err := meaning(kind, example)
	if err != nil {
		return nil, err
	}
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	dec := yaml.NewDecoder(bytes.NewReader(example))
	for range want {
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil {
			return nil, err
		}
		if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
			return nil, fmt.Errorf("line %d: expected a document in the universal spelling", doc.Line)
		}
		if err := enc.Encode(respell(kind, doc.Content[0])); err != nil {
			return nil, err
		}
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	got, err := meaning(kind, out.Bytes())
	if err != nil {
		return nil, err
	}
	if !slices.Equal(got, want) {
		return nil, fmt.Errorf("the spellings differ: %v and %v", got, want)
	}
	return out.Bytes(), nil
}

// meaning is the canonical spelling of an example's documents.
func meaning(kind *resource.Kind, example []byte) ([]string, error) {
	batch := resource.Decode(kind.Plural, example, resource.Options{})
	if err := batch.Err(); err != nil {
		return nil, err
	}
	var out []string
	for _, r := range batch.Resources {
		if r.Kind != kind.Name {
			return nil, fmt.Errorf("it holds %s", r.Key)
		}
		text, err := resource.EncodeYAML(r, resource.WithSecrets())
		if err != nil {
			return nil, err
		}
		out = append(out, string(text))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("it holds no %s", kind.Name)
	}
	return out, nil
}

func respell(kind *resource.Kind, n *yaml.Node) *yaml.Node {
	word := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
	metadata, spec := &yaml.Node{Kind: yaml.MappingNode}, &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch key.Value {
		case "type":
		case "name", "labels":
			metadata.Content = append(metadata.Content, key, value)
		default:
			spec.Content = append(spec.Content, key, value)
		}
	}
	return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{word("apiVersion"), word(kind.APIVersion), word("kind"), word(kind.Name),
		word("metadata"), metadata, word("spec"), spec}}
}
