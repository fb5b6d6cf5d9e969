// Command compare owns the comparison of the Go benchmarks of two versions of the project: it builds those of a revision in a
// worktree of its own and those of the files as they are, runs them in turn, so that what else the machine does falls on both, and
// has benchstat judge.
//
// It never changes the files that it is started in, and leaves no worktree behind.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

type options struct {
	base, pattern, time, out, benchstat string
	rounds                              int
}

// side is one of the two versions.
type side struct {
	name, root string
	results    *os.File
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	var o options
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.StringVar(&o.base, "base", "", "revision to compare with")
	flags.StringVar(&o.pattern, "bench", ".", "regular expression of the benchmarks to run")
	flags.StringVar(&o.time, "benchtime", "100ms", "how long each benchmark runs in a round")
	flags.IntVar(&o.rounds, "rounds", 6, "rounds of both versions; benchstat needs 6 to be sure of a difference")
	flags.StringVar(&o.out, "out", "bench/out/compare", "folder for what was measured")
	flags.StringVar(&o.benchstat, "benchstat", ".tools/bin/benchstat", "path of benchstat")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.base == "" || o.rounds < 1 || flags.NArg() > 0 {
		return errors.New("name a revision with -base and a positive number of -rounds, and no arguments")
	}
	work, err := os.MkdirTemp("", "zoneforge-compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	tree := filepath.Join(work, "base")
	if err := command(ctx, ".", "git", "worktree", "add", "--quiet", "--detach", tree, o.base); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, command(context.WithoutCancel(ctx), ".", "git", "worktree", "remove", "--force", tree))
	}()
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	sides := []*side{{name: "base", root: tree}, {name: "head", root: "."}}
	for _, s := range sides {
		if s.results, err = os.Create(filepath.Join(o.out, s.name+".txt")); err != nil {
			return err
		}
		defer s.results.Close()
	}
	if err := measure(ctx, o, sides, work, out); err != nil {
		return err
	}
	stat := exec.CommandContext(ctx, o.benchstat, "base="+sides[0].results.Name(), "head="+sides[1].results.Name())
	stat.Stdout, stat.Stderr = out, os.Stderr
	return stat.Run()
}

// measure builds all benchmarks and runs them in turn. What one side lacks or can't build is told, and left out there.
func measure(ctx context.Context, o options, sides []*side, work string, out io.Writer) error {
	found := map[string]bool{}
	for _, s := range sides {
		packages, err := benchmarked(s.root)
		if err != nil {
			return err
		}
		for _, p := range packages {
			found[p] = true
		}
	}
	var packages []string
	for p := range found {
		packages = append(packages, p)
	}
	slices.Sort(packages)
	for _, p := range packages {
		var built []*side
		for _, s := range sides {
			if _, err := os.Stat(filepath.Join(s.root, p)); err != nil {
				fmt.Fprintf(out, "%s has no package %s\n", s.name, p)
				continue
			}
			binary, err := filepath.Abs(filepath.Join(work, s.name+".test"))
			if err != nil {
				return err
			}
			_ = os.Remove(binary) // of the package before; a package without tests makes none
			if err := command(ctx, s.root, "go", "test", "-c", "-o", binary, "./"+p); err != nil {
				fmt.Fprintf(out, "%s can't build the benchmarks of %s: %v\n", s.name, p, err)
				continue
			}
			if _, err := os.Stat(binary); err == nil {
				built = append(built, s)
			}
		}
		fmt.Fprintln(out, "measuring", p)
		for range o.rounds {
			for _, s := range built {
				if err := bench(ctx, o, s, filepath.Join(work, s.name+".test"), p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// bench runs one package's benchmarks once, where its tests run.
func bench(ctx context.Context, o options, s *side, binary, p string) error {
	cmd := exec.CommandContext(ctx, binary, "-test.run=^$", "-test.bench="+o.pattern, "-test.benchmem", "-test.benchtime="+o.time)
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join(s.root, p), s.results, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("benchmarks of %s at %s: %w; what they said is in %s", p, s.name, err, s.results.Name())
	}
	return nil
}

// benchmarked lists the folders with benchmarks below a root, by their paths from there.
func benchmarked(root string) ([]string, error) {
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(text, []byte("\nfunc Benchmark")) {
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			found[filepath.ToSlash(dir)] = true
		}
		return nil
	})
	var out []string
	for dir := range found {
		out = append(out, dir)
	}
	slices.Sort(out)
	return out, err
}

// command runs a program and tells what it said when it fails.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(said))
	}
	return nil
}
