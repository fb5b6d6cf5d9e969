package dataplane

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

const ingressDocument = "type: ZoneIngress\nname: ingress-1\nnetworking: {address: 127.0.0.1, port: 10001}\n"

const webDocument = `apiVersion: kuma.io/v1alpha1
kind: Dataplane
metadata: {name: web-1}
spec:
  mesh: shop
  networking:
    address: 127.0.0.1
    inbound:
      - {port: 15006, servicePort: 8080, tags: {kuma.io/service: web}}
`

func put(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadDocument(t *testing.T) {
	dir := t.TempDir()
	both := put(t, filepath.Join(dir, "both.yaml"), webDocument+"---\n"+ingressDocument+"---\ntype: Mesh\nname: shop\n")
	for _, c := range []struct{ name, path, pick, want, problem string }{
		{"by name", both, "web-1", "Dataplane shop/web-1", ""},
		{"ingress", both, "ingress-1", "ZoneIngress ingress-1", ""},
		{"which", both, "", "", "holds web-1, ingress-1: say by --select"},
		{"no such", both, "web-2", "", `holds no proxy "web-2", but web-1, ingress-1`},
		{"none", put(t, filepath.Join(dir, "mesh.yaml"), "type: Mesh\nname: shop\n"), "", "", "holds no Dataplane and no ZoneIngress"},
		{"violation", put(t, filepath.Join(dir, "bad.yaml"), strings.Replace(webDocument, "inbound", "inbund", 1)), "", "", "bad.yaml:8:5:"},
		{"missing", filepath.Join(dir, "missing.yaml"), "", "", "missing.yaml: no such file"},
		{"large", put(t, filepath.Join(dir, "large.yaml"), strings.Repeat("#", maxDocument+1)), "", "", "larger than"},
		{"stdin", "-", "", "ZoneIngress ingress-1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ReadDocument(c.path, c.pick, strings.NewReader(ingressDocument))
			if c.problem != "" {
				if !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), c.problem) {
					t.Errorf("got %v, want ErrInput with %q", err, c.problem)
				}
				return
			}
			if err != nil || r.Key.String() != c.want {
				t.Errorf("got %v, %v, want %s", r, err, c.want)
			}
		})
	}
}

func TestServiceOf(t *testing.T) {
	for want, document := range map[string]string{
		"web":       webDocument,
		"ingress-1": ingressDocument,
		"edge":      "type: Dataplane\nmesh: shop\nname: edge-1\nnetworking: {address: 127.0.0.1, gateway: {type: BUILTIN, tags: {kuma.io/service: edge}}}\n",
	} {
		r, err := ReadDocument("-", "", strings.NewReader(document))
		if err != nil {
			t.Fatal(err)
		}
		if got := serviceOf(r); got != want {
			t.Errorf("service of %s is %q, want %q", r.Key, got, want)
		}
	}
}

func TestLaunchRefusesBeforeItStartsAnything(t *testing.T) {
	dir := t.TempDir()
	_, roots := startZone(t, &zone{})
	good := Launch{
		File: put(t, filepath.Join(dir, "dp.yaml"), webDocument), Zone: []string{"localhost:5678"},
		CAFile: put(t, filepath.Join(dir, "ca.pem"), string(roots)), TokenFile: put(t, filepath.Join(dir, "token"), "abc\n"),
		Envoy: fakeEnvoy(t, filepath.Join(dir, "bin"), "envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL"), Log: zap.NewNop(),
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*Launch)
		is     error
		want   string
	}{
		{"roots missing", func(l *Launch) { l.CAFile += ".old" }, ErrInput, "CA file: open"},
		{"roots are none", func(l *Launch) { l.CAFile = l.File }, ErrInput, "holds no certificate in PEM"},
		{"token missing", func(l *Launch) { l.TokenFile += ".old" }, ErrInput, "token file: open"},
		{"token is none", func(l *Launch) { l.TokenFile = l.File }, ErrInput, "holds no token"},
		{"no Envoy", func(l *Launch) { l.Envoy += ".old" }, ErrEnvoy, "make tools"},
		{"zone", func(l *Launch) { l.Zone = []string{"localhost"} }, nil, "is not host:port"},
		{"work dir of all", func(l *Launch) { l.WorkDir = open }, nil, "chmod 700"},
		{"work dir too long", func(l *Launch) { l.WorkDir = filepath.Join(dir, strings.Repeat("x", 120)) }, nil, "use a shorter directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := good
			c.change(&l)
			if err := l.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestWorkDirIsOneProxysAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	_, release, err := workDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, _, err := workDir(dir); err == nil || !strings.Contains(err.Error(), "which still runs") {
		t.Errorf("got %v", err)
	}
	release()
	if _, release, err = workDir(dir); err != nil {
		t.Fatal(err)
	}
	release()
	temporary, release, err := workDir("")
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := os.Stat(temporary); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind: %v", temporary, err)
	}
}

func TestTokenCopy(t *testing.T) {
	dir := t.TempDir()
	c := &tokenCopy{from: put(t, filepath.Join(dir, "from"), "one\r\n"), to: filepath.Join(dir, "to"), log: zap.NewNop()}
	for _, step := range []struct{ from, want, problem string }{
		{"one\r\n", "one", ""},
		{"  two\n", "two", ""},
		{"", "two", "holds no token"},
		{"", "two", ""}, // told once
		{"three\nfour\n", "two", "holds no token"},
		{"five", "five", ""},
	} {
		put(t, c.from, step.from)
		err := c.update()
		if step.problem == "" && err != nil || step.problem != "" && (!errors.Is(err, ErrInput) || !strings.Contains(err.Error(), step.problem)) {
			t.Errorf("%q: got %v", step.from, err)
		}
		if got, err := os.ReadFile(c.to); err != nil || string(got) != step.want {
			t.Errorf("%q: the copy holds %q, %v, want %q", step.from, got, err, step.want)
		}
	}
	if info, err := os.Stat(c.to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestLaunchRunsARealEnvoyFromADocument(t *testing.T) {
	z := &zone{hellos: make(chan hello), end: make(chan struct{})}
	address, roots := startZone(t, z)
	dir, err := os.MkdirTemp("", "zf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := Launch{
		File: put(t, filepath.Join(dir, "dp.yaml"), webDocument), Zone: []string{address}, ServerName: "zone.example.com",
		CAFile: put(t, filepath.Join(dir, "ca.pem"), string(roots)), TokenFile: put(t, filepath.Join(dir, "token"), "abc\n"),
		Envoy: findEnvoy(t).Path, WorkDir: filepath.Join(dir, "w"), Drain: time.Hour, Log: zap.NewNop(),
	}
	var log bytes.Buffer
	l.Stderr = &log
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	select {
	case h := <-z.hellos:
		if h.id != "Dataplane/shop/web-1" || len(h.authorization) != 1 || h.authorization[0] != "Bearer abc" {
			t.Errorf("node %q with %q", h.id, h.authorization)
		}
		again, err := ReadDocument("-", "", strings.NewReader(h.fields[MetadataDocument]))
		if err != nil || again.Key.String() != "Dataplane shop/web-1" {
			t.Errorf("the document that it presents reads as %v, %v: %s", again, err, h.fields[MetadataDocument])
		}
	case err := <-done:
		t.Fatalf("ended: %v", err)
	case <-ctx.Done():
		<-done
		t.Fatalf("Envoy opened no stream\n%s", log.String())
	}
	// Nobody is connected, so an hour of drain ends at once; else the test would run into its limit.
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
