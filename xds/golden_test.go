package xds

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/ir"
)

var update = flag.Bool("update", false, "rewrite what the golden cases expect")

const (
	inputFile = "ir.json"
	wantFile  = "envoy.json"
)

// goldenInput is what a case gives.
type goldenInput struct {
	Proxy     ir.Proxy
	Endpoints []ir.Endpoints
}

// goldenCase is one txtar file of testdata.
type goldenCase struct {
	path    string
	archive *txtar.Archive
	input   goldenInput
}

func goldenCases(t *testing.T) []goldenCase {
	t.Helper()
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	for _, e := range entries {
		path := filepath.Join("testdata", e.Name())
		if e.IsDir() || filepath.Ext(path) != ".txtar" {
			t.Errorf("%s belongs to no golden case: remove it", path)
			continue
		}
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c := goldenCase{path: path, archive: archive}
		for _, f := range archive.Files {
			if f.Name != inputFile && f.Name != wantFile {
				t.Errorf("%s: file %s is read by no test: remove it", path, f.Name)
			}
		}
		decoder := json.NewDecoder(bytes.NewReader(c.file(inputFile)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&c.input); err != nil {
			t.Fatalf("%s: %s: %v", path, inputFile, err)
		}
		cases = append(cases, c)
	}
	if len(cases) == 0 {
		t.Fatal("testdata has no golden case")
	}
	return cases
}

func (c goldenCase) name() string { return strings.TrimSuffix(filepath.Base(c.path), ".txtar") }

func (c goldenCase) file(name string) []byte {
	for _, f := range c.archive.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

func (c goldenCase) setFile(name string, data []byte) {
	for i := range c.archive.Files {
		if c.archive.Files[i].Name == name {
			c.archive.Files[i].Data = data
			return
		}
	}
	c.archive.Files = append(c.archive.Files, txtar.File{Name: name, Data: data})
}

// resources builds all of the case, in the order of the golden file.
func (c goldenCase) resources(t *testing.T) []*Resource {
	t.Helper()
	rs, err := Build(&c.input.Proxy)
	if err != nil {
		t.Fatalf("%s: %v", c.path, err)
	}
	all := slices.Concat(rs.Listeners, rs.Routes, rs.Clusters, rs.Extensions)
	for i := range c.input.Endpoints {
		r, err := BuildEndpoints(&c.input.Endpoints[i])
		if err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		all = append(all, r)
	}
	return all
}

func message(t *testing.T, r *Resource) proto.Message {
	t.Helper()
	m, err := r.Any().UnmarshalNew()
	if err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	return m
}

// printed is protojson with the spacing of encoding/json, as protojson's own is random on purpose.
func printed(t *testing.T, all []*Resource) []byte {
	t.Helper()
	var list []json.RawMessage
	for _, r := range all {
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(r.Any())
		if err != nil {
			t.Fatalf("%s: %v", r, err)
		}
		list = append(list, raw)
	}
	out, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

func TestGolden(t *testing.T) {
	for _, c := range goldenCases(t) {
		t.Run(c.name(), func(t *testing.T) {
			all := c.resources(t)
			for _, r := range all {
				m, ok := message(t, r).(validated)
				if !ok {
					t.Fatalf("%s can't be validated", r)
				}
				if err := m.ValidateAll(); err != nil {
					t.Errorf("%s: %v", r, err)
				}
			}
			got := printed(t, all)
			if *update {
				c.setFile(wantFile, got)
				if err := os.WriteFile(c.path, txtar.Format(c.archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := c.file(wantFile); !bytes.Equal(got, want) {
				t.Errorf("resources differ from %s in %s (go test -update rewrites it); got:\n%s", wantFile, c.path, got)
			}
		})
	}
}

// TestDeterminism builds each case often: equal input must give equal bytes, whatever order maps are walked in and
// listeners, routes and clusters come in.
func TestDeterminism(t *testing.T) {
	for _, c := range goldenCases(t) {
		first := c.resources(t)
		reversed := c
		reversed.input.Proxy.Listeners = backwards(c.input.Proxy.Listeners)
		reversed.input.Proxy.Routes = backwards(c.input.Proxy.Routes)
		reversed.input.Proxy.Clusters = backwards(c.input.Proxy.Clusters)
		for range 20 {
			for _, again := range [][]*Resource{c.resources(t), reversed.resources(t)} {
				for i := range first {
					if first[i].Name != again[i].Name || !bytes.Equal(first[i].Any().Value, again[i].Any().Value) {
						t.Fatalf("%s: %s and %s differ", c.path, first[i], again[i])
					}
				}
			}
		}
	}
}

func backwards[T any](list []T) []T {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}
