package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// OutVariable names the directory in which runs leave what they saw. Without it, only a run that fails leaves anything, in a new
// temporary directory.
const OutVariable = "ZONEFORGE_ROBUST_OUT"

const runsFile = "runs.jsonl"

// Run are the figures of one run.
type Run struct {
	Suite  string         `json:"suite"`
	Seed   int64          `json:"seed"`
	OK     bool           `json:"ok"`
	Faults map[string]int `json:"faults"`
	// Changes that were acknowledged, and those of which the outcome was not told.
	Changes int `json:"changes"`
	Untold  int `json:"untold"`
	// Requests that were sent, Lost although a working path existed, and Without one.
	Requests int `json:"requests"`
	Lost     int `json:"lost"`
	Without  int `json:"without"`
	// Converged is how long the last change took to be live everywhere after the end of faults.
	Converged time.Duration `json:"converged"`
}

// Run sums up the history.
func (h *History) Run(suite string, seed int64, ok bool) Run {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := Run{Suite: suite, Seed: seed, OK: ok, Faults: maps.Clone(h.faults), Converged: h.Converged}
	for _, a := range h.Attempts {
		if a.Acked {
			r.Changes++
		} else {
			r.Untold++
		}
	}
	for _, q := range h.Requests {
		r.Requests += q.Count
		switch {
		case q.Lost == "":
		case q.Without == "":
			r.Lost += q.Count
		default:
			r.Without += q.Count
		}
	}
	return r
}

// Leave puts the figures of a run into the directory of OutVariable, and of one that failed also the history and the files given. It
// returns where these are.
func (h *History) Leave(run Run, files map[string]string) (dir string, err error) {
	out := os.Getenv(OutVariable)
	if out != "" {
		if err := appendRun(filepath.Join(out, runsFile), run); err != nil {
			return "", err
		}
	}
	if run.OK {
		return "", nil
	}
	if out == "" {
		if out, err = os.MkdirTemp("", "zoneforge-robust-"); err != nil {
			return "", fmt.Errorf("artefacts: %w", err)
		}
	}
	dir = filepath.Join(out, fmt.Sprintf("%s-%d", run.Suite, run.Seed))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("artefacts: %w", err)
	}
	errs := []error{h.WriteFile(filepath.Join(dir, "history.jsonl"))}
	for name, text := range files {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir, errors.Join(errs...)
}

func appendRun(path string, run Run) error {
	line, err := json.Marshal(run)
	if err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// ReadRuns are those that were left in a directory; none when there is no such file.
func ReadRuns(dir string) (runs []Run, err error) {
	text, err := os.ReadFile(filepath.Join(dir, runsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("figures: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		var r Run
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("figures: %s: %w", runsFile, err)
		}
		runs = append(runs, r)
	}
	return runs, nil
}

// Sum adds up the runs of each suite.
func Sum(runs []Run) string {
	suites := map[string][]Run{}
	for _, r := range runs {
		suites[r.Suite] = append(suites[r.Suite], r)
	}
	var b strings.Builder
	b.WriteString("| suite | runs | runs that broke a guarantee | faults | changes acknowledged | changes of untold outcome | requests | requests lost | longest time to converge |\n" +
		"|---|---|---|---|---|---|---|---|---|\n")
	kinds := map[string]map[string]int{}
	for _, suite := range slices.Sorted(maps.Keys(suites)) {
		var all Run
		broken, faults := 0, 0
		kinds[suite] = map[string]int{}
		for _, r := range suites[suite] {
			if !r.OK {
				broken++
			}
			all.Changes, all.Untold = all.Changes+r.Changes, all.Untold+r.Untold
			all.Requests, all.Lost = all.Requests+r.Requests, all.Lost+r.Lost
			all.Converged = max(all.Converged, r.Converged)
			for kind, n := range r.Faults {
				kinds[suite][kind] += n
				faults += n
			}
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d | %s |\n", suite, len(suites[suite]), broken, faults, all.Changes, all.Untold, all.Requests, all.Lost,
			all.Converged.Round(time.Millisecond))
	}
	b.WriteString("\n| suite | fault | times |\n|---|---|---|\n")
	for _, suite := range slices.Sorted(maps.Keys(kinds)) {
		for _, kind := range slices.Sorted(maps.Keys(kinds[suite])) {
			fmt.Fprintf(&b, "| %s | %s | %d |\n", suite, kind, kinds[suite][kind])
		}
	}
	return b.String()
}
