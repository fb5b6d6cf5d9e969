package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"
)

// fullProxies is the size at which goals for one zone are judged.
const fullProxies = 10_000

// simulatedGC is GOGC of this process: what is simulated shares the machine with what is measured, so it pays for less garbage
// collection with memory.
const simulatedGC = 400

// scaleOptions are the sizes of what is simulated.
type scaleOptions struct {
	proxies, resources, changes, policies int
	rate                                  int
	churn, idle                           time.Duration
	debug, parts, lesser                  string
	globalSizes
}

func (o *scaleOptions) flags(f *flag.FlagSet) {
	f.IntVar(&o.proxies, "proxies", fullProxies, "simulated proxies of one zone, a multiple of 20; goals are judged at the default alone")
	f.IntVar(&o.resources, "resources", 10_000, "resources on the disk of a zone that starts")
	f.IntVar(&o.changes, "changes", 100, "endpoints to begin and to end one after another")
	f.IntVar(&o.policies, "policies", 100, "policies to apply that hit ten proxies, and a tenth as many that hit all")
	f.IntVar(&o.rate, "rate", 500, "changes of endpoints a second in churn")
	f.StringVar(&o.lesser, "lesser-rates", "25,50,75,100", "other rates of churn to measure before, each for a fifth of the time, with commas between")
	f.DurationVar(&o.churn, "churn", 5*time.Minute, "how long churn lasts")
	f.DurationVar(&o.idle, "idle", time.Minute, "how long the zone is watched while nothing happens")
	f.StringVar(&o.debug, "debug-address", "", "loopback host:port at which the zone or global under test serves its profiles; with -profiles the default is a port of its own address")
	f.StringVar(&o.parts, "parts", "", "parts of the scenario zone to measure, with commas between: "+partNames())
	o.globalSizes.flags(f)
}

// scale is what a scenario of this kind works with.
type scale struct {
	options
	out io.Writer
	// prefix is the first three numbers of the addresses that are this process's own.
	prefix string
	// many is made by the first scenario that needs it, and ends after the last.
	many *manyZones
	// profiles are of the process under test.
	profiles *profiles
}

// scaleScenarios run processes of their own, one scenario after another; each is a file below bench/out.
var scaleScenarios = []struct {
	name string
	run  func(context.Context, *scale) ([]Row, error)
}{
	{"zone", measureZone},
	{"zone_cold", measureCold},
	{"global_join", measureGlobalJoin},
	{"global_apply", measureGlobalApply},
	{"global_memory", measureGlobalMemory},
	{"global_idle", measureGlobalIdle},
	{"global_restart", measureGlobalRestart},
	{"global_store", measureGlobalStore},
}

func scaleNames() string {
	var names []string
	for _, s := range scaleScenarios {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

func measureScale(ctx context.Context, o options, out io.Writer) (_ []Row, err error) {
	if o.proxies < replicas || o.proxies%replicas != 0 || o.resources < 1 || o.changes < 1 || o.policies < 10 || o.rate < 1 {
		return nil, fmt.Errorf("counts must be positive, -policies at least 10 and -proxies a multiple of %d", replicas)
	}
	if err := o.globalSizes.check(); err != nil {
		return nil, err
	}
	if _, err := ratesOf(o.lesser); err != nil {
		return nil, err
	}
	if o.binary, err = o.product(); err != nil {
		return nil, err
	}
	debug.SetGCPercent(simulatedGC)
	prefix, held, err := reserve(o.network)
	if err != nil {
		return nil, err
	}
	defer held.Close()
	if o.profiles != "" && o.debug == "" {
		o.debug = hostPort(prefix+".3", profilePort)
	}
	profiled := map[string]string{"": o.debug}
	if o.profiles != "" {
		own, close, err := serveProfiles(hostPort(prefix+".4", profilePort))
		if err != nil {
			return nil, err
		}
		defer close()
		profiled["simulated"] = own
	}
	s, machine, commit := &scale{options: o, out: out, prefix: prefix, profiles: newProfiles(o.profiles, profiled)}, machine(), commit(ctx)
	defer func() {
		err = errors.Join(err, s.profiles.stop())
		if s.many != nil {
			err = errors.Join(err, s.many.stop(err != nil))
		}
	}()
	fmt.Fprintf(out, "%s, commit %s\n", machine, commit)
	var all []Row
	for _, one := range scaleScenarios {
		// The name before _ stands for all that begin with it.
		if o.only != "" && o.only != one.name && !strings.HasPrefix(one.name, o.only+"_") {
			continue
		}
		began := time.Now()
		if err := s.profiles.begin(one.name); err != nil {
			return nil, err
		}
		rows, err := one.run(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
		fmt.Fprintf(out, "measured %s in %.1f s\n", one.name, time.Since(began).Seconds())
		if err := keep(o.out, one.name, machine, commit, rows); err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	if len(all) == 0 {
		return nil, errors.New("nothing was measured: choose a scenario of " + scaleNames())
	}
	return all, nil
}

// judge sets a row's goal where the zone has the size that the goal is for.
func (s *scale) judge(r Row, goal float64) Row {
	if s.proxies < fullProxies {
		return r
	}
	return r.atMost(goal)
}

// say tells people how far it is.
func (s *scale) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }
