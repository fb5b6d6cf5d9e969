package dataplane

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/dataplane/composer"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

const (
	kindDataplane   = "Dataplane"
	kindZoneIngress = "ZoneIngress"
)

// Launch is one proxy to run beside its workload.
type Launch struct {
	// File holds the proxy's document, or "-" for In; Select names it where the file holds several.
	File   string
	Select string
	In     io.Reader

	// Zone is as Bootstrap's ControlPlanes; the others are as in Bootstrap, but may be relative.
	Zone       []string
	CAFile     string
	ServerName string
	TokenFile  string

	// Envoy is its path; empty looks for it, see Locate.
	Envoy string
	// EnvoyLog is Envoy's log level; empty is warning.
	EnvoyLog string
	// WorkDir holds the bootstrap, a copy of the token and the admin socket, one proxy each; empty makes one and removes it in the end.
	WorkDir string
	// Drain is how long open connections may go on after a stop; negative for not at all, 0 for the default.
	Drain time.Duration

	// MaxConnections is as in Bootstrap.
	MaxConnections uint32

	// Version of the software, of which the zone is told.
	Version string

	Stdout, Stderr io.Writer
	// Log is required.
	Log *zap.Logger
}

// Run starts Envoy and keeps it running until ctx ends. It returns nil when Envoy ended in order after that. Errors wrap
// ErrInput (document, roots or token), ErrEnvoy (none found, or of another version) or ErrKilled (it didn't end in time).
func (l Launch) Run(ctx context.Context) error {
	document, err := ReadDocument(l.File, l.Select, l.In)
	if err != nil {
		return err
	}
	b := Bootstrap{
		SystemRoots: RootsFile(),
		Kind:        document.Kind, Mesh: document.Mesh, Name: document.Name, Service: serviceOf(document),
		ControlPlanes: l.Zone, ServerName: l.ServerName, Version: l.Version, MaxConnections: l.MaxConnections,
	}
	if b.Document, err = resource.EncodeJSON(document); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	if b.CAFile, err = checkFile(l.CAFile, "CA file", checkRoots); err != nil {
		return err
	}
	if _, err := checkFile(l.TokenFile, "token file", func(data []byte) error { return checkToken(strings.TrimSpace(string(data))) }); err != nil {
		return err
	}
	envoy, err := Locate(ctx, l.Envoy)
	if err != nil {
		return err
	}
	dir, release, err := workDir(l.WorkDir)
	if err != nil {
		return err
	}
	defer release()
	if err := makeCaches(dir); err != nil {
		return err
	}
	b.AdminSocket, b.TokenFile = filepath.Join(dir, "admin.sock"), filepath.Join(dir, "token")
	b.Logs = LogPipe
	if b.Modules, err = modules(dir, l.Log); err != nil {
		return err
	}
	token := &tokenCopy{from: l.TokenFile, to: b.TokenFile, log: l.Log}
	if err := token.update(); err != nil {
		return err
	}
	path, err := b.Write(dir)
	if err != nil {
		return err
	}
	level := l.EnvoyLog
	if level == "" {
		level = "warning"
	}
	observer, err := l.observe(dir, b.AdminSocket)
	if err != nil {
		return err
	}
	defer observer.stop()
	supervisor, err := New(Config{
		Path: envoy.Path, Args: Arguments(path, l.Drain, level), Dir: dir, AdminSocket: b.AdminSocket, Drain: l.Drain,
		Stdout: l.Stdout, Stderr: l.Stderr, Files: []*os.File{observer.logs.writer}, Log: l.Log,
	})
	if err != nil {
		return err
	}
	l.Log.Info("the proxy is launched", zap.String("proxy", b.NodeID()), zap.Strings("zone", l.Zone), zap.String("envoy", envoy.Path),
		zap.String("version", envoy.Version), zap.String("admin", b.AdminSocket))
	// What Envoy needs beside it goes on while Envoy drains.
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	all.Go(func() { token.follow(beside) })
	all.Go(func() { keepSmall(beside, l.Log) })
	all.Go(func() { newZoneWatch(b.AdminSocket, strings.Join(l.Zone, ","), l.Log).run(beside) })
	if isGateway(document) {
		c := composer.New(dir, l.Log)
		listener, err := c.Listen()
		if err != nil {
			stop()
			all.Wait()
			return err
		}
		all.Go(func() {
			if err := c.Run(beside, listener); err != nil {
				l.Log.Error("the composer ended", zap.Error(err))
			}
		})
	}
	err = supervisor.Run(ctx)
	stop()
	all.Wait()
	return err
}

// isGateway tells whether a document is that of a gateway, of which compositions are a function.
func isGateway(r *resource.Resource) bool {
	d, ok := r.Spec.(*meshv1.Dataplane)
	return ok && d.GetNetworking().GetGateway() != nil
}

// checkFile gives the absolute path of a file that holds what it should: Envoy would say so only in its own log, over and
// over.
func checkFile(path, what string, check func([]byte) error) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrInput, what, err)
	}
	if err := check(data); err != nil {
		return "", fmt.Errorf("%w: %s %s %w", ErrInput, what, path, err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrInput, what, err)
	}
	return path, nil
}

func checkRoots(data []byte) error {
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return errors.New("holds no certificate in PEM; it is tls/server-ca.crt in the zone's data directory")
	}
	return nil
}

// workDir makes or takes a directory that is this proxy's alone while it runs. release must be called in the end.
func workDir(path string) (dir string, release func(), err error) {
	if path == "" {
		dir, err := os.MkdirTemp("", "zoneforge-")
		if err != nil {
			return "", nil, fmt.Errorf("make a working directory: %w; name one with --work-dir", err)
		}
		return dir, func() { _ = os.RemoveAll(dir) }, nil
	}
	dir, err = filepath.Abs(path)
	if err != nil {
		return "", nil, fmt.Errorf("working directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("working directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", nil, fmt.Errorf("working directory: %w", err)
	}
	// Whoever can write there could swap the bootstrap, and with it everything the proxy does.
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return "", nil, fmt.Errorf("working directory %s can be written by others (mode %04o): chmod 700 it, or name another with --work-dir", dir, mode)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("working directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return "", nil, fmt.Errorf("working directory %s is another proxy's, which still runs: give each its own with --work-dir: %w", dir, err)
	}
	return dir, func() { _ = lock.Close() }, nil // closing unlocks
}
