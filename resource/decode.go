package resource

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
)

// MaxBytes bounds one call of Decode.
const MaxBytes = 16 << 20

// LabelNamespace holds the namespace of a document in Kubernetes's spelling.
const LabelNamespace = "k8s.kuma.io/namespace"

const labelMesh = "kuma.io/mesh"

// Options say what Decode accepts.
type Options struct {
	// DefaultMesh is the mesh of a document that names none; empty means DefaultMesh, the constant.
	DefaultMesh string
	// System accepts kinds that only control planes write.
	System bool
	// RefuseProxy refuses kinds that proxies present.
	RefuseProxy bool
	// Schema checks what a ProxyTemplate says to Envoy; nil leaves that to the zones.
	Schema EnvoySchema
}

// Note is something the author should know that is no error.
type Note struct {
	File string
	Line int
	Text string
}

// String is file:line: text.
func (n Note) String() string { return fmt.Sprintf("%s:%d: %s", n.File, n.Line, n.Text) }

// Batch is what Decode read. Where Violations is not empty, Resources must not be applied.
type Batch struct {
	// Resources in the order of their documents.
	Resources []*Resource
	// Notes, in order, about documents that were skipped and fields that are not kept.
	Notes []Note
	// Violations, ordered by position.
	Violations []Violation
}

// Err joins the violations, one a line; nil when there is none.
func (b *Batch) Err() error { return joinViolations(b.Violations) }

// Decode reads the YAML or JSON documents of one file and validates them. The file's name is for messages only. All
// violations of all documents are found in one call.
func Decode(file string, data []byte, opt Options) *Batch {
	d := &decoder{file: file, opt: opt, batch: &Batch{}, first: map[Key]int{}}
	if d.opt.DefaultMesh == "" {
		d.opt.DefaultMesh = DefaultMesh
	}
	if len(data) > MaxBytes {
		d.batch.Violations = []Violation{{File: file, Line: 1, Column: 1, Message: fmt.Sprintf("larger than %d bytes", MaxBytes), Hint: "split it"}}
		return d.batch
	}
	for _, c := range split(bytes.TrimPrefix(data, []byte("\ufeff"))) {
		d.chunk(c)
	}
	d.batch.Violations = sortViolations(d.batch.Violations)
	return d.batch
}

type decoder struct {
	file  string
	opt   Options
	batch *Batch
	first map[Key]int // line of a key's first document
}

// chunk is the text between two document markers, with the number of lines before it.
type chunk struct {
	text []byte
	line int
}

// split cuts a stream at its document markers, so that broken syntax in one document hides no error in the others.
func split(data []byte) []chunk {
	var out []chunk
	start, begin, line := 0, 0, 0
	content := false // beyond directives and comments, which belong to the marker behind them
	for pos := 0; pos < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		l := data[pos:end]
		if bytes.HasPrefix(l, []byte("---")) && (len(l) == 3 || strings.IndexByte(" \t\r\n", l[3]) >= 0) && content {
			out = append(out, chunk{data[start:pos], begin})
			start, begin, content = pos, line, false
		} else if rest := bytes.TrimSpace(l); len(rest) > 0 && rest[0] != '%' && rest[0] != '#' && !bytes.Equal(rest, []byte("---")) {
			content = true
		}
		pos = end
		line++
	}
	if start < len(data) {
		out = append(out, chunk{data[start:], begin})
	}
	return out
}

func (d *decoder) chunk(c chunk) {
	if n := plainJSON(c.text); n != nil {
		budget := maxNodes
		d.document(n, c.line, 0, &budget)
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(c.text))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			d.batch.Violations = append(d.batch.Violations, syntaxViolation(d.file, c, err))
			return
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
			budget := maxNodes
			d.document(n.Content[0], c.line, 0, &budget)
		}
	}
}

// syntaxViolation gives the library's error a position. The library reports the line where a quoted text begins; people
// need the place of the escape in it.
func syntaxViolation(file string, c chunk, err error) Violation {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	v := Violation{File: file, Line: 1, Column: 1}
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, msg, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil && n > 0 {
				v.Line, text = n, msg
			}
		}
	}
	v.Message = "bad YAML: " + text
	switch {
	case strings.Contains(text, "unknown escape character"):
		if line, column, escape, ok := badEscape(c.text); ok {
			v.Line, v.Column = line, column
			v.Message = fmt.Sprintf("bad YAML: %s is no escape in a double-quoted text", escape)
		}
		v.Hint = `use single quotes, or double the backslash: \\`
	case strings.HasPrefix(text, "unknown anchor "):
		// The name may be a password that was left without quotes.
		v.Message, v.Hint = "bad YAML: an alias of an anchor that is nowhere", "put a text that begins with * in quotes"
	case strings.Contains(text, "cannot start any token") && strings.Contains(text, `'\t'`):
		v.Hint = "indent with spaces, not with tabs"
	case strings.Contains(text, "mapping values are not allowed"):
		v.Hint = "check the indentation, and put texts that hold \": \" in quotes"
	}
	v.Line += c.line
	return v
}

// badEscape finds the first backslash in a double-quoted text that begins no escape.
func badEscape(text []byte) (line, column int, escape string, ok bool) {
	const valid = "0abt\tnvfe \"'/\\N_LPxuU\r\n"
	line, column = 1, 0
	var quote byte
	before := byte(' ')
	for i := 0; i < len(text); i++ {
		b := text[i]
		if b == '\n' {
			line, column, before = line+1, 0, ' '
			continue
		}
		if b&0xc0 != 0x80 { // columns count characters
			column++
		}
		switch {
		case quote == '"' && b == '\\' && i+1 < len(text):
			if strings.IndexByte(valid, text[i+1]) < 0 {
				return line, column, strings.ToValidUTF8(string(text[i:i+2]), ""), true
			}
			if text[i+1] != '\n' {
				i++
				column++
			}
		case quote != 0:
			if b == quote {
				quote, before = 0, b
			}
		case b == '#' && (before == ' ' || before == '\t'):
			for i+1 < len(text) && text[i+1] != '\n' {
				i++
			}
		case (b == '"' || b == '\'') && strings.IndexByte(" \t[{,:", before) >= 0:
			quote = b
		default:
			before = b
		}
	}
	return 0, 0, "", false
}

// document decodes one document, or the items of a Kubernetes List.
func (d *decoder) document(n *yaml.Node, line, depth int, budget *int) {
	w := &walker{file: d.file, line: line, budget: budget, places: map[string]place{}, schema: d.opt.Schema}
	defer func() { d.batch.Violations = append(d.batch.Violations, w.violations...) }()
	at := place{line: n.Line, column: n.Column}
	n, ok := w.enter(n, at)
	if !ok || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		w.errorf(at, "", "expected a document with type or apiVersion, found %s", w.describe(n))
		return
	}
	e := &envelope{w: w, at: at, labels: map[string]string{}}
	e.entries = w.pairs(n, at, 0)
	apiVersion, hasVersion := e.text("apiVersion")
	if hasVersion {
		group, _, slash := strings.Cut(apiVersion, "/")
		if !slash || group != "kuma.io" && group != "zoneforge.io" {
			kind, _ := e.text("kind")
			if items := e.find("items"); kind == "List" && items != nil && items.Kind == yaml.SequenceNode && depth == 0 {
				for _, item := range items.Content {
					d.document(item, line, depth+1, budget)
				}
				return
			}
			d.note(line+at.line, "skipped "+strings.TrimSpace(kind+" "+e.metadataName()))
			return
		}
	}
	r, kind := d.resource(e, apiVersion, hasVersion)
	if r == nil {
		return
	}
	s := newScope(w)
	s.prefix = e.prefix
	checkKey(s, r)
	if kind.validate != nil && !w.spent {
		kind.validate(s, r)
	}
	if before, dup := d.first[r.Key]; dup {
		w.errorf(at, "remove one of them", "%s is there already, at line %d", r.Key, before)
	} else {
		d.first[r.Key] = line + at.line
	}
	if len(w.violations) == 0 {
		d.batch.Resources = append(d.batch.Resources, r)
	}
}

func (d *decoder) note(line int, text string) {
	d.batch.Notes = append(d.batch.Notes, Note{d.file, line, text})
}

// resource reads the envelope of either spelling and the spec in it; nil when the kind is not to be had.
func (d *decoder) resource(e *envelope, apiVersion string, kubernetes bool) (*Resource, *Kind) {
	w := e.w
	word := "type"
	if kubernetes {
		word = "kind"
	}
	name, ok := e.text(word)
	if !ok {
		if e.find(word) == nil {
			w.errorf(e.at, "begin it with apiVersion and kind, or with type", "the document has no %s", word)
		}
		return nil, nil
	}
	at := e.place(word)
	kind, ok := Lookup(name)
	if !ok {
		var names []string
		for _, k := range Kinds() {
			names = append(names, k.Name)
		}
		w.errorf(at, didYouMean(name, names), "unknown kind %q", name)
		return nil, nil
	}
	if kind.Writer == WriterSystem && !d.opt.System {
		w.errorf(at, "remove the document", "%s is written by control planes only", kind.Name)
		return nil, nil
	}
	if kind.Writer == WriterProxy && d.opt.RefuseProxy {
		w.errorf(at, "give the document to the proxy", "%s is presented by its proxy and cannot be applied", kind.Name)
		return nil, nil
	}
	if kubernetes && apiVersion != kind.APIVersion {
		w.errorf(e.place("apiVersion"), "", "%s is of apiVersion %s", kind.Name, kind.APIVersion)
	}
	w.secret = kind.Sensitive
	r := &Resource{Spec: kind.New()}
	r.Kind = kind.Name
	if kubernetes {
		e.kubernetes(d, r.Spec)
	} else {
		e.universal(r.Spec)
	}
	if kind.normalize != nil {
		kind.normalize(r.Spec)
	}
	r.Name = e.name
	if kind.Global() {
		if e.mesh != "" {
			w.errorf(e.meshAt, "remove it", "%s belongs to no mesh", kind.Name)
		}
	} else if r.Mesh = e.mesh; r.Mesh == "" {
		if r.Mesh = e.labels[labelMesh]; r.Mesh == "" {
			r.Mesh = d.opt.DefaultMesh
		}
	}
	if len(e.labels) > 0 {
		r.Labels = e.labels
	}
	return r, kind
}

// envelope is what stands around a spec.
type envelope struct {
	w       *walker
	at      place
	entries []pair
	labels  map[string]string
	name    string
	mesh    string
	meshAt  place
	prefix  string // of the spec's fields in paths: spec, or nothing
}

func (e *envelope) find(key string) *yaml.Node {
	for _, p := range e.entries {
		if p.key.Value == key {
			return p.value
		}
	}
	return nil
}

func (e *envelope) place(key string) place {
	if n := e.find(key); n != nil {
		return place{n.Line, n.Column, key, []string{key}}
	}
	return e.at
}

func (e *envelope) text(key string) (string, bool) {
	if n := e.find(key); n != nil {
		return e.string(n, place{n.Line, n.Column, key, []string{"\x00" + key}})
	}
	return "", false
}

func (e *envelope) string(n *yaml.Node, p place) (string, bool) {
	n, ok := e.w.enter(n, p)
	if !ok {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		e.w.errorf(p, "", "expected a text, found %s", e.w.describe(n))
		return "", false
	}
	e.w.places[pathKey(p.path)] = p
	return n.Value, true
}

// metadataName is for notes about documents of others: it complains about nothing.
func (e *envelope) metadataName() string {
	meta := e.find("metadata")
	if meta == nil || meta.Kind != yaml.MappingNode {
		return ""
	}
	for i := 0; i+1 < len(meta.Content); i += 2 {
		if meta.Content[i].Value == "name" {
			return meta.Content[i+1].Value
		}
	}
	return ""
}

func (e *envelope) setMesh(n *yaml.Node, p place) {
	mesh, ok := e.string(n, p)
	if !ok {
		return
	}
	if e.mesh != "" && e.mesh != mesh {
		e.w.errorf(p, "remove one of them", "the document names mesh %q elsewhere", e.mesh)
	}
	e.mesh, e.meshAt = mesh, p
	e.w.places[pathKey([]string{"\x00mesh"})] = p
}

func (e *envelope) setLabels(n *yaml.Node, p place) {
	n, ok := e.w.enter(n, p)
	if !ok || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		e.w.errorf(p, "", "expected a mapping, found %s", e.w.describe(n))
		return
	}
	for _, l := range e.w.pairs(n, p, 0) {
		if v, ok := e.string(l.value, p.entry(l.value, l.key.Value)); ok {
			e.labels[l.key.Value] = v
		}
	}
}

func (e *envelope) setName(n *yaml.Node, p place) {
	e.name, _ = e.string(n, p)
	e.w.places[pathKey([]string{"\x00name"})] = p
}

func (e *envelope) kubernetes(d *decoder, spec proto.Message) {
	w := e.w
	e.prefix = "spec"
	for _, p := range e.entries {
		key := p.key.Value
		at := place{p.value.Line, p.value.Column, key, []string{"\x00" + key}}
		switch key {
		case "apiVersion", "kind", "status":
		case "mesh":
			e.setMesh(p.value, at)
		case "metadata":
			e.metadata(d, p.value, at)
		case "spec":
			e.spec(p.value, at, spec)
		default:
			at.line, at.column = p.key.Line, p.key.Column
			w.errorf(at, didYouMean(key, []string{"apiVersion", "kind", "metadata", "spec", "mesh"}), "unknown field")
		}
	}
}

func (e *envelope) metadata(d *decoder, n *yaml.Node, p place) {
	n, ok := e.w.enter(n, p)
	if !ok {
		return
	}
	if n.Kind != yaml.MappingNode {
		e.w.errorf(p, "", "expected a mapping, found %s", e.w.describe(n))
		return
	}
	for _, m := range e.w.pairs(n, p, 0) {
		at := p.field(m.value, m.key.Value, m.key.Value)
		switch m.key.Value {
		case "name":
			e.setName(m.value, at)
		case "namespace":
			if ns, ok := e.string(m.value, at); ok && ns != "" {
				e.labels[LabelNamespace] = ns
			}
		case "labels":
			e.setLabels(m.value, at)
		case "annotations":
			d.note(e.w.line+m.key.Line, "metadata.annotations are not kept")
		case "creationTimestamp", "generation", "resourceVersion", "uid", "managedFields", "ownerReferences", "finalizers":
			// Kubernetes adds them to whatever it prints.
		default:
			at.line, at.column = m.key.Line, m.key.Column
			e.w.errorf(at, didYouMean(m.key.Value, []string{"name", "namespace", "labels", "annotations"}), "unknown field")
		}
	}
}

// spec decodes the spec, in which Kubernetes's spelling also names the mesh.
func (e *envelope) spec(n *yaml.Node, p place, spec proto.Message) {
	n, ok := e.w.enter(n, p)
	if !ok || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		e.w.errorf(p, "", "expected a mapping, found %s", e.w.describe(n))
		return
	}
	m := spec.ProtoReflect()
	root := place{p.line, p.column, p.display, nil}
	e.w.places[pathKey(nil)] = root
	var fields []pair
	for _, f := range e.w.pairs(n, root, 0) {
		if f.key.Value == "mesh" && findField(m.Descriptor(), "mesh") == nil {
			e.setMesh(f.value, p.field(f.value, "mesh", "mesh"))
			continue
		}
		fields = append(fields, f)
	}
	e.w.fields(fields, m, root)
}

func (e *envelope) universal(spec proto.Message) {
	root := place{e.at.line, e.at.column, "", nil}
	e.w.places[pathKey(nil)] = root
	var fields []pair
	for _, p := range e.entries {
		key := p.key.Value
		at := place{p.value.Line, p.value.Column, key, []string{"\x00" + key}}
		switch key {
		case "type", "creationTime", "modificationTime":
		case "mesh":
			e.setMesh(p.value, at)
		case "name":
			e.setName(p.value, at)
		case "labels":
			e.setLabels(p.value, at)
		case "spec":
			e.prefix = "spec"
			e.spec(p.value, at, spec)
		default:
			fields = append(fields, p)
		}
	}
	e.w.fields(fields, spec.ProtoReflect(), root)
}
