package zone

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/pki/certfile"
)

// recheck is how often the server certificate is looked at: for renewal, or for an operator's new file.
const recheck = time.Minute

// certificate is the servers', replaced without a restart.
type certificate struct {
	load    func() (certfile.Server, error)
	log     *zap.Logger
	current atomic.Pointer[tls.Certificate]
}

func (z *Zone) certificate() (*certificate, error) {
	c := &certificate{log: z.log}
	if z.cfg.TLSCertFile != "" {
		c.load = func() (certfile.Server, error) { return certfile.Load(z.cfg.TLSCertFile, z.cfg.TLSKeyFile, time.Now()) }
	} else {
		c.load = func() (certfile.Server, error) {
			return certfile.Ensure(z.tlsDir(), rand.Reader, time.Now(), "zoneforge zone "+z.cfg.Name, z.hosts())
		}
	}
	first, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("zone: server certificate: %w", err)
	}
	c.current.Store(&first.Certificate)
	return c, nil
}

// run looks again until ctx ends. What can't be loaded is told, and the last one serves on.
func (c *certificate) run(ctx context.Context) {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		next, err := c.load()
		if err != nil && !failing {
			c.log.Error("server certificate cannot be renewed", zap.Error(err))
		}
		if failing = err != nil; !failing {
			c.current.Store(&next.Certificate)
		}
	}
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}
