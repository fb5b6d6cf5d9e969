package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// metricPrefix begins the names of our own metrics.
const metricPrefix = "zoneforge_"

// metrics makes the page of the metrics of both control planes from their code.
func metrics(root string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Metrics\n\n<!-- Generated from global/ and zone/ by `make docs`: edit those. -->\n" + `
Both control planes serve them as text for Prometheus at ` + "`/metrics`" + `, beside those of the Go runtime and of the process. Global asks for the
token of a viewer, a zone for none. Global's figures of zones carry the label ` + "`zone`" + `.
`)
	for _, folder := range []string{"global", "zone"} {
		found, err := metricsOf(filepath.Join(root, folder))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "\n## Of %s\n\n| Metric | What it says |\n|---|---|\n", folder)
		for _, name := range slices.Sorted(maps.Keys(found)) {
			fmt.Fprintf(&b, "| `%s` | %s |\n", name, cell(found[name]))
		}
	}
	return b.Bytes(), nil
}

// metricsOf finds names and helps in a folder: in prometheus.NewDesc, in fields Name and Help, and in calls of the local helpers
// gauge and counter, whose names begin with that of the folder.
func metricsOf(folder string) (map[string]string, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	add := func(name, help ast.Expr, prefix string) {
		n, h := text(name), text(help)
		if n = prefix + n; h != "" && strings.HasPrefix(n, metricPrefix) {
			out[n] = h
		}
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if len(n.Args) < 2 {
					break
				}
				switch f := n.Fun.(type) {
				case *ast.SelectorExpr:
					if f.Sel.Name == "NewDesc" {
						add(n.Args[0], n.Args[1], "")
					}
				case *ast.Ident:
					if f.Name == "gauge" || f.Name == "counter" {
						add(n.Args[0], n.Args[1], metricPrefix+filepath.Base(folder)+"_")
					}
				}
			case *ast.CompositeLit:
				var name, help ast.Expr
				for _, e := range n.Elts {
					kv, ok := e.(*ast.KeyValueExpr)
					if !ok {
						continue
					}
					switch key, _ := kv.Key.(*ast.Ident); {
					case key == nil:
					case key.Name == "Name":
						name = kv.Value
					case key.Name == "Help":
						help = kv.Value
					}
				}
				add(name, help, "")
			}
			return true
		})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no metric found in %s", folder)
	}
	return out, nil
}

// text is the value of a literal; empty for anything else.
func text(e ast.Expr) string {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return ""
	}
	s, err := strconv.Unquote(l.Value)
	if err != nil {
		return ""
	}
	return s
}
