package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/pki/certfile"
)

// startTime bounds how long a process may take until it serves.
const startTime = 60 * time.Second

// federation is everything that runs, by name: global, <zone>, <zone>/<proxy>, <zone>/<workload>/app.
type federation struct {
	dir      string
	binary   string
	envoy    string
	global   string // address, without ports
	sites    []site
	profiles bool
	launcher *launcher
	running  map[string]*process
}

const (
	restPort = 5682
	kdsPort  = 5685
	// debugPort is where control planes serve their profiles, if they do.
	debugPort = 6060
)

func (f *federation) path(parts ...string) string {
	return filepath.Join(append([]string{f.dir}, parts...)...)
}

func (f *federation) write(name, text string) (string, error) {
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(text), 0o600)
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// run starts a process under a name, which must be free.
func (f *federation) run(name string, args ...string) error {
	p, err := f.launcher.start(strings.ReplaceAll(name, "/", "-"), f.binary, args...)
	if err != nil {
		return err
	}
	f.running[name] = p
	return nil
}

// runControlPlane starts one with its profiles, where they are wanted.
func (f *federation) runControlPlane(name, host string, args ...string) error {
	if f.profiles {
		args = append(args, "--debug-address", address(host, debugPort))
	}
	return f.run(name, args...)
}

// kill ends processes as a crash does.
func (f *federation) kill(names ...string) {
	for _, name := range names {
		if p := f.running[name]; p != nil {
			p.kill()
			delete(f.running, name)
		}
	}
}

// stop ends everything: proxies and workloads first, then zones, then global, as their order of need is.
func (f *federation) stop() error {
	var errs []error
	for depth := 2; depth >= 0; depth-- {
		var ps []*process
		for name, p := range f.running {
			if level(name) == depth {
				ps = append(ps, p)
				delete(f.running, name)
			}
		}
		errs = append(errs, stopAll(ps))
	}
	return errors.Join(errs...)
}

func level(name string) int {
	switch {
	case name == "global":
		return 0
	case !strings.Contains(name, "/"):
		return 1
	default:
		return 2
	}
}

// check tells of the first process that ended unasked.
func (f *federation) check() error {
	names := make([]string, 0, len(f.running))
	for name := range f.running {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := f.running[name].ended(); err != nil {
			return err
		}
	}
	return nil
}

// await calls ok until it gives no error, as long as all processes run and the time lasts.
func (f *federation) await(ctx context.Context, what string, limit time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last := ok()
		if last == nil {
			return nil
		}
		if err := f.check(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, limit, last)
		case <-tick.C:
		}
	}
}

func (f *federation) startGlobal(ctx context.Context) error {
	if err := f.runControlPlane("global", f.global, "global", "run", "--data-dir", f.path("global"), "--rest-address", address(f.global, restPort),
		"--kds-address", address(f.global, kdsPort)); err != nil {
		return err
	}
	return f.await(ctx, "global", startTime, func() error {
		_, err := f.cli(ctx, "get", "zones")
		return err
	})
}

// cli runs the product's own command line as an administrator of the demo, and returns what it prints.
func (f *federation) cli(ctx context.Context, args ...string) (string, error) {
	token, err := os.ReadFile(f.path("global", "admin-token"))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, f.binary, args...)
	cmd.Env = append(os.Environ(), "ZONEFORGE_ADDRESS=https://"+address(f.global, restPort), "ZONEFORGE_CA="+f.path("global", "tls", certfile.CAFile),
		"ZONEFORGE_TOKEN="+strings.TrimSpace(string(token)))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("zoneforge %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// token asks global for a token and keeps it in a file.
func (f *federation) token(ctx context.Context, name string, args ...string) error {
	out, err := f.cli(ctx, append([]string{"token"}, args...)...)
	if err != nil {
		return err
	}
	_, err = f.write(filepath.Join("tokens", name), strings.TrimSpace(out)+"\n")
	return err
}

// tokens are all asked for in the beginning, so that proxies can join while global is away.
func (f *federation) tokens(ctx context.Context) error {
	for _, s := range f.sites {
		if err := f.token(ctx, s.name, "zone", s.name); err != nil {
			return err
		}
		if err := f.token(ctx, s.name+"-ingress", "zone-ingress", s.name); err != nil {
			return err
		}
	}
	for _, service := range []string{edge, "echo", "private", "backend"} {
		if err := f.token(ctx, service, "dataplane", "--mesh", mesh, "--service", service); err != nil {
			return err
		}
	}
	return nil
}

func (f *federation) startZone(s site) error {
	return f.runControlPlane(s.name, s.controlPlane(), "zone", "run", "--name", s.name, "--data-dir", f.path(s.name), "--global", address(f.global, kdsPort),
		"--global-ca", f.path("global", "tls", certfile.CAFile), "--token-file", f.path("tokens", s.name),
		"--xds-address", address(s.controlPlane(), xdsPort), "--rest-address", address(s.controlPlane(), zoneRESTPort), "--hosts", s.controlPlane())
}

// startProxy runs a proxy from its document.
func (f *federation) startProxy(s site, name, document, token string) error {
	file, err := f.write(filepath.Join("proxies", s.name+"-"+name+".yaml"), document)
	if err != nil {
		return err
	}
	args := []string{"dataplane", "run", "--file", file, "--zone", address(s.controlPlane(), xdsPort), "--ca", f.path(s.name, "tls", certfile.CAFile),
		"--token-file", f.path("tokens", token), "--work-dir", f.path("run", s.name+"-"+name), "--drain", "1s"}
	if f.envoy != "" {
		args = append(args, "--envoy", f.envoy)
	}
	return f.run(s.name+"/"+name, args...)
}

// startWorkload runs a workload and its sidecar.
func (f *federation) startWorkload(s site, w workload) error {
	if err := f.run(s.name+"/"+w.name+"/app", "demo", "echo", "--listen", address(w.host, workloadPort), "--service", w.service,
		"--version", w.version, "--zone", s.name, "--proxy", w.name); err != nil {
		return err
	}
	return f.startProxy(s, w.name, w.dataplane(), w.service)
}

func (f *federation) startSite(s site) error {
	if err := f.startProxy(s, edge, s.gatewayDataplane(), edge); err != nil {
		return err
	}
	if err := f.startProxy(s, "ingress", s.zoneIngress(), s.name+"-ingress"); err != nil {
		return err
	}
	for _, w := range s.workloads {
		if err := f.startWorkload(s, w); err != nil {
			return err
		}
	}
	return nil
}
