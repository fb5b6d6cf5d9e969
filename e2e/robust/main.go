// Command robust runs the suites under faults again and again, each time with a new seed in a process of its own, and says what came of it.
//
// It owns the choice of suite and seed, the directory in which runs leave their figures and, where one fails, its history and log, and the
// table of docs/guarantees.md. It judges nothing itself: the tests do, see package history. Run it from the top of the checkout.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/zoneforge/zoneforge/e2e/history"
)

// suites are the tests that take a seed, by their names in the figures.
var suites = []struct{ name, dir, test string }{
	{"federation", "e2e/federation", "TestFederationUnderFaults"},
	{"processes", "e2e", "TestProcessesUnderFaults"},
}

// errBroken says that a run broke a guarantee.
var errBroken = errors.New("a guarantee is broken")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "robust:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, say io.Writer) error {
	flags := flag.NewFlagSet("robust", flag.ContinueOnError)
	minutes := flags.Float64("minutes", 10, "how long to begin new runs")
	out := flags.String("out", filepath.Join("e2e", "robust", "out"), "where runs leave figures and, on failure, histories and logs; figures of earlier runs there are kept and count")
	only := flags.String("suite", "", "only this suite: federation or processes")
	publish := flags.String("publish", "", "page whose figures are replaced by those of all runs in -out, such as docs/guarantees.md")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := filepath.Abs(*out)
	if err != nil {
		return err
	}
	broken := suitesFor(ctx, *only, dir, time.Duration(*minutes*float64(time.Minute)), say)
	if broken != nil && !errors.Is(broken, errBroken) {
		return broken
	}
	runs, err := history.ReadRuns(dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(say, "\n%s", history.Sum(runs))
	if *publish != "" {
		page, err := os.ReadFile(*publish)
		if err != nil {
			return err
		}
		text, err := published(string(page), machine(ctx), runs)
		if err != nil {
			return fmt.Errorf("%s: %w", *publish, err)
		}
		if err := os.WriteFile(*publish, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return broken
}

// suitesFor runs suites in turn for some time. A run that fails stops nothing; the error says how many did.
func suitesFor(ctx context.Context, only, out string, limit time.Duration, say io.Writer) error {
	if limit <= 0 {
		return nil
	}
	tmp, err := os.MkdirTemp("", "zoneforge-robust-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	end := time.Now().Add(limit)
	failed, n := 0, 0
	for ctx.Err() == nil && time.Now().Before(end) {
		ran := false
		for _, s := range suites {
			if only != "" && only != s.name || ctx.Err() != nil || ran && time.Now().After(end) {
				continue
			}
			ran = true
			binary := filepath.Join(tmp, s.name+".test")
			if _, err := os.Stat(binary); err != nil {
				if text, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "./"+s.dir).CombinedOutput(); err != nil {
					return fmt.Errorf("build %s: %w\n%s", s.dir, err, text)
				}
			}
			seed := rand.Int64N(1 << 40)
			began := time.Now()
			cmd := exec.CommandContext(ctx, binary, "-test.run", "^"+s.test+"$", "-test.count", "1", "-test.timeout", "5m", "-test.v")
			cmd.Dir = s.dir
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = 30 * time.Second
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", history.SeedVariable, seed), history.OutVariable+"="+out)
			text, err := cmd.CombinedOutput()
			n++
			verdict := "ok"
			if err != nil && ctx.Err() == nil {
				failed++
				verdict = "FAILED"
				kept := filepath.Join(out, fmt.Sprintf("%s-%d", s.name, seed))
				if err := errors.Join(os.MkdirAll(kept, 0o755), os.WriteFile(filepath.Join(kept, "test.txt"), text, 0o600)); err != nil {
					return err
				}
				verdict += fmt.Sprintf("; see %s; again: %s=%d go test ./%s -run %s -count 1", kept, history.SeedVariable, seed, s.dir, s.test)
			}
			fmt.Fprintf(say, "%s seed %d: %.0fs, %s\n", s.name, seed, time.Since(began).Seconds(), verdict)
		}
		if !ran {
			return fmt.Errorf("there is no suite %q", only)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%w: in %d of %d runs", errBroken, failed, n)
	}
	return nil
}

const (
	beginMark = "<!-- figures: written by `make robust-publish` -->"
	endMark   = "<!-- end of figures -->"
)

// published is a page with the figures of runs between its marks.
func published(page, machine string, runs []history.Run) (string, error) {
	before, rest, ok := strings.Cut(page, beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !ok || !ended {
		return "", fmt.Errorf("it lacks the lines %q and %q, between which the figures go", beginMark, endMark)
	}
	if len(runs) == 0 {
		return "", errors.New("there are no figures")
	}
	return before + beginMark + "\n\nSeen " + machine + ".\n\n" + history.Sum(runs) + "\n" + endMark + after, nil
}

// machine says at which commit and on what the runs were, in one line.
func machine(ctx context.Context) string {
	commit := "unknown"
	if text, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(text))
	}
	processor := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				processor = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("at commit `%s` on %d cores of %s, %s %s, %s", commit, runtime.NumCPU(), processor, runtime.GOOS,
		strings.TrimSpace(string(kernel)), runtime.Version())
}
