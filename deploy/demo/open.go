package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/zoneforge/zoneforge/pki/certfile"
)

// Mesh and Edge name the mesh of the demo's policies and the service of its gateways.
const (
	Mesh = mesh
	Edge = edge
)

// Federation is a running demo in the hands of one who measures or tries it. It is for one goroutine, but for URL, Sites and
// what they give.
type Federation struct {
	f    *federation
	end  func()
	tidy func()
}

// Site is one zone of a Federation.
type Site struct {
	Name string
	// XDS is host:port of the zone's control plane, and CAFile holds the roots that prove it.
	XDS    string
	CAFile string
	// Gateway is the URL of the zone's gateway, without a path.
	Gateway string
	// Workloads are the names of the workloads, whose proxies have the same names.
	Workloads []string
	s         site
}

// Start brings a federation up and returns when each of its routes is answered. The processes live until Stop, whatever
// becomes of ctx.
func Start(ctx context.Context, o Options) (*Federation, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	f, tidy, err := prepare(life, o)
	if err != nil {
		end()
		return nil, err
	}
	out := &Federation{f: f, end: end, tidy: tidy}
	if err := f.start(ctx); err != nil {
		stopped := f.stop()
		end()
		return nil, errors.Join(err, stopped)
	}
	return out, nil
}

// Stop ends all processes and removes their files, unless Options named a folder for them, keep asks for them, or a process had
// ended by itself.
func (f *Federation) Stop(keep bool) error {
	defer f.end()
	err := errors.Join(f.f.check(), f.f.stop())
	if err == nil && !keep {
		f.tidy()
	}
	return err
}

// Check tells of the first process that ended by itself.
func (f *Federation) Check() error { return f.f.check() }

// Logs is the folder where each process has a file of what it said.
func (f *Federation) Logs() string { return f.f.path("logs") }

// URL is where global's REST answers.
func (f *Federation) URL() string { return "https://" + address(f.f.global, restPort) }

// CAFile holds the roots that prove global.
func (f *Federation) CAFile() string { return f.f.path("global", "tls", certfile.CAFile) }

// AdminToken is an administrator's.
func (f *Federation) AdminToken() (string, error) {
	token, err := os.ReadFile(f.f.path("global", "admin-token"))
	return strings.TrimSpace(string(token)), err
}

// CLI runs the product's command line as an administrator, and returns what it prints.
func (f *Federation) CLI(ctx context.Context, args ...string) (string, error) {
	return f.f.cli(ctx, args...)
}

// Profiles are host:port at which each control plane serves its profiles, by its name; only with Options.Profiles.
func (f *Federation) Profiles() map[string]string {
	out := map[string]string{"global": address(f.f.global, debugPort)}
	for _, s := range f.f.sites {
		out[s.name] = address(s.controlPlane(), debugPort)
	}
	return out
}

// Sites are the zones, in the order in which the demo names them.
func (f *Federation) Sites() []Site {
	var out []Site
	for _, s := range f.f.sites {
		one := Site{
			Name: s.name, XDS: address(s.controlPlane(), xdsPort), CAFile: f.f.path(s.name, "tls", certfile.CAFile),
			Gateway: strings.TrimSuffix(s.url(""), "/"), s: s,
		}
		for _, w := range s.workloads {
			one.Workloads = append(one.Workloads, w.name)
		}
		out = append(out, one)
	}
	return out
}

// Host is an address of the zone's network that the demo leaves free, for n from 100 to 254.
func (s Site) Host(n int) string { return s.s.host(n) }

// Launchers are the numbers of the processes that run beside Envoys, by zone/proxy.
func (f *Federation) Launchers() map[string]int {
	out := map[string]int{}
	for name, p := range f.f.running {
		if level(name) == 2 && !strings.HasSuffix(name, "/app") {
			out[name] = p.cmd.Process.Pid
		}
	}
	return out
}

// KillProxy ends a workload's proxy, Envoy and all, as a crash of its machine does.
func (f *Federation) KillProxy(s Site, workload string) { f.f.kill(s.Name + "/" + workload) }

// StartProxy starts the proxy of a workload of the zone, which must not run.
func (f *Federation) StartProxy(s Site, workload string) error {
	for _, w := range s.s.workloads {
		if w.name == workload {
			return f.f.startProxy(s.s, w.name, w.dataplane(), w.service)
		}
	}
	return fmt.Errorf("zone %s has no workload %q", s.Name, workload)
}
