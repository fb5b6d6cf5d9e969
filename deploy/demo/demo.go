// Package demo owns the federation that `zoneforge demo` runs on one machine: global, zones with gateways, zone ingresses
// and workloads, all real processes with real Envoys, from the policies beside it.
//
// It never reaches into a control plane: it starts the product's own commands, speaks to them as users do, and sends
// requests. What it starts it ends.
package demo

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/zoneforge/zoneforge/pki/certfile"
)

//go:embed policies
var policies embed.FS

// Options of a demo.
type Options struct {
	// Zones to run, 2 to MaxZones.
	Zones int
	// Check runs the demo's requests, prints a result a line and ends.
	Check bool
	// Tour shows each function of the gateway with its request and answer and ends; with Check a line each.
	Tour bool
	// Dir is where everything is kept; empty makes a temporary folder that is removed in the end.
	Dir string
	// Network is the first two numbers of the loopback addresses that are used, such as 127.0.
	Network string
	// Binary is the zoneforge to run, Envoy the path of Envoy; an empty Envoy is looked for as `dataplane run` does.
	Binary string
	Envoy  string
	// Profiles has control planes serve their profiles to whoever is on this machine, see Federation.Profiles.
	Profiles bool
	Out      io.Writer
}

// ErrCheck says that a line of the check failed; which one is printed.
var ErrCheck = errors.New("the check failed")

// Run runs the federation until ctx ends, or until the check is through. It leaves no process behind.
func Run(ctx context.Context, o Options) (err error) {
	// The processes outlive ctx, so that they are ended in order.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	f, cleanup, err := prepare(life, o)
	if err != nil {
		return err
	}
	defer func() {
		stopped := f.stop()
		if err == nil && stopped == nil {
			cleanup()
			return
		}
		err = errors.Join(err, stopped)
		if !errors.Is(err, context.Canceled) {
			fmt.Fprintf(o.Out, "\nWhat each process said is in %s\n", f.path("logs"))
		}
	}()

	began := time.Now()
	fmt.Fprintf(o.Out, "Starting global and %d zones ...\n", o.Zones)
	if err := f.start(ctx); err != nil {
		return interrupted(ctx, err)
	}
	f.describe(o.Out, time.Since(began))
	if o.Tour {
		return interrupted(ctx, f.takeTour(ctx, o.Out, o.Check))
	}
	if o.Check {
		return interrupted(ctx, f.checkAll(ctx, o.Out))
	}
	fmt.Fprintln(o.Out, "\nCtrl-C ends it all.")
	return interrupted(ctx, f.watch(ctx))
}

// interrupted makes nothing of an error that only says that the user asked for the end.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// prepare makes the folders; what it returns removes them.
func prepare(ctx context.Context, o Options) (*federation, func(), error) {
	if o.Zones < 2 || o.Zones > MaxZones {
		return nil, nil, fmt.Errorf("%d zones: the demo runs 2 to %d", o.Zones, MaxZones)
	}
	dir, cleanup := o.Dir, func() {}
	if dir == "" {
		made, err := os.MkdirTemp("", "zoneforge-demo-")
		if err != nil {
			return nil, nil, err
		}
		dir, cleanup = made, func() { _ = os.RemoveAll(made) }
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, nil, err
	}
	f := &federation{dir: dir, binary: o.Binary, envoy: o.Envoy, profiles: o.Profiles, global: o.Network + ".0.1", sites: plan(o.Network, o.Zones), running: map[string]*process{}}
	for _, sub := range []string{"logs", "policies"} {
		if err := os.MkdirAll(f.path(sub), 0o700); err != nil {
			return nil, nil, err
		}
	}
	files, err := fs.ReadDir(policies, "policies")
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		text, err := policies.ReadFile("policies/" + file.Name())
		if err != nil {
			return nil, nil, err
		}
		if _, err := f.write(filepath.Join("policies", file.Name()), string(text)); err != nil {
			return nil, nil, err
		}
	}
	f.launcher = newLauncher(ctx, dir)
	return f, cleanup, nil
}

// start brings everything up and waits until each route of the first zone answers as it should.
func (f *federation) start(ctx context.Context) error {
	if err := f.startGlobal(ctx); err != nil {
		return err
	}
	if _, err := f.cli(ctx, "apply", "-f", f.path("policies"), "--message", "the demo's policies"); err != nil {
		return err
	}
	if err := f.tokens(ctx); err != nil {
		return err
	}
	for _, s := range f.sites {
		if err := f.startZone(s); err != nil {
			return err
		}
	}
	for _, s := range f.sites {
		if err := f.await(ctx, "zone "+s.name, startTime, func() error {
			_, err := os.Stat(f.path(s.name, "tls", certfile.CAFile))
			return err
		}); err != nil {
			return err
		}
		if err := f.startSite(s); err != nil {
			return err
		}
	}
	for _, s := range f.sites {
		for _, path := range []string{"/echo", "/cross"} {
			if err := f.await(ctx, s.url(path), startTime, func() error {
				_, err := f.get(ctx, s.url(path))
				return err
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// watch waits for the end, and reports a process that ends on its own.
func (f *federation) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := f.check(); err != nil {
				return err
			}
		}
	}
}

func (f *federation) describe(out io.Writer, took time.Duration) {
	fmt.Fprintf(out, "Running after %.1f s:\n\n", took.Seconds())
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "global\tREST https://%s\tKDS %s\n", address(f.global, restPort), address(f.global, kdsPort))
	for _, s := range f.sites {
		fmt.Fprintf(table, "%s\txDS %s\tgateway %s\tingress %s\n", s.name, address(s.controlPlane(), xdsPort), s.url("/"), address(s.ingress(), ingressPort))
		for _, w := range s.workloads {
			fmt.Fprintf(table, "\t%s\tsidecar %s\tworkload %s\n", w.name, address(w.host, inboundPort), address(w.host, workloadPort))
		}
	}
	_ = table.Flush()
	first := f.sites[0]
	program := f.binary
	if here, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(here, program); err == nil && len(short) < len(program) {
			program = short
		}
	}
	fmt.Fprintf(out, `
Requests to try:
  curl %s      # answered in %s
  curl %s     # crosses to %s over mutual TLS; see client and server
  curl %s     # four of five from v1
  curl -i %s  # 403: no permission

To use the command line:
  export ZONEFORGE_ADDRESS=https://%s
  export ZONEFORGE_CA=%s
  export ZONEFORGE_TOKEN=$(cat %s)
  %s get zones
  %s inspect zone %s
  %s apply --wait -f %s

Policies to change: %s
`, first.url("/echo"), first.name, first.url("/cross"), f.sites[1].name, first.url("/split"), first.url("/denied"),
		address(f.global, restPort), f.path("global", "tls", certfile.CAFile), f.path("global", "admin-token"), program, program, first.name, program, f.path("policies"), f.path("policies"))
}
