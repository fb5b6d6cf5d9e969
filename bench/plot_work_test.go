package main

import (
	"slices"
	"strings"
	"testing"
)

func TestWorkBySizeIsDrawn(t *testing.T) {
	var rows []Row
	for _, size := range []int{100, 1000, 10_000} {
		rows = append(rows, row("built", 10, "proxies", 1).ofSize("flat", size), row("grown", float64(size), "proxies", 1).ofSize("as the size", size))
	}
	svg := plotWork(append(rows, row("other", 1, "s", 1)))
	for _, want := range []string{"flat", "as the size", "100x: 10000", "stroke-dasharray"} {
		if !strings.Contains(svg, want) {
			t.Errorf("the plot lacks %q:\n%s", want, svg)
		}
	}
	if strings.Count(svg, "<polyline") != 2 {
		t.Error("there is not one line for each series")
	}
	if got := plotWork([]Row{row("a", 1, "s", 1)}); got != "" {
		t.Errorf("rows without sizes are drawn: %s", got)
	}
	if got := plotWork(rows[:2]); got != "" {
		t.Errorf("one size is drawn: %s", got)
	}
}

func TestStages(t *testing.T) {
	for proxies, want := range map[int][]int{10_000: {100, 1000, 10_000}, 500: {20, 40, 500}, 20: {20}} {
		if got := sizesOf(proxies); !slices.Equal(got, want) {
			t.Errorf("stages of %d are %v, want %v", proxies, got, want)
		}
	}
	if got := storeSizes(100_000); !slices.Equal(got, []int{100, 1000, 10_000, 100_000}) {
		t.Errorf("stores of %v", got)
	}
}
