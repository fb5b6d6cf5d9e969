// The tests of this file hold the plan of the house: which package may import which, that every package says what it owns,
// and that no test waits by sleeping.
package zoneforge_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/zoneforge/zoneforge/"

// imports is the import table: the packages of this project that each folder may use, besides those of its own folder.
// Dependencies point one way, see ARCHITECTURE.md. A folder that is not here must not exist.
var imports = map[string][]string{
	"proto":       {},
	"ir":          {},
	"composition": {},
	"backup":      {},
	"resource":    {"proto", "composition"},
	"policy":      {"ir", "resource", "proto"},
	"pki":         {},
	"ingress":     {"policy", "ir", "resource", "proto"},
	"xds":         {"ir"},
	"sync":        {"resource", "proto"},
	"global":      {"backup", "sync", "gossip", "overload", "pki", "resource", "proto"},
	"dataplane":   {"proto", "resource", "composition"},
	"zone":        {"ingress", "xds", "sync", "pki", "gossip", "overload", "policy", "ir", "composition", "resource", "proto"},
	"gossip":      {},
	"overload":    {},
	"config":      {},
	"cli":         {"backup", "config", "resource", "proto"},
	"docs":        {"config", "resource", "proto"},
	"deploy":      {"ingress", "pki", "resource", "zone"},
	"e2e":         {},
	"bench":       {"dataplane", "deploy", "ingress", "pki", "proto", "resource", "sync", "xds"},
	"cmd":         {"backup", "cli", "config", "dataplane", "global", "zone", "resource", "proto", "deploy", "xds"},
}

// pure packages do no I/O, start no goroutine, read no clock and take no logger, so they need none of these.
var pure = map[string]bool{"resource": true, "policy": true, "ir": true, "composition": true, "ingress": true, "xds": true, "sync/kds": true, "zone/proxyir": true, "zone/state": true}

var impure = []string{"os", "net", "net/http", "os/exec", "go.uber.org/zap", "google.golang.org/grpc", "context"}

// envoyAPI may be imported below these folders alone.
const envoyAPI = "github.com/envoyproxy/go-control-plane/"

var envoyUsers = []string{"xds", "dataplane", "bench", "deploy"}

func TestImportTable(t *testing.T) {
	eachGoFile(t, func(path string, importPaths []string) {
		folder := filepath.ToSlash(filepath.Dir(path))
		top, _, _ := strings.Cut(folder, "/")
		allowed, known := imports[top]
		if !known {
			t.Errorf("%s: folder %s is not in the import table; add it with the packages it may use", path, top)
			return
		}
		for _, imported := range importPaths {
			if strings.HasPrefix(imported, envoyAPI) && !slices.Contains(envoyUsers, top) {
				t.Errorf("%s imports %s: Envoy's API belongs to %v alone", path, imported, envoyUsers)
			}
			if pure[folder] && slices.Contains(impure, imported) {
				t.Errorf("%s imports %s: %s is pure (no I/O, goroutine, clock or logger)", path, imported, folder)
			}
			inner, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			target, _, _ := strings.Cut(inner, "/")
			if target != top && !slices.Contains(allowed, target) {
				t.Errorf("%s imports %s: %s may use %v", path, imported, top, allowed)
			}
		}
	})
}

func TestEveryPackageSaysWhatItOwns(t *testing.T) {
	documented := map[string]bool{}
	fset := token.NewFileSet()
	eachGoFile(t, func(path string, _ []string) {
		dir := filepath.Dir(path)
		if strings.HasSuffix(path, ".pb.go") {
			return
		}
		file, err := parser.ParseFile(fset, path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		documented[dir] = documented[dir] || file.Doc != nil && len(file.Doc.Text()) > 60
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no comment that says what it owns and what it never does", dir)
		}
	}
}

func TestNoTestSleeps(t *testing.T) {
	fset := token.NewFileSet()
	walk(t, func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Sleep" {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" {
				t.Errorf("%s: a test waits for a condition, never by time.Sleep", fset.Position(sel.Pos()))
			}
			return true
		})
	})
}

// eachGoFile calls f for each Go file that is not a test.
func eachGoFile(t *testing.T, f func(path string, imports []string)) {
	t.Helper()
	fset := token.NewFileSet()
	walk(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for _, spec := range file.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, p)
		}
		f(filepath.ToSlash(path), paths)
	})
}

func walk(t *testing.T, f func(path string)) {
	t.Helper()
	if err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "bin") {
			return fs.SkipDir
		}
		if !entry.IsDir() && strings.HasSuffix(path, ".go") {
			f(path)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
