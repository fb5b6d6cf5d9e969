package main

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Sizes of plots, in units of SVG.
const (
	plotWidth  = 860
	plotLeft   = 64
	plotRight  = 250 // for the legend
	plotHeight = 320
	plotTop    = 28
	plotBottom = 44
	barHeight  = 16
	barLeft    = 470
)

// colours are told apart with a colour-blind eye, too (those of Okabe and Ito).
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#000000"}

// drawing is an SVG that is being written. Equal figures give equal bytes.
type drawing struct{ strings.Builder }

func newDrawing(height int, title string) *drawing {
	d := &drawing{}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", plotWidth, height)
	fmt.Fprintf(d, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, height)
	d.text(plotWidth/2, 16, "middle", title)
	return d
}

func (d *drawing) text(x, y float64, anchor, text string) {
	var escaped strings.Builder
	_ = xml.EscapeText(&escaped, []byte(text)) // a Builder takes all
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="#222">%s</text>`+"\n", x, y, anchor, &escaped)
}

func (d *drawing) line(x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
}

func (d *drawing) end() string { return d.String() + "</svg>\n" }

// plotLatencies draws the distributions of some rows: percentiles to the right, as nines, and times upwards, both by logarithm; empty
// where there are none. A dashed line is the goal of a row's 99th percentile, in its colour.
func plotLatencies(rows []Row) string {
	var shown []Row
	low, high, far := math.Inf(1), math.Inf(-1), 0.0
	for _, r := range rows {
		if len(r.Distribution) < 2 || len(shown) == len(colours) {
			continue
		}
		shown = append(shown, r)
		for _, p := range r.Distribution {
			low, high, far = min(low, max(p[1], 0.01)), max(high, p[1]), max(far, nines(p[0]))
		}
	}
	if len(shown) == 0 {
		return ""
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(max(high, 0.1)))
	far = max(far, 2)
	right, bottom := float64(plotWidth-plotRight), float64(plotHeight-plotBottom)
	x := func(percentile float64) float64 {
		return plotLeft + (right-plotLeft)*nines(percentile)/far
	}
	y := func(ms float64) float64 {
		return bottom - (bottom-plotTop)*(math.Log10(max(ms, 0.01))-from)/(to-from)
	}
	d := newDrawing(plotHeight, "time within which a share of all was done")
	for decade := from; decade <= to; decade++ {
		ms := math.Pow(10, decade)
		d.line(plotLeft, y(ms), right, y(ms), "#ddd")
		d.text(plotLeft-6, y(ms)+4, "end", fmt.Sprintf("%g ms", ms))
	}
	for _, p := range []float64{0, 50, 90, 99, 99.9, 99.99} {
		if nines(p) > far+1e-9 {
			break
		}
		d.line(x(p), plotTop, x(p), bottom, "#ddd")
		d.text(x(p), bottom+16, "middle", fmt.Sprintf("%g %%", p))
	}
	for i, r := range shown {
		var points []string
		for _, p := range r.Distribution {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(p[0]), y(p[1])))
		}
		fmt.Fprintf(d, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.6"/>`+"\n", strings.Join(points, " "), colours[i])
		name := strings.TrimSuffix(r.Metric, " p50")
		for _, other := range rows {
			if other.Metric == name+" p99" && other.Goal != nil && *other.Goal < math.Pow(10, to) {
				fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-dasharray="4 3"/>`+"\n", x(97.5), y(*other.Goal), x(99), y(*other.Goal), colours[i])
			}
		}
		at := float64(plotTop + 12 + 26*i)
		d.line(right+12, at-4, right+28, at-4, colours[i])
		for j, part := range wrap(name, 38) {
			d.text(right+34, at+12*float64(j), "start", part)
		}
	}
	return d.end()
}

// nines is 0 for none, 1 for 90 %, 2 for 99 % and so on.
func nines(percentile float64) float64 { return -math.Log10(1 - min(percentile, 99.9999)/100) }

// plotGoals draws each figure that has a goal as a share of it, by logarithm: what ends left of the line is good.
func plotGoals(rows []Row) string {
	var shown []Row
	for _, r := range rows {
		if r.Goal != nil {
			shown = append(shown, r)
		}
	}
	if len(shown) == 0 {
		return ""
	}
	height := plotTop + 12 + (barHeight+4)*len(shown) + 24
	d := newDrawing(height, "figures as shares of their goals")
	const least, most = -3.0, 1.0
	x := func(share float64) float64 {
		return barLeft + (plotWidth-barLeft-20)*(min(max(math.Log10(share), least), most)-least)/(most-least)
	}
	bottom := float64(height - 24)
	for share := least; share <= most; share++ {
		colour := cmp.Or(map[float64]string{0: "#222"}[share], "#ddd")
		d.line(x(math.Pow(10, share)), plotTop, x(math.Pow(10, share)), bottom, colour)
		d.text(x(math.Pow(10, share)), bottom+16, "middle", fmt.Sprintf("%g", math.Pow(10, share)))
	}
	for i, r := range shown {
		top := float64(plotTop + 10 + (barHeight+4)*i)
		colour := colours[2]
		if !r.OK {
			colour = colours[1]
		}
		fmt.Fprintf(d, `<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", barLeft, top, max(x(r.share())-barLeft, 1), barHeight, colour)
		d.text(barLeft-8, top+12, "end", clip(r.Scenario+": "+r.Metric, 76))
	}
	return d.end()
}

// share is a figure over its goal, or the goal over it where more is better.
func (r Row) share() float64 {
	a, b := r.Value, *r.Goal
	if r.Least {
		a, b = b, a
	}
	switch {
	case a <= 0:
		return 0
	case b <= 0:
		return math.Inf(1)
	}
	return a / b
}

func clip(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// wrap cuts a text into at most two lines at a blank.
func wrap(text string, most int) []string {
	if len(text) <= most {
		return []string{text}
	}
	at := strings.LastIndexByte(text[:most], ' ')
	if at < 0 {
		at = most
	}
	return slices.DeleteFunc([]string{text[:at], clip(strings.TrimSpace(text[at:]), most)}, func(s string) bool { return s == "" })
}
