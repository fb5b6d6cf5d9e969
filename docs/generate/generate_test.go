package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/zoneforge/zoneforge/resource"
)

const root = "../.."

func pages(t *testing.T) map[string][]byte {
	t.Helper()
	out, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The pages in the tree are what their sources give.
func TestPagesAreFresh(t *testing.T) {
	want := pages(t)
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(root, "docs", filepath.FromSlash(name)))
		if err != nil {
			t.Errorf("%v (run make docs)", err)
		} else if !bytes.Equal(got, text) {
			t.Errorf("docs/%s is not what its sources give (run make docs)", name)
		}
	}
	found, err := filepath.Glob(filepath.Join(root, "docs", "resources", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if want["resources/"+filepath.Base(path)] == nil {
			t.Errorf("%s belongs to no kind (run make docs)", path)
		}
	}
}

// Registering a kind is not all: people need a page and an example, and its spellings a golden case.
func TestEachKindHasPageExampleAndGoldenCase(t *testing.T) {
	for _, kind := range kinds() {
		if _, err := os.Stat(filepath.Join(root, "docs", "resources", kind.Plural+".md")); err != nil {
			t.Errorf("%s has no page (run make docs): %v", kind.Name, err)
		}
		if _, err := example(root, kind.Plural); err != nil {
			t.Errorf("%s has no example: %v", kind.Name, err)
		}
		if _, err := os.Stat(filepath.Join(root, "resource", "testdata", "kinds", kind.Plural+".txtar")); err != nil {
			t.Errorf("%s has no golden case of both spellings: %v", kind.Name, err)
		}
		if kind.Summary == "" {
			t.Errorf("%s has no summary", kind.Name)
		}
	}
}

// An example that is missing, broken or of another kind makes no page.
func TestBadExamplesAreRefused(t *testing.T) {
	descriptors, err := describe(root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := readSchema(descriptors)
	if err != nil {
		t.Fatal(err)
	}
	kind, _ := resource.Lookup("Zone")
	for _, text := range []string{"", "type: Zone\nname: East\n", "type: Mesh\nname: default\n", "type: Zone\nname: east\nenable: true\n"} {
		if _, err := page(s, kind, []byte(text)); err == nil {
			t.Errorf("a page was made of %q", text)
		}
	}
	if _, err := render(s, func(string) ([]byte, error) { return nil, os.ErrNotExist }); err == nil || !strings.Contains(err.Error(), "needs an example") {
		t.Errorf("a kind without example gives %v", err)
	}
}

// Each field is described by a comment in proto/.
func TestEachFieldIsDescribed(t *testing.T) {
	descriptors, err := describe(root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := readSchema(descriptors)
	if err != nil {
		t.Fatal(err)
	}
	var all []protoreflect.MessageDescriptor
	for _, kind := range kinds() {
		spec, err := s.spec(kind)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, spec)
	}
	for _, name := range shared {
		m, err := s.message(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	for _, m := range all {
		if comment(m) == "" {
			t.Errorf("message %s has no comment", m.FullName())
		}
		for _, f := range fields(m) {
			if f.description == "" {
				t.Errorf("%s: field %s has no comment in proto/", m.Name(), f.path)
			}
		}
	}
}

func TestFallback(t *testing.T) {
	for text, want := range map[string]string{
		"Port of the workload; default: port.":                                       "port",
		"Address of the workload; default 127.0.0.1.":                                "127.0.0.1",
		"Lifetime; renewed at half of it. Default 24h, at least 1m, at most 720h.":   "24h",
		"STRICT (the default) refuses plaintext; PERMISSIVE also takes it.":          "STRICT",
		"ALLOW is the default.":                                                      "ALLOW",
		"Conditions. Default: gateway_error, connect_failure, refused_stream.":       "gateway_error, connect_failure, refused_stream",
		"From start to end of a stream; default 0s (none).":                          "0s (none)",
		"To establish a connection; default 5s; must be above 0.":                    "5s",
		"Share of requests; default 1 where the rule has no weights; 0 takes none.":  "1 where the rule has no weights",
		"Tags of the destination; kuma.io/service is required, others make a subset": "",
	} {
		if got := fallback(text); got != want {
			t.Errorf("%q has the default %q, want %q", text, got, want)
		}
	}
}

func TestEnumsAreSpelledAsTheyAreWritten(t *testing.T) {
	kind, _ := resource.Lookup("MeshGateway")
	d := kind.New().ProtoReflect().Descriptor()
	e := d.Enums().ByName(protoreflect.Name("Protocol"))
	if got := enumWords(e); !slices.Equal(got, []string{"`HTTP`", "`HTTPS`", "`TCP`", "`TLS`"}) {
		t.Errorf("got %v", got)
	}
}
