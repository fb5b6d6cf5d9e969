package global

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/pki/certfile"
)

// etcd starts one with TLS on a port of loopback, as a cluster of one; it gives the URL, the file of its roots, and stop.
func etcd(t *testing.T) (endpoint, roots string, stop func()) {
	t.Helper()
	tlsDir := filepath.Join(t.TempDir(), "tls")
	if _, err := certfile.Ensure(tlsDir, rand.Reader, time.Now(), "etcd", []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(t.TempDir(), "etcd")
	cfg.ListenPeerUrls = nil
	cfg.ListenClientUrls = []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
	cfg.ClientTLSInfo.CertFile = filepath.Join(tlsDir, certfile.ServerCertFile)
	cfg.ClientTLSInfo.KeyFile = filepath.Join(tlsDir, certfile.ServerKeyFile)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(e.Close)
	t.Cleanup(stop)
	<-e.Server.ReadyNotify()
	return "https://" + e.Clients[0].Addr().String(), filepath.Join(tlsDir, certfile.CAFile), stop
}

// eventually asks until the answer has a code and a part, or too long.
func (r *running) eventually(code int, token, path, part string) {
	r.Helper()
	end := time.After(patience)
	for {
		got, text := r.do(token, "GET", path, "")
		if got == code && strings.Contains(text, part) {
			return
		}
		select {
		case <-end:
			r.Fatalf("%s: %d %s, want %d with %s", path, got, text, code, part)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestReplicasOnACluster(t *testing.T) {
	endpoint, roots, stopEtcd := etcd(t)
	cfg := func(name string) Config {
		c := config(filepath.Join(t.TempDir(), name))
		c.EtcdEndpoints, c.EtcdTLS, c.Replica = []string{endpoint}, EtcdTLS{CA: roots}, name
		return c
	}
	first, second := cfg("one"), cfg("two")
	one := start(t, first)
	admin := one.admin()

	// A replica without the key of the others says so, and leaves none of its own behind.
	if err := runError(t, second); !strings.Contains(err.Error(), "copy it from another replica") {
		t.Error(err)
	}
	kek := filepath.Join(second.DataDir, "kek")
	if _, err := os.Stat(kek); err == nil {
		t.Error("a key that opens nothing stays")
	}
	if err := os.WriteFile(kek, one.file("kek"), 0o600); err != nil {
		t.Fatal(err)
	}
	two := start(t, second)
	two.want(200, admin, "GET", "/v1/version", "", `"replica":"two"`)
	one.want(200, two.admin(), "GET", "/v1/version", "", `"replica":"one"`)

	one.want(200, admin, "POST", "/v1/changes", `{"message":"by one","resources":[{"type":"Mesh","name":"m"}]}`)
	two.eventually(200, admin, "/v1/meshes/m", `"name":"m"`)
	viewer := one.token(admin, "user", `{"name":"vera","role":"viewer"}`)
	two.want(200, viewer, "GET", "/v1/changes", "", "by one")
	one.want(204, admin, "POST", "/v1/tokens/revocations", `{"token":"`+viewer+`"}`)
	two.eventually(401, viewer, "/v1/changes", "unauthenticated")
	if text := two.want(200, admin, "GET", "/v1/changes", ""); strings.Count(text, "the default mesh") != 1 {
		t.Errorf("the default mesh was made by each replica: %s", text)
	}

	// Without etcd a replica lives on, reads, and says that it should not be asked.
	stopEtcd()
	one.eventually(503, "", "/readyz", "the store does not answer")
	one.want(200, "", "GET", "/healthz", "")
	one.want(200, admin, "GET", "/v1/meshes/m", "", `"name":"m"`)
}

func TestClusterThatCannotBeReached(t *testing.T) {
	endpoint, _, _ := etcd(t)
	cfg := config(t.TempDir())
	cfg.EtcdEndpoints = []string{endpoint} // whose roots are not those of the system
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.openCluster = 500 * time.Millisecond
	if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "check etcd-endpoints, its certificate files") {
		t.Error(err)
	}
	cfg.EtcdTLS.CA = filepath.Join(cfg.DataDir, "none.pem")
	if err := runError(t, cfg); !strings.Contains(err.Error(), "etcd-ca-file") {
		t.Error(err)
	}

	// Told to stop while it starts, it stops without an error.
	cfg.EtcdTLS.CA = ""
	if g, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := g.Run(ctx); err != nil {
		t.Error(err)
	}
}
