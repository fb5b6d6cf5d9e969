package demo

import (
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/resource"
)

//go:embed tour
var tour embed.FS

// stops reads the tour, in the order of its files. Each text is explained before it is read.
func stops(explain func(string) (string, error)) ([]stop, error) {
	files, err := fs.ReadDir(tour, "tour")
	if err != nil {
		return nil, err
	}
	var out []stop
	for _, file := range files {
		text, err := tour.ReadFile("tour/" + file.Name())
		if err != nil {
			return nil, err
		}
		document, err := explain(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
		s, err := parseStop(file.Name(), document)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// takeTour applies the policies of each stop, runs its commands and takes the policies away again. Without brief it shows each
// command with its answer, else a line a stop. It goes on after a stop that fails, and fails in the end.
func (f *federation) takeTour(ctx context.Context, out io.Writer, brief bool) error {
	g, err := f.newGuide()
	if err != nil {
		return err
	}
	all, err := stops(g.explain)
	if err != nil {
		return err
	}
	if err := f.startServices(ctx, g); err != nil {
		return err
	}
	fmt.Fprintln(out)
	failed := 0
	for i, s := range all {
		began := time.Now()
		if !brief {
			fmt.Fprintf(out, "--- %d/%d %s\n    policies: %s\n    docs: %s\n", i+1, len(all), s.title, f.path("tour", s.file), strings.Join(s.docs, ", "))
		}
		err := f.visit(ctx, s, out, brief)
		if err == nil {
			err = f.check()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			fmt.Fprintf(out, "FAIL %2d/%d %s: %v\n", i+1, len(all), s.title, err)
			continue
		}
		fmt.Fprintf(out, "ok   %2d/%d %s (%.1f s)\n", i+1, len(all), s.title, time.Since(began).Seconds())
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d stops of the tour", ErrCheck, failed, len(all))
	}
	return nil
}

func (f *federation) visit(ctx context.Context, s stop, out io.Writer, brief bool) error {
	file, err := f.write("tour/"+s.file, s.document)
	if err != nil {
		return err
	}
	batch := resource.Decode(s.file, []byte(s.document), resource.Options{})
	if err := batch.Err(); err != nil {
		return err
	}
	_, err = f.cli(ctx, "apply", "--wait", "--timeout", "30s", "--message", "the tour: "+s.title, "-f", file)
	if err == nil {
		err = f.askAll(ctx, s, out, brief)
	}
	for i := len(batch.Resources) - 1; i >= 0; i-- {
		if gone := f.remove(ctx, batch.Resources[i]); gone != nil && err == nil {
			err = gone
		}
	}
	return err
}

// remove takes a resource of a stop away. A Mesh can't go while it has proxies: the demo's own takes its place again.
func (f *federation) remove(ctx context.Context, r *resource.Resource) error {
	if r.Kind == "Mesh" {
		_, err := f.cli(ctx, "apply", "--message", "the tour goes on", "-f", f.path("policies"))
		return err
	}
	_, err := f.cli(ctx, "delete", r.Kind, r.Name, "-m", mesh)
	return err
}

// askAll runs the commands of a stop. The first one is repeated until it is answered as expected, as Envoy's workers take a change
// over a moment after it was acknowledged.
func (f *federation) askAll(ctx context.Context, s stop, out io.Writer, brief bool) error {
	for i, a := range s.asks {
		var replies []reply
		ask := func() error {
			replies = replies[:0]
			for range a.times {
				replies = append(replies, a.run.send(ctx))
			}
			return checkReplies(replies, a.expect)
		}
		err := ask()
		if err != nil && (a.watch || i == 0 && a.times == 1) {
			err = f.await(ctx, s.title, settleTime, ask)
		}
		if !brief {
			fmt.Fprintf(out, "\n$ %s\n%s", a.text, show(replies, a.expect))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.text, err)
		}
	}
	if !brief {
		fmt.Fprintln(out)
	}
	return nil
}
