// Package zone runs one replica of a zone control plane: it owns its configuration, its data directory's layout, the order in
// which its parts start and stop, and the one goroutine that owns the zone's state.
//
// It never matches a policy or builds a resource itself (packages state, proxyir, ingress and xds do), never decides who a
// proxy is (admission) and never signs (identity). It needs global only for what is new: everything that its proxies need is
// in its data directory, so it serves at once after a start, whether global is there or not.
//
// A data directory holds:
//
//	state.db, identity  what global said, the intermediates of meshes and the known endpoints (package disk)
//	zone                whose directory it is (package disk)
//	tls/                the server certificate and its authority: tls/server-ca.crt is what proxies are given
package zone

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/pki"
)

// DefaultEndpointGrace is how long endpoints known from disk, or from a replica that went, stay until their proxies are back. Those of a
// replica that vanished notice within 35 s.
const DefaultEndpointGrace = time.Minute

// Config of a replica. Name, DataDir, GlobalAddresses, GlobalCAFile and TokenFile are needed; all else has a default.
type Config struct {
	// Name of the zone.
	Name string
	// DataDir is made with mode 0700.
	DataDir string
	// GlobalAddresses are host:port of the KDS of global's replicas. The zone is connected to one of them, and goes to the next when
	// that one goes.
	GlobalAddresses []string
	// GlobalCAFile holds PEM of the roots that prove global.
	GlobalCAFile string
	// TokenFile holds the zone's token; it is read before each stream, so a renewed token needs no restart.
	TokenFile string
	// XDSAddress and RESTAddress are host:port; default :5678 and :5683. Port 0 takes a free one, see Addresses.
	XDSAddress, RESTAddress string
	// MetricsTokenFile holds a token of the operator's choice that /metrics asks for, read at each request; empty asks for none.
	MetricsTokenFile string
	// Hosts are names and addresses for the server certificate, besides this machine's.
	Hosts []string
	// TLSCertFile and TLSKeyFile are an operator's server certificate, read again when they change.
	TLSCertFile, TLSKeyFile string
	// Version of the software.
	Version string
	// Replica names this one; default the name of the host.
	Replica string
	// Logger may be nil.
	Logger *zap.Logger
	Limits Limits
	// EndpointGrace; DefaultEndpointGrace when 0.
	EndpointGrace time.Duration
	// Rests is called when nothing has happened for a while, once until something does; nil for nothing.
	Rests func()
	// Returning is called with how many proxies are known from disk before the first of them can come back, and with 0 when they are back,
	// or are not waited for any more; nil for nothing. It must not block.
	Returning func(proxies int)
	// Gossip joins the replicas of the zone.
	Gossip Gossip
	// SVIDLifetime is used where a mesh sets none; that of package pki when 0.
	SVIDLifetime time.Duration
}

// commonName is in the certificate that each replica of a zone makes for itself, for proxies that know several replicas, see package
// dataplane.
const commonName = "zoneforge-zone"

// hostName is what a certificate may be made for; a host that is called otherwise is reached by its address.
var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)

// Addresses are those that a replica listens on, as host:port.
type Addresses struct{ XDS, REST string }

// Zone is one replica.
type Zone struct {
	cfg     Config
	log     *zap.Logger
	running atomic.Bool

	mu        sync.Mutex
	addresses Addresses // guarded by mu
}

// New checks the configuration; it touches neither disk nor network.
func New(cfg Config) (*Zone, error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("zone: "+format, args...)) }
	for _, f := range []struct{ name, value string }{
		{"name", cfg.Name}, {"data-dir", cfg.DataDir}, {"global", strings.Join(cfg.GlobalAddresses, ",")}, {"global-ca", cfg.GlobalCAFile}, {"token-file", cfg.TokenFile},
	} {
		if f.value == "" {
			wrong("%s is not set; set it", f.name)
		}
	}
	if cfg.Name != "" {
		if _, err := pki.NewTrustDomain(cfg.Name, "mesh", "domain"); err != nil {
			wrong("name %q can't be part of a trust domain: %w", cfg.Name, err)
		}
	}
	cfg.XDSAddress, cfg.RESTAddress = cmp.Or(cfg.XDSAddress, ":5678"), cmp.Or(cfg.RESTAddress, ":5683")
	addresses := []struct{ name, address string }{{"xds-address", cfg.XDSAddress}, {"rest-address", cfg.RESTAddress}}
	for _, a := range cfg.GlobalAddresses {
		addresses = append(addresses, struct{ name, address string }{"global", a})
	}
	for _, a := range addresses {
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			wrong("%s %q is not host:port: %w", a.name, a.address, err)
		}
	}
	if (cfg.TLSCertFile == "") != (cfg.TLSKeyFile == "") {
		wrong("tls-cert-file and tls-key-file belong together; set both or none")
	}
	if cfg.EndpointGrace < 0 || cfg.SVIDLifetime < 0 {
		wrong("a duration is negative: endpoint-grace %s, lifetime of SVIDs %s", cfg.EndpointGrace, cfg.SVIDLifetime)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	cfg.EndpointGrace = cmp.Or(cfg.EndpointGrace, DefaultEndpointGrace)
	if cfg.Replica == "" {
		if cfg.Replica, _ = os.Hostname(); cfg.Replica == "" {
			cfg.Replica = "zone"
		}
	}
	if err := cfg.Gossip.check(cfg.Replica); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return &Zone{
		cfg: cfg, log: cfg.Logger.With(zap.String("zone", cfg.Name), zap.String("replica", cfg.Replica)),
	}, nil
}

// Addresses are known when the zone serves xDS; empty before. What it serves may still be empty, see /readyz.
func (z *Zone) Addresses() Addresses {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.addresses
}

// CAFile is what proxies and scrapers are given to trust this zone; empty with an operator's certificate.
func (z *Zone) CAFile() string {
	if z.cfg.TLSCertFile != "" {
		return ""
	}
	return filepath.Join(z.tlsDir(), "server-ca.crt")
}

func (z *Zone) tlsDir() string { return filepath.Join(z.cfg.DataDir, "tls") }

// hosts are the names and addresses that the server certificate is made for.
func (z *Zone) hosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1", commonName}
	if name, err := os.Hostname(); err == nil && hostName.MatchString(name) {
		hosts = append(hosts, name)
	}
	for _, address := range []string{z.cfg.XDSAddress, z.cfg.RESTAddress} {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
			if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
				hosts = append(hosts, host)
			}
		}
	}
	return append(hosts, z.cfg.Hosts...)
}
