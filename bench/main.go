// Command bench owns the figures of the project: it runs the whole product as its own processes with real Envoys, measures
// what the README promises, prints a table and writes it as JSON to bench/out.
//
// It never measures a part by itself (that is for the Go benchmarks beside the code), reaches into no process, and calls no
// figure good that it did not see: a scenario that can't be carried out ends it with an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zoneforge/zoneforge/deploy/demo"
)

// errMissed says that a figure missed its goal; the table says which.
var errMissed = errors.New("a goal was missed")

type options struct {
	binary, envoy, network, out, from, publish, only, profiles string
	applies, endpoints, kills, moves                           int
	scale                                                      bool
	scaleOptions
}

// scenario is a file below bench/out.
type scenario struct {
	name string
	run  func(context.Context, *bench) ([]Row, error)
}

var scenarios = []scenario{
	{"apply", measureApply},
	{"endpoints", measureEndpoints},
	{"loss", measureLoss},
	{"agent", measureAgent},
	{"datapath", measureDataPath},
}

// onRequest are measured only when they are named: they explain figures and have no goals.
var onRequest = []scenario{{"variants", measureVariants}, {"instructions", measureInstructions}}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.binary, "binary", "bin/zoneforge", "the zoneforge to measure")
	flags.StringVar(&o.envoy, "envoy", "", "path of Envoy (default: .tools/bin/envoy, then PATH)")
	flags.StringVar(&o.network, "network", "127.99", "first two numbers of the loopback addresses to use")
	flags.StringVar(&o.out, "out", "bench/out", "folder for the figures, a file a scenario")
	flags.StringVar(&o.publish, "publish", "", "page whose table of figures is replaced, such as docs/performance.md")
	flags.StringVar(&o.only, "scenario", "", "measure one scenario alone: "+scenarioNames())
	flags.StringVar(&o.from, "from", "", "measure nothing: show or publish what scenarios left in this folder before")
	flags.StringVar(&o.profiles, "profiles", "", "folder for profiles of the control planes under test while each scenario runs: processor, allocations, mutex, block")
	flags.IntVar(&o.applies, "applies", 400, "changes to apply one after another")
	flags.IntVar(&o.endpoints, "endpoints", 100, "backends to kill and to begin")
	flags.IntVar(&o.kills, "kills", 10, "real Envoys to kill")
	flags.IntVar(&o.moves, "moves", 200, "changes of routes under load")
	flags.BoolVar(&o.scale, "scale", false, "measure one zone with many simulated proxies instead; scenarios: "+scaleNames())
	o.scaleOptions.flags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("there are no arguments but flags: %q", flags.Args())
	}
	how := measure
	switch {
	case o.from != "":
		how = measuredBefore
	case o.scale:
		how = measureScale
	}
	rows, err := how(ctx, o, out)
	if err != nil {
		return err
	}
	if err := writeTable(out, rows); err != nil {
		return err
	}
	if o.publish != "" {
		if err := publish(o.publish, o.scale, rows); err != nil {
			return err
		}
	}
	for _, r := range rows {
		if !r.OK {
			return errMissed
		}
	}
	return nil
}

func scenarioNames() string {
	var names []string
	for _, s := range slices.Concat(scenarios, onRequest) {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

func choose(o options) ([]scenario, error) {
	if o.applies < 1 || o.endpoints < 1 || o.kills < 1 || o.moves < 1 {
		return nil, errors.New("counts must be positive")
	}
	if o.only == "" {
		return scenarios, nil
	}
	for _, s := range slices.Concat(scenarios, onRequest) {
		if s.name == o.only {
			return []scenario{s}, nil
		}
	}
	return nil, fmt.Errorf("there is no scenario %q; choose one of %s", o.only, scenarioNames())
}

// measure runs the scenarios on a federation of their own, one after another, and writes their files.
func measure(ctx context.Context, o options, out io.Writer) (_ []Row, err error) {
	chosen, err := choose(o)
	if err != nil {
		return nil, err
	}
	binary, err := o.product()
	if err != nil {
		return nil, err
	}
	if o.envoy != "" {
		if o.envoy, err = filepath.Abs(o.envoy); err != nil {
			return nil, err
		}
	}
	b := &bench{options: o, out: out, machine: machine(), commit: commit(ctx)}
	fmt.Fprintf(out, "%s, commit %s\n", b.machine, b.commit)
	fmt.Fprintln(out, "Starting global and two zones ...")
	if b.federation, err = demo.Start(ctx, demo.Options{Zones: 2, Network: o.network, Binary: binary, Envoy: o.envoy, Profiles: o.profiles != "", Out: io.Discard}); err != nil {
		return nil, err
	}
	defer func() {
		interrupted := ctx.Err() != nil
		if err != nil && !interrupted {
			err = fmt.Errorf("%w; what each process said is in %s", err, b.federation.Logs())
		}
		err = errors.Join(err, b.federation.Stop(err != nil && !interrupted))
	}()
	if b.global, err = connect(b.federation); err != nil {
		return nil, err
	}
	defer b.global.close()
	taken := newProfiles(o.profiles, b.federation.Profiles())
	defer func() { err = errors.Join(err, taken.stop()) }()

	var all []Row
	for _, s := range chosen {
		began := time.Now()
		if err := taken.begin(s.name); err != nil {
			return nil, err
		}
		rows, err := s.run(ctx, b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		if err := b.federation.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(out, "measured %s in %.1f s\n", s.name, time.Since(began).Seconds())
		if err := keep(o.out, s.name, b.machine, b.commit, rows); err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, nil
}

// product is the path of the binary to measure.
func (o options) product() (string, error) {
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(binary); err != nil {
		return "", fmt.Errorf("the binary to measure: %w; build it with `make build`", err)
	}
	return binary, nil
}

// keep says in rows where they come from and writes a scenario's file.
func keep(dir, scenario, machine, commit string, rows []Row) error {
	for i := range rows {
		rows[i].Scenario, rows[i].Machine, rows[i].Commit = scenario, machine, commit
	}
	return writeJSON(filepath.Join(dir, scenario+".json"), rows)
}

// bench is what a scenario works with.
type bench struct {
	options
	out             io.Writer
	federation      *demo.Federation
	global          *global
	machine, commit string
}

// near is where clients are, and far the other zone, in which the demo's backend runs.
func (b *bench) near() demo.Site { return b.federation.Sites()[0] }
func (b *bench) far() demo.Site  { return b.federation.Sites()[1] }
