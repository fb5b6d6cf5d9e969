package certfile

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/pki"
)

var clock = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ensure(t *testing.T, dir string, now time.Time, hosts ...string) Server {
	t.Helper()
	s, err := Ensure(dir, rand.Reader, now, "global", hosts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func same(a, b Server) bool {
	return bytes.Equal(a.Certificate.Certificate[0], b.Certificate.Certificate[0])
}

func TestEnsure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	first := ensure(t, dir, clock, "localhost", "127.0.0.1")
	for name, mode := range map[string]fs.FileMode{CAFile: 0o644, CAKeyFile: 0o600, ServerCertFile: 0o644, ServerKeyFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if again := ensure(t, dir, clock.Add(time.Hour), "127.0.0.1"); !same(first, again) {
		t.Error("a good certificate was replaced")
	}
	more := ensure(t, dir, clock, "localhost", "global.example.com")
	if same(first, more) || !bytes.Equal(first.CA, more.CA) {
		t.Error("a new host must renew the certificate, and only it")
	}
	late := ensure(t, dir, clock.Add(pki.ServerLifetime*3/4), "localhost")
	if same(more, late) || !bytes.Equal(first.CA, late.CA) {
		t.Error("the last third must renew the certificate, and only it")
	}
	if err := os.WriteFile(filepath.Join(dir, ServerKeyFile), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if mended := ensure(t, dir, clock, "localhost"); same(late, mended) {
		t.Error("a damaged key must renew the certificate")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if end := ensure(t, dir, clock.Add(pki.RootLifetime*3/4), "localhost"); bytes.Equal(first.CA, end.CA) {
		t.Error("the authority must be renewed in its last third")
	}
}

func TestDamagedAuthorityIsKept(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"no key":      os.Remove,
		"garbage key": func(path string) error { return os.WriteFile(path, []byte("torn"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			first := ensure(t, dir, clock, "localhost")
			if err := damage(filepath.Join(dir, CAKeyFile)); err != nil {
				t.Fatal(err)
			}
			if _, err := Ensure(dir, rand.Reader, clock, "global", []string{"localhost"}); err == nil {
				t.Fatal("no error")
			}
			if ca, err := os.ReadFile(filepath.Join(dir, CAFile)); err != nil || !bytes.Equal(ca, first.CA) {
				t.Errorf("the authority was replaced: %v", err)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	ensure(t, dir, clock, "localhost")
	ensure(t, other, clock, "localhost")
	cert, key := filepath.Join(dir, ServerCertFile), filepath.Join(dir, ServerKeyFile)
	for name, c := range map[string]struct {
		cert, key string
		now       time.Time
		want      error
	}{
		"good":      {cert, key, clock, nil},
		"no file":   {filepath.Join(dir, "none"), key, clock, fs.ErrNotExist},
		"swapped":   {key, cert, clock, pki.ErrMalformed},
		"other key": {cert, filepath.Join(other, ServerKeyFile), clock, pki.ErrKeyMismatch},
		"expired":   {cert, key, clock.Add(2 * pki.ServerLifetime), pki.ErrExpired},
		"early":     {cert, key, clock.Add(-pki.Backdate - time.Hour), pki.ErrNotYetValid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(c.cert, c.key, c.now); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

func TestHandshake(t *testing.T) {
	s := ensure(t, t.TempDir(), clock, "localhost")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA)
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(far, &tls.Config{Certificates: []tls.Certificate{s.Certificate}}).Handshake()
	}()
	client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: "localhost", Time: func() time.Time { return clock }})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
