package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPercentiles(t *testing.T) {
	l := newLatency("it")
	for i := range 1000 {
		l.add(time.Duration(i+1) * time.Millisecond)
	}
	for _, c := range []struct{ percentile, want float64 }{{50, 500}, {99, 990}, {100, 1000}} {
		// Three digits are kept.
		if got := l.at(c.percentile); math.Abs(got-c.want) > c.want/500 {
			t.Errorf("p%g = %g ms, want %g", c.percentile, got, c.want)
		}
	}
}

func TestLatencyOutOfBoundsCounts(t *testing.T) {
	l := newLatency("it")
	l.add(-time.Second)
	l.add(time.Hour)
	if n := l.h.TotalCount(); n != 2 {
		t.Fatalf("%d times were counted, want 2", n)
	}
	if got := l.at(100); math.Abs(got-600_000) > 1200 {
		t.Errorf("an hour counts as %g ms, want the most that is kept, 600000", got)
	}
}

func TestGoals(t *testing.T) {
	l := newLatency("it")
	for range 98 {
		l.add(10 * time.Millisecond)
	}
	l.add(200 * time.Millisecond)
	l.add(200 * time.Millisecond)
	rows := l.rows(30, 150)
	if len(rows) != 3 || rows[0].Metric != "it p50" || rows[1].Metric != "it p99" || rows[2].Metric != "it max" {
		t.Fatalf("rows %+v, want p50, p99 and max", rows)
	}
	if !rows[0].OK || rows[1].OK || !rows[2].OK {
		t.Errorf("ok of p50, p99, max: %v, %v, %v; want true, false, true", rows[0].OK, rows[1].OK, rows[2].OK)
	}
	if rows[2].Goal != nil {
		t.Error("max has a goal")
	}
	if r := row("lost", 0, "requests", 5).atMost(0); !r.OK || *r.Goal != 0 {
		t.Errorf("none lost of a goal of none: %+v", r)
	}
	if r := row("lost", 1, "requests", 5).atMost(0); r.OK {
		t.Errorf("one lost of a goal of none: %+v", r)
	}
}

// Others read the files, so their fields are held to the letter.
func TestFileFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out", "it.json")
	with := row("lost", 1.5, "requests", 5).atMost(0)
	with.Scenario, with.Machine, with.Commit = "it", "a machine", "abc"
	if err := writeJSON(path, []Row{with, row("plain", 2, "ms", 1)}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"scenario": "it", "metric": "lost", "value": 1.5, "unit": "requests", "goal": 0.0, "ok": false, "n": 5.0, "machine": "a machine", "commit": "abc"}
	if len(rows) != 2 || len(rows[0]) != len(want) {
		t.Fatalf("file holds %v", rows)
	}
	for k, v := range want {
		if rows[0][k] != v {
			t.Errorf("%s is %v, want %v", k, rows[0][k], v)
		}
	}
	if goal, there := rows[1]["goal"]; !there || goal != nil {
		t.Errorf("a row without a goal says %v", goal)
	}
}

func TestTableNamesWhatMissed(t *testing.T) {
	var out strings.Builder
	if err := writeTable(&out, []Row{row("good", 1.234, "ms", 7).atMost(30), row("bad", 31, "ms", 7).atMost(30), row("plain", 12345.6, "ms", 7)}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("table:\n%s", out.String())
	}
	for i, want := range []string{"UNIT", "1.23  ", "MISSED", "12346"} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %q lacks %q", lines[i], want)
		}
	}
}

func TestPublishReplacesFiguresAlone(t *testing.T) {
	page := "before\n" + productMarks.begin + "\nold\n" + productMarks.end + "\nafter\n"
	r := row("lost", 0, "requests", 5).atMost(0)
	r.Commit, r.Machine = "abc", "a machine"
	once, _, err := productMarks.published(page, "figures", []Row{r})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n", "\nafter\n", "| lost | 0 | requests | <= 0 | 5 | ok |", "`abc` on a machine.\n"} {
		if !strings.Contains(once, want) {
			t.Errorf("page lacks %q:\n%s", want, once)
		}
	}
	if strings.Contains(once, "old") {
		t.Error("the old figures are still there")
	}
	if twice, _, err := productMarks.published(once, "figures", []Row{r}); err != nil || twice != once {
		t.Errorf("publishing the same again changes the page: %v", err)
	}
	if _, _, err := productMarks.published("no marks", "figures", []Row{r}); err == nil {
		t.Error("a page without marks was taken")
	}
	if _, _, err := productMarks.published(page, "figures", nil); err == nil {
		t.Error("no figures were published")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-applies", "0"}, {"-scenario", "none"}, {"argument"}, {"-binary", filepath.Join(t.TempDir(), "missing")}} {
		if err := run(t.Context(), args, &strings.Builder{}); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
