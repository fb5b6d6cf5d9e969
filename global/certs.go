package global

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/pki/certfile"
)

// recheck is how often the server certificate is looked at: for renewal, or for an operator's new file.
const recheck = time.Minute

// certificate is the servers', replaced without a restart.
type certificate struct {
	load func() (certfile.Server, error)
	log  *zap.Logger
	cur  atomic.Pointer[tls.Certificate]
}

func (g *Global) certificate() (*certificate, error) {
	c := &certificate{log: g.log}
	if g.cfg.TLSCertFile != "" {
		c.load = func() (certfile.Server, error) { return certfile.Load(g.cfg.TLSCertFile, g.cfg.TLSKeyFile, time.Now()) }
	} else {
		dir, hosts := filepath.Join(g.cfg.DataDir, tlsName), g.hosts()
		c.load = func() (certfile.Server, error) {
			return certfile.Ensure(dir, rand.Reader, time.Now(), "zoneforge global", hosts)
		}
	}
	first, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("global: server certificate: %w", err)
	}
	c.cur.Store(&first.Certificate)
	return c, nil
}

// run looks again until ctx ends. What can't be loaded is told, and the last one serves on.
func (c *certificate) run(ctx context.Context) error {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		next, err := c.load()
		if err != nil && !failing {
			c.log.Error("server certificate cannot be renewed", zap.Error(err))
		}
		if failing = err != nil; !failing {
			c.cur.Store(&next.Certificate)
		}
	}
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.cur.Load(), nil },
	}
}
