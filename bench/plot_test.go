package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wellFormed reads an SVG to its end.
func wellFormed(t *testing.T, svg string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in:\n%s", err, svg)
		}
	}
}

func someRows() []Row {
	l := newLatency("backend <killed> to gone & forgotten in the other zone of both")
	for i := range 1000 {
		l.add(time.Duration(i+1) * 100 * time.Microsecond)
	}
	rows := append(l.rows(15, 60), row("lost", 0, "requests", 5).atMost(0), row("ratio", 0.9, "ratio", 5).atLeast(0.97), row("plain", 3, "ms", 1))
	for i := range rows {
		rows[i].Scenario, rows[i].Commit, rows[i].Machine = "endpoints", "abc", "a machine"
	}
	return rows
}

func TestPlots(t *testing.T) {
	rows := someRows()
	for _, svg := range []string{plotLatencies(rows), plotGoals(rows)} {
		wellFormed(t, svg)
	}
	if a, b := plotLatencies(rows), plotLatencies(rows); a != b || !strings.Contains(a, "&lt;killed&gt;") || strings.Count(a, "<polyline") != 1 {
		t.Errorf("plot:\n%s", a)
	}
	goals := plotGoals(rows)
	if n := strings.Count(goals, `fill="`+colours[2]+`"`); n != 1 { // lost alone is good: p50 is 50 ms, p99 99 ms
		t.Errorf("%d good figures in:\n%s", n, goals)
	}
	if n := strings.Count(goals, `fill="`+colours[1]+`"`); n != 3 {
		t.Errorf("%d missed goals in:\n%s", n, goals)
	}
	if plotLatencies(rows[3:]) != "" || plotGoals(rows[5:]) != "" {
		t.Error("there is a plot of nothing")
	}
}

func TestDistribution(t *testing.T) {
	d := someRows()[0].Distribution
	if first, last := d[0], d[len(d)-1]; first[0] != 0 || last[0] != 99.9 || last[1] < 99.9 || last[1] > 100.2 {
		t.Errorf("distribution %v", d)
	}
	for i := 1; i < len(d); i++ {
		if d[i][0] <= d[i-1][0] || d[i][1] < d[i-1][1] {
			t.Errorf("distribution %v is not in order", d)
		}
	}
	if one := newLatency("one"); len(one.rows(0, 0)[0].Distribution) != 1 {
		t.Error("a distribution of nothing has more than its end")
	}
}

// A page gets what was measured, whether just now or before, with the plots that it shows.
func TestPublishedPageShowsItsPlots(t *testing.T) {
	dir := t.TempDir()
	page, out := filepath.Join(dir, "performance.md"), filepath.Join(dir, "out")
	if err := os.WriteFile(page, []byte(productMarks.begin+"\n"+productMarks.end+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(filepath.Join(out, "endpoints.json"), someRows()); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	if err := run(t.Context(), []string{"-from", out, "-publish", page}, &said); !errors.Is(err, errMissed) {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"performance/product-goals.svg", "performance/product-endpoints.svg"} {
		if !strings.Contains(string(text), "]("+name+")") {
			t.Errorf("page does not show %s:\n%s", name, text)
		}
		svg, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, string(svg))
	}
	if !strings.Contains(string(text), "### endpoints\n") || !strings.Contains(string(text), "| lost | 0 | requests | <= 0 | 5 | ok |") {
		t.Errorf("page:\n%s", text)
	}
	if err := run(t.Context(), []string{"-from", filepath.Join(dir, "nothing")}, &said); err == nil {
		t.Error("figures of nowhere were shown")
	}
}
