package history

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLeave: each run leaves its figures, one that failed also its history, and the sums are those of all.
func TestLeave(t *testing.T) {
	out := t.TempDir()
	t.Setenv(OutVariable, out)
	for seed, ok := range []bool{true, false} {
		h := good()
		h.Fault("drop")
		h.Converged = time.Duration(seed+1) * time.Second
		dir, err := h.Leave(h.Run("processes", int64(seed), ok), map[string]string{"log.txt": "said"})
		if err != nil {
			t.Fatal(err)
		}
		if ok != (dir == "") {
			t.Errorf("a run with ok %v left its history in %q", ok, dir)
		}
		if ok {
			continue
		}
		for _, name := range []string{"history.jsonl", "log.txt"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
	runs, err := ReadRuns(out)
	if err != nil || len(runs) != 2 {
		t.Fatalf("%d runs: %v", len(runs), err)
	}
	for _, want := range []string{"| processes | 2 | 1 | 2 | 4 | 0 | 202 | 0 | 2s |", "| processes | drop | 2 |"} {
		if got := Sum(runs); !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %s", got, want)
		}
	}
	if none, err := ReadRuns(t.TempDir()); err != nil || len(none) != 0 {
		t.Errorf("%v, %v", none, err)
	}
}
