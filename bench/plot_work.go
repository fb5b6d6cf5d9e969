package main

import (
	"fmt"
	"math"
	"strings"
)

// plotWork draws for each series of rows how much more was done the larger it was, both by logarithm; empty where no row has a size. The
// dashed line is work that grows as the size does.
func plotWork(rows []Row) string {
	var names []string
	series := map[string][]Row{}
	low, high := math.Inf(1), 0.0
	for _, r := range rows {
		if r.Size <= 0 {
			continue
		}
		if series[r.Series] == nil {
			names = append(names, r.Series)
		}
		series[r.Series] = append(series[r.Series], r)
		low, high = min(low, r.Size), max(high, r.Size)
	}
	if high <= low {
		return ""
	}
	decades := math.Log10(high / low)
	right, bottom := float64(plotWidth-plotRight), float64(plotHeight-plotBottom)
	// Half a decade of room below, as work may become less, too.
	x := func(size float64) float64 { return plotLeft + (right-plotLeft)*math.Log10(size/low)/decades }
	y := func(ratio float64) float64 {
		return bottom - (bottom-plotTop)*(math.Log10(min(max(ratio, 0.3), high/low))+0.5)/(decades+0.5)
	}
	d := newDrawing(plotHeight, "work of one change, as a multiple of that in the smallest")
	for times := 1.0; times <= high/low*1.0001; times *= 10 {
		d.line(plotLeft, y(times), right, y(times), "#ddd")
		d.text(plotLeft-6, y(times)+4, "end", fmt.Sprintf("%gx", times))
		d.line(x(low*times), plotTop, x(low*times), bottom, "#ddd")
		d.text(x(low*times), bottom+16, "middle", fmt.Sprintf("%gx: %g", times, low*times))
	}
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#888" stroke-dasharray="4 3"/>`+"\n", x(low), y(1), x(high), y(high/low))
	for i, name := range names {
		colour := colours[i%len(colours)]
		first := series[name][0].Value
		var points []string
		for _, r := range series[name] {
			ratio := 1.0
			if first > 0 {
				ratio = r.Value / first
			}
			// Lines that lie on each other are drawn beside each other.
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(r.Size), y(ratio)+2*float64(i)))
		}
		fmt.Fprintf(d, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.6"/>`+"\n", strings.Join(points, " "), colour)
		at := float64(plotTop + 12 + 26*i)
		d.line(right+12, at-4, right+28, at-4, colour)
		for j, part := range wrap(name, 38) {
			d.text(right+34, at+12*float64(j), "start", part)
		}
	}
	return d.end()
}
