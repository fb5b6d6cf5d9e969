// Package global runs a replica of the global control plane: it owns its configuration, its data directory, its certificates,
// the order in which its parts start and stop, and what it says of its health.
//
// It never decides what a resource means (package resource), who may write what (rest), how the state is kept (store), how zones
// are spoken to (sync/stream) or how certificates and tokens are made (ca, pki): it only joins them.
//
// A data directory holds:
//
//	zoneforge.json  whose directory it is: the role, the epoch of the store, the domain of the federation
//	kek             the key that seals secrets in the store, unless Config names another file
//	admin-token     a token of an admin, made on the first start and renewed at starts; once deleted it stays away
//	tls/            the certificate of the servers and its authority: tls/server-ca.crt is what clients are given
//	store/          the embedded etcd, unless Config names a cluster
//
// Two things come into a new federation by themselves. A mesh named default, with a builtin certificate authority in use:
// mutual TLS is on from the first request, and nothing may connect until a TrafficPermission says so. It is an ordinary
// resource, that may be changed and deleted, and does not come back. And the keys that sign tokens.
package global

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/resource"
)

// EtcdTLS are PEM files for the connection to an etcd cluster; any may be empty.
type EtcdTLS struct {
	// CA holds the roots that prove etcd; those of the system when empty.
	CA string
	// Cert and Key prove this replica to etcd.
	Cert, Key string
}

// Gossip is how replicas find each other.
type Gossip struct {
	// Address is IP:port to listen on; empty for a replica that is alone, which needs nothing of all this.
	Address string
	// Advertise is the IP address under which the others reach it; that of Address, or one of this machine, when empty.
	Advertise string
	// Join has host:port of some of the others.
	Join []string
	// KeyFile holds the keys that encrypt gossip: see gossip.ReadKeys. All replicas need the same.
	KeyFile string
}

// Config of a replica. DataDir is needed; all else has a default.
type Config struct {
	// DataDir is made with mode 0700.
	DataDir string
	// EtcdEndpoints of a cluster; empty for the embedded etcd in DataDir.
	EtcdEndpoints []string
	EtcdTLS       EtcdTLS
	// EtcdUsername and EtcdPassword are both set or both empty.
	EtcdUsername, EtcdPassword string
	// KeyEncryptionKeyFile seals secrets in the store; default kek in DataDir, made when there is none. All replicas need the
	// same key.
	KeyEncryptionKeyFile string
	// RESTAddress and KDSAddress are host:port; default :5682 and :5685. Port 0 takes a free one, see Addresses.
	RESTAddress, KDSAddress string
	// Gossip joins replicas that share a cluster of etcd.
	Gossip Gossip
	// PeerAddress is host:port where other replicas ask this one; default :5686. Unused without Gossip.
	PeerAddress string
	// Hosts are names and addresses for the server certificate, besides this machine's.
	Hosts []string
	// TLSCertFile and TLSKeyFile are an operator's server certificate, read again when they change.
	TLSCertFile, TLSKeyFile string
	// Domain of the federation, the end of all trust domains; default zoneforge. It can't change later.
	Domain string
	// TrustLoopback takes requests from this machine that carry no token for an admin's.
	TrustLoopback bool
	// Replica names this one; default the name of the host.
	Replica string
	// Version of the software.
	Version string
	// Schema checks what ProxyTemplates say to Envoy, so that apply refuses what no Envoy would take; nil leaves that to the zones.
	Schema resource.EnvoySchema
	// Logger may be nil.
	Logger *zap.Logger
	Limits Limits
	// HeartbeatInterval of KDS streams; default that of sync/kds.
	HeartbeatInterval time.Duration
	// RootSettle is how long phases of rotations of roots go on once all have acknowledged them: see ca.NewRotator.
	RootSettle time.Duration
}

// Addresses are those that a replica listens on, as host:port.
type Addresses struct{ REST, KDS string }

// Global is one replica.
type Global struct {
	cfg     Config
	log     *zap.Logger
	running atomic.Bool
	metrics *metrics
	// openCluster bounds the first answer of an etcd cluster; shorter in tests.
	openCluster time.Duration
	// compareStore is how often what is here is compared with the store's head, 0 for as often as the store does; seldom in tests that count.
	compareStore time.Duration

	mu        sync.Mutex
	addresses Addresses
}

// New checks the configuration; it touches neither disk nor network.
func New(cfg Config) (*Global, error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("global: "+format, args...)) }
	if cfg.DataDir == "" {
		wrong("a data directory is needed; set data-dir")
	}
	cfg.PeerAddress = cmp.Or(cfg.PeerAddress, ":5686")
	cfg.RESTAddress, cfg.KDSAddress = cmp.Or(cfg.RESTAddress, ":5682"), cmp.Or(cfg.KDSAddress, ":5685")
	for _, a := range []struct{ name, address string }{{"rest-address", cfg.RESTAddress}, {"kds-address", cfg.KDSAddress}, {"peer-address", cfg.PeerAddress}} {
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			wrong("%s %q is not host:port: %w", a.name, a.address, err)
		}
	}
	if (cfg.TLSCertFile == "") != (cfg.TLSKeyFile == "") {
		wrong("tls-cert-file and tls-key-file belong together; set both or none")
	}
	if (cfg.EtcdTLS.Cert == "") != (cfg.EtcdTLS.Key == "") {
		wrong("etcd-cert-file and etcd-key-file belong together; set both or none")
	}
	if (cfg.EtcdUsername == "") != (cfg.EtcdPassword == "") {
		wrong("the user and the password of etcd belong together; set both or none")
	}
	if len(cfg.EtcdEndpoints) == 0 && (cfg.EtcdTLS != EtcdTLS{} || cfg.EtcdUsername != "") {
		wrong("settings of an etcd cluster are given without etcd-endpoints; set it, or leave them out")
	}
	if _, err := cfg.Gossip.config(); err != nil {
		errs = append(errs, err)
	}
	if cfg.Gossip.Address != "" && (cfg.Gossip.KeyFile == "" || len(cfg.EtcdEndpoints) == 0) {
		wrong("replicas need a key for their gossip and an etcd that they share; set gossip-key-file and etcd-endpoints")
	}
	if cfg.HeartbeatInterval < 0 {
		wrong("the heartbeat interval %s is negative", cfg.HeartbeatInterval)
	}
	if cfg.RootSettle < 0 {
		wrong("the time in which a rotation of roots settles, %s, is negative", cfg.RootSettle)
	}
	cfg.Domain = cmp.Or(cfg.Domain, "zoneforge")
	if _, err := pki.NewTrustDomain("zone", "mesh", cfg.Domain); err != nil {
		wrong("domain %q of the federation: %w", cfg.Domain, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if cfg.KeyEncryptionKeyFile == "" {
		cfg.KeyEncryptionKeyFile = filepath.Join(cfg.DataDir, kekName)
	}
	if cfg.Replica == "" {
		if cfg.Replica, _ = os.Hostname(); cfg.Replica == "" {
			cfg.Replica = "global"
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return &Global{
		cfg: cfg, log: cfg.Logger, openCluster: defaultOpenCluster,
		metrics: newMetrics(prometheus.NewRegistry()),
	}, nil
}

// Addresses are known when the replica serves REST and KDS; empty before.
func (g *Global) Addresses() Addresses {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addresses
}

// hostName is what a certificate can be for; the name of a machine may be any text.
var hostName = regexp.MustCompile(`(?i)^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)

// hosts of the server certificate: those asked for, this machine's names, and the hosts that are listened on.
func (g *Global) hosts() []string {
	out := append([]string{"localhost", "127.0.0.1", "::1"}, g.cfg.Hosts...)
	if name, err := os.Hostname(); err == nil && hostName.MatchString(name) {
		out = append(out, name)
	}
	for _, a := range []string{g.cfg.RESTAddress, g.cfg.KDSAddress} {
		host, _, _ := net.SplitHostPort(a) // New looked at it
		if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
			out = append(out, host)
		}
	}
	return out
}
