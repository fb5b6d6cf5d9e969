package resource

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the canonical spelling in testdata/kinds")

// A case of testdata/kinds, named for a kind's plural, holds one resource in both spellings, with the names of fields that
// people bring along, and the canonical spelling that both are stored as. Each kind that is not a control plane's own has one.
func TestKindsInBothSpellings(t *testing.T) {
	cases := map[string]bool{}
	for _, kind := range Kinds() {
		if kind.Writer == WriterSystem {
			continue
		}
		path := filepath.Join("testdata", "kinds", kind.Plural+".txtar")
		cases[path] = true
		t.Run(kind.Plural, func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatalf("%s needs a golden case with universal.yaml, kubernetes.yaml and canonical.yaml: %v", kind.Name, err)
			}
			if names := fileNames(archive); names != "universal.yaml kubernetes.yaml canonical.yaml" {
				t.Fatalf("%s holds %s, want universal.yaml kubernetes.yaml canonical.yaml", path, names)
			}
			for i := range archive.Files[:2] {
				written := &archive.Files[i]
				got := canonical(t, kind, written)
				if *update && i == 0 {
					archive.Files[2].Data = got
					if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if want := archive.Files[2].Data; !bytes.Equal(got, want) {
					t.Errorf("%s of %s (rewrite with -update and read the diff):\ngot\n%swant\n%s", written.Name, path, got, want)
				}
			}
			if got := canonical(t, kind, &archive.Files[2]); !bytes.Equal(got, archive.Files[2].Data) {
				t.Errorf("the canonical spelling is read as another:\n%s", got)
			}
		})
	}
	found, err := filepath.Glob(filepath.Join("testdata", "kinds", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if !cases[path] {
			t.Errorf("%s belongs to no kind; name it PLURAL.txtar or remove it", path)
		}
	}
}

// canonical decodes a document that must hold one valid resource of the kind.
func canonical(t *testing.T, kind *Kind, file *txtar.File) []byte {
	t.Helper()
	batch := Decode(file.Name, file.Data, Options{})
	if err := batch.Err(); err != nil {
		t.Fatal(err)
	}
	if len(batch.Resources) != 1 || batch.Resources[0].Kind != kind.Name {
		t.Fatalf("%s holds %v, want one %s", file.Name, batch.Resources, kind.Name)
	}
	out, err := EncodeYAML(batch.Resources[0], WithSecrets())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func fileNames(a *txtar.Archive) string {
	var names []string
	for _, f := range a.Files {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}
