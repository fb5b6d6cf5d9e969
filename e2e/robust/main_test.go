package main

import (
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/e2e/history"
)

// TestPublished: figures go between the marks, again and again, and nowhere else.
func TestPublished(t *testing.T) {
	runs := []history.Run{{Suite: "federation", OK: true, Faults: map[string]int{"KDS: drop": 3}}}
	page := "before\n" + beginMark + "\nstale\n" + endMark + "\nafter\n"
	once, err := published(page, "on a machine", runs)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n", "\nafter\n", "Seen on a machine.", "| federation | KDS: drop | 3 |"} {
		if !strings.Contains(once, want) {
			t.Errorf("it lacks %q:\n%s", want, once)
		}
	}
	if strings.Contains(once, "stale") {
		t.Error("the old figures are still there")
	}
	if twice, err := published(once, "on a machine", runs); err != nil || twice != once {
		t.Errorf("publishing the same again changes the page: %v", err)
	}
	if _, err := published("no marks", "", runs); err == nil {
		t.Error("a page without marks was taken")
	}
	if _, err := published(page, "", nil); err == nil {
		t.Error("no figures were published")
	}
}

// TestUnknownSuite: a suite that isn't there is said, and nothing runs.
func TestUnknownSuite(t *testing.T) {
	var said strings.Builder
	if err := run(t.Context(), []string{"-minutes", "1", "-suite", "none", "-out", t.TempDir()}, &said); err == nil || !strings.Contains(err.Error(), `"none"`) {
		t.Errorf("%v", err)
	}
}
