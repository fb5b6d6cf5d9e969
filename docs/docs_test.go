// The tests of this file hold the pages of docs that people write to the code: what they list must be there, and what is there
// must be listed.
package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// calls gives each call in the Go files of a folder, but not in their tests.
func calls(t *testing.T, folder string, each func(*ast.CallExpr)) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no Go file in %s: %v", folder, err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				each(call)
			}
			return true
		})
	}
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// statuses are the numbers of net/http's constants by their names.
func statuses() map[string]int {
	out := map[string]int{}
	for n := range 600 {
		if text := http.StatusText(n); text != "" {
			out["Status"+strings.NewReplacer(" ", "", "-", "").Replace(text)] = n
		}
	}
	return out
}

func TestProblemCodesAreListed(t *testing.T) {
	numbers, inCode := statuses(), map[string]int{}
	calls(t, "../global/rest", func(call *ast.CallExpr) {
		f, ok := call.Fun.(*ast.Ident)
		if !ok || f.Name != "newProblem" {
			return
		}
		status, ok := call.Args[0].(*ast.SelectorExpr)
		code, literally := literal(call.Args[1])
		if !ok || !literally {
			t.Error("newProblem is called without a constant status and code, so that no test can know them")
			return
		}
		number := numbers[status.Sel.Name]
		if number == 0 {
			t.Errorf("http.%s has no number that this test knows", status.Sel.Name)
		}
		if other := inCode[code]; other != 0 && other != number {
			t.Errorf("code %s has the statuses %d and %d", code, other, number)
		}
		inCode[code] = number
	})
	if len(inCode) == 0 {
		t.Fatal("no problem found in global/rest")
	}
	inPage := map[string]int{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([0-9]{3}) \\|").FindAllStringSubmatch(read(t, "rest.md"), -1) {
		inPage[m[1]], _ = strconv.Atoi(m[2])
	}
	for code, status := range inCode {
		if inPage[code] != status {
			t.Errorf("rest.md gives code %s the status %d, global/rest %d", code, inPage[code], status)
		}
	}
	for code := range inPage {
		if inCode[code] == 0 {
			t.Errorf("rest.md lists code %s, which global/rest never gives", code)
		}
	}
}

func TestRoutesAreListed(t *testing.T) {
	page := read(t, "rest.md")
	routes := map[string]bool{"/": true} // what answers all else
	calls(t, "../global/rest", func(call *ast.CallExpr) {
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || f.Sel.Name != "HandleFunc" && f.Sel.Name != "Handle" {
			return
		}
		route, ok := literal(call.Args[0])
		if !ok {
			t.Error("a route is registered that is no constant, so that no test can know it")
			return
		}
		routes[route] = true
		if route != "/" && !strings.Contains(page, "| `"+route+"` |") {
			t.Errorf("rest.md doesn't list the route %s", route)
		}
	})
	for _, m := range regexp.MustCompile("(?m)^\\| `(/[^`]+)` \\|").FindAllStringSubmatch(page, -1) {
		if !routes[m[1]] {
			t.Errorf("rest.md lists the route %s, which global/rest doesn't have", m[1])
		}
	}
}

// reference is how a page names what holds a statement: a script, or a file with a test.
var reference = regexp.MustCompile("`([a-z][a-z0-9/]*/(?:[a-z0-9_]+_test\\.go|testdata/[a-z0-9]+\\.txt))`(?: ((?:Test|Fuzz)[A-Za-z0-9]+))?")

// Each statement in a table of guarantees names what holds it.
func TestGuaranteesAreHeld(t *testing.T) {
	for page, head := range map[string]string{"kds.md": "| Guarantee | Held by |", "guarantees.md": "| Guarantee | Held by |", "policies.md": "| Rule | Test |"} {
		rows := 0
		_, table, _ := strings.Cut(read(t, page), head)
		for line := range strings.Lines(table) {
			if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
				continue
			}
			rows++
			found := reference.FindAllStringSubmatch(line, -1)
			if len(found) == 0 {
				t.Errorf("%s: no test is named in: %s", page, line)
			}
			for _, m := range found {
				text := read(t, filepath.Join("..", m[1]))
				if strings.HasSuffix(m[1], ".go") && (m[2] == "" || !strings.Contains(text, "\nfunc "+m[2]+"(")) {
					t.Errorf("%s: %s holds no test %q: %s", page, m[1], m[2], line)
				}
			}
		}
		if rows < 10 {
			t.Errorf("%d guarantees found in %s", rows, page)
		}
	}
}

// Each script of the protocol is some guarantee's.
func TestScriptsAreListed(t *testing.T) {
	table := read(t, "kds.md")
	scripts, err := filepath.Glob("../sync/kds/testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		if !strings.Contains(table, "sync/kds/testdata/"+filepath.Base(script)) {
			t.Errorf("kds.md names no guarantee that %s holds", script)
		}
	}
}

// Each frame of the protocol is in kds.md.
func TestFramesAreListed(t *testing.T) {
	page := read(t, "kds.md")
	proto := read(t, "../proto/kds/v1/kds.proto")
	for _, name := range []string{"ZoneFrame", "GlobalFrame"} {
		_, body, ok := strings.Cut(proto, "message "+name+" {")
		body, _, _ = strings.Cut(body, "\n}")
		frames := regexp.MustCompile(`(?m)^ {4}([A-Za-z]+) [a-z_]+ = [0-9]+;`).FindAllStringSubmatch(body, -1)
		if !ok || len(frames) == 0 {
			t.Fatalf("no frame found in %s", name)
		}
		for _, f := range frames {
			frame := strings.TrimPrefix(strings.TrimPrefix(f[1], "Zone"), "Global")
			if !strings.Contains(page, "| "+frame+" |") {
				t.Errorf("kds.md doesn't list %s of %s", f[1], name)
			}
		}
	}
}

// Each page can be found from the first one.
func TestPagesAreLinked(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	index := read(t, "README.md")
	for _, page := range pages {
		if page != "README.md" && !strings.Contains(index, "]("+page+")") {
			t.Errorf("README.md doesn't link %s", page)
		}
	}
}

func TestLinksLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	var pages []string
	for _, pattern := range []string{"*.md", "resources/*.md", "../*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", page, m[1])
			}
		}
	}
}
