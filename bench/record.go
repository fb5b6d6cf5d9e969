package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Row is one line of the published table.
type Row struct {
	Scenario string  `json:"scenario"`
	Metric   string  `json:"metric"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	// Goal is the largest value that is good, in Unit, or the smallest where Least is set; null where there is none, and then OK is true.
	Goal  *float64 `json:"goal"`
	Least bool     `json:"least,omitempty"`
	OK    bool     `json:"ok"`
	// N is how often was measured.
	N int64 `json:"n"`
	// Size is that of what was measured, of rows that are compared by it; Series is what they are of.
	Series string  `json:"series,omitempty"`
	Size   float64 `json:"size,omitempty"`
	// Distribution is all of what Value is a percentile of: percentiles, and the values within which they lie.
	Distribution [][2]float64 `json:"distribution,omitempty"`

	Machine string `json:"machine"`
	Commit  string `json:"commit"`
}

func row(metric string, value float64, unit string, n int64) Row {
	return Row{Metric: metric, Value: value, Unit: unit, OK: true, N: n}
}

// atMost sets the goal of a row.
func (r Row) atMost(goal float64) Row {
	r.Goal, r.OK = &goal, r.Value <= goal
	return r
}

// atLeast sets the goal of a row of which more is better.
func (r Row) atLeast(goal float64) Row {
	r.Goal, r.Least, r.OK = &goal, true, r.Value >= goal
	return r
}

// ofSize makes a row one of those that are compared by size.
func (r Row) ofSize(series string, size int) Row {
	r.Series, r.Size = series, float64(size)
	return r
}

// maxLatency is the longest that is told apart from longer.
const maxLatency = 10 * time.Minute

// latency gathers times to a microsecond, with three digits.
type latency struct {
	name string
	h    *hdrhistogram.Histogram
}

func newLatency(name string) *latency {
	return &latency{name, hdrhistogram.New(1, maxLatency.Microseconds(), 3)}
}

// add counts a time; those beyond maxLatency count as that.
func (l *latency) add(d time.Duration) {
	_ = l.h.RecordValue(min(max(d, 0), maxLatency).Microseconds()) // within the histogram's bounds
}

// at is the time within which a percentage of all was done, in milliseconds.
func (l *latency) at(percentile float64) float64 {
	return milliseconds(l.h.ValueAtPercentile(percentile))
}

// rows are the median, the 99th percentile and the longest; a goal of 0 is none.
func (l *latency) rows(goal50, goal99 float64) []Row {
	n := l.h.TotalCount()
	p50, p99 := row(l.name+" p50", l.at(50), "ms", n), row(l.name+" p99", l.at(99), "ms", n)
	if goal50 > 0 {
		p50 = p50.atMost(goal50)
	}
	if goal99 > 0 {
		p99 = p99.atMost(goal99)
	}
	p50.Distribution = l.distribution()
	return []Row{p50, p99, row(l.name+" max", milliseconds(l.h.Max()), "ms", n)}
}

// percentiles are those that a distribution is told by; of n times the last that means something is the (1-1/n)-th.
var percentiles = []float64{0, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.75, 99.9, 99.95, 99.99}

func (l *latency) distribution() (out [][2]float64) {
	last := 100 * (1 - 1/float64(max(l.h.TotalCount(), 1)))
	for _, p := range percentiles {
		if p >= last {
			break
		}
		out = append(out, [2]float64{p, l.at(p)})
	}
	return append(out, [2]float64{last, milliseconds(l.h.Max())})
}

func milliseconds(micro int64) float64 { return float64(micro) / 1000 }

func (r Row) goal() string {
	if r.Goal == nil {
		return ""
	}
	if r.Least {
		return ">= " + number(*r.Goal)
	}
	return "<= " + number(*r.Goal)
}

func (r Row) verdict() string {
	switch {
	case r.Goal == nil:
		return ""
	case r.OK:
		return "ok"
	}
	return "MISSED"
}

// value is the figure, of a ratio with a digit more, as its goal may be near 1.
func (r Row) value() string {
	if r.Unit == "ratio" {
		return fmt.Sprintf("%.3f", r.Value)
	}
	return number(r.Value)
}

// number writes a figure with no more digits than it deserves.
func number(v float64) string {
	if v == float64(int64(v)) {
		return fmt.Sprintf("%d", int64(v))
	}
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func writeTable(out io.Writer, rows []Row) error {
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SCENARIO\tMETRIC\tVALUE\tUNIT\tGOAL\tN\t")
	for _, r := range rows {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", r.Scenario, r.Metric, r.value(), r.Unit, r.goal(), r.N, r.verdict())
	}
	return table.Flush()
}

func writeJSON(path string, rows []Row) error {
	data, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	return nil
}
