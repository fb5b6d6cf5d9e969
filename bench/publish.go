package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// marks are the lines of a page between which figures stand, and the word before the names of their plots.
type marks struct{ begin, end, plots string }

var (
	productMarks = marks{"<!-- figures: written by `make bench-publish` -->", "<!-- end of figures -->", "product"}
	scaleMarks   = marks{"<!-- scale: written by `make bench-scale-publish` -->", "<!-- end of scale -->", "scale"}
)

// publish puts the figures between their marks of a page, and their plots into a folder of the page's name beside it.
func publish(path string, scale bool, rows []Row) error {
	m := productMarks
	if scale {
		m = scaleMarks
	}
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	folder := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	text, plots, err := m.published(string(page), folder, rows)
	if err != nil {
		return fmt.Errorf("publish: %s: %w", path, err)
	}
	dir := filepath.Join(filepath.Dir(path), folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for name, svg := range plots {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(svg), 0o644); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// published is a page with its figures, and the plots that it shows, by name.
func (m marks) published(page, folder string, rows []Row) (string, map[string]string, error) {
	before, rest, ok := strings.Cut(page, m.begin)
	_, after, ended := strings.Cut(rest, m.end)
	if !ok || !ended {
		return "", nil, fmt.Errorf("it lacks the lines %q and %q, between which the figures go", m.begin, m.end)
	}
	if len(rows) == 0 {
		return "", nil, errors.New("there are no figures")
	}
	plots := map[string]string{}
	var b strings.Builder
	b.WriteString(before + m.begin + "\n\n")
	show := func(name, what, svg string) {
		if svg == "" {
			return
		}
		name = m.plots + "-" + name + ".svg"
		plots[name] = svg
		fmt.Fprintf(&b, "![%s](%s/%s)\n\n", what, folder, name)
	}
	show("goals", "Figures as shares of their goals", plotGoals(rows))
	for from := 0; from < len(rows); {
		to := from
		for to < len(rows) && rows[to].Scenario == rows[from].Scenario {
			to++
		}
		group := rows[from:to]
		from = to
		fmt.Fprintf(&b, "### %s\n\nMeasured at commit `%s` on %s.\n\n", group[0].Scenario, group[0].Commit, group[0].Machine)
		show(group[0].Scenario, "Times by percentile in the scenario "+group[0].Scenario, plotLatencies(group))
		show(group[0].Scenario+"-work", "Work by size in the scenario "+group[0].Scenario, plotWork(group))
		b.WriteString("| metric | value | unit | goal | n | |\n|---|---|---|---|---|---|\n")
		for _, r := range group {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %d | %s |\n", r.Metric, r.value(), r.Unit, r.goal(), r.N, r.verdict())
		}
		b.WriteString("\n")
	}
	b.WriteString(m.end + after)
	return b.String(), plots, nil
}

// measuredBefore reads what scenarios left in a folder; those that left nothing are passed over.
func measuredBefore(_ context.Context, o options, _ io.Writer) (all []Row, err error) {
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	if o.scale {
		names = nil
		for _, s := range scaleScenarios {
			names = append(names, s.name)
		}
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(o.from, name+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var rows []Row
		if err == nil {
			err = json.Unmarshal(data, &rows)
		}
		if err != nil {
			return nil, fmt.Errorf("figures of %s: %w", name, err)
		}
		all = append(all, rows...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no scenario left figures in %s", o.from)
	}
	return all, nil
}
