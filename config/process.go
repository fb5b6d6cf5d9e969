package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Log says how a process logs.
type Log struct {
	LogLevel  string `name:"log-level" default:"info" oneof:"debug|info|warn|error" usage:"least severe messages to log"`
	LogFormat string `name:"log-format" default:"auto" oneof:"auto|console|json" usage:"auto is console on a terminal and json otherwise"`
}

// Server is what both kinds of control plane serve with.
type Server struct {
	Hosts       []string `name:"hosts" usage:"names and addresses of this machine for the certificate that it makes itself, besides its host name and loopback"`
	TLSCertFile string   `name:"tls-cert-file" usage:"PEM chain to serve with instead of a certificate of its own"`
	TLSKeyFile  string   `name:"tls-key-file" usage:"PEM key of tls-cert-file"`
	Replica     string   `name:"replica" usage:"name of this replica; default: the machine's host name"`
	// DebugAddress asks nobody who he is, so only this machine may reach it.
	DebugAddress string `name:"debug-address" usage:"loopback host:port that serves profiles of the process (net/http/pprof) to developers, without a token; default: none"`
}

func (s *Server) check() []error {
	errs := pair("tls-cert-file", s.TLSCertFile, "tls-key-file", s.TLSKeyFile)
	if s.DebugAddress == "" {
		return errs
	}
	host, _, err := net.SplitHostPort(s.DebugAddress)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		errs = append(errs, fmt.Errorf("debug-address: %q is not host:port of loopback, and whoever reaches it may read the process: use 127.0.0.1:PORT", s.DebugAddress))
	}
	return errs
}

// Gossip is how replicas of one control plane find each other.
type Gossip struct {
	GossipAddress   string   `name:"gossip-address" usage:"IP:port, over TCP and UDP, where replicas find each other; none for a replica that is alone"`
	GossipAdvertise string   `name:"gossip-advertise" usage:"IP under which the others reach this replica; default: that of gossip-address, or one of this machine"`
	GossipJoin      []string `name:"gossip-join" usage:"host:port of other replicas' gossip, of which one that is up is enough"`
	GossipKeyFile   string   `name:"gossip-key-file" usage:"file of keys that encrypt gossip, in base64, one a line: the first encrypts, all decrypt. It is read again when it changes"`
}

func (g Gossip) check() []error {
	if g.GossipAddress == "" {
		if g.GossipAdvertise != "" || len(g.GossipJoin) > 0 || g.GossipKeyFile != "" {
			return []error{errors.New("gossip-advertise, gossip-join and gossip-key-file are for replicas: set gossip-address, or leave them out")}
		}
		return nil
	}
	errs := address("gossip-address", g.GossipAddress, true)
	if host, _, err := net.SplitHostPort(g.GossipAddress); err == nil && host != "" && net.ParseIP(host) == nil {
		errs = append(errs, fmt.Errorf("gossip-address: %q is no IP address", host))
	}
	if g.GossipAdvertise != "" && net.ParseIP(g.GossipAdvertise) == nil {
		errs = append(errs, fmt.Errorf("gossip-advertise: %q is no IP address", g.GossipAdvertise))
	}
	for _, j := range g.GossipJoin {
		errs = append(errs, address("gossip-join", j, false)...)
	}
	if g.GossipKeyFile == "" {
		errs = append(errs, errors.New("gossip-key-file is not set: replicas trust whoever has the key; make one with: head -c 32 /dev/urandom | base64"))
	}
	return errs
}

// Global is what `global run` is told.
type Global struct {
	DataDir              string        `name:"data-dir" default:"/var/lib/zoneforge/global" required:"true" usage:"directory of all that must outlive the process"`
	RESTAddress          string        `name:"rest-address" default:":5682" required:"true" usage:"host:port of the REST API"`
	KDSAddress           string        `name:"kds-address" default:":5685" required:"true" usage:"host:port where zones connect"`
	Domain               string        `name:"domain" default:"zoneforge" required:"true" usage:"domain of the federation, the end of all trust domains"`
	EtcdEndpoints        []string      `name:"etcd-endpoints" usage:"URLs of an etcd cluster; none runs an etcd in the data directory"`
	EtcdCAFile           string        `name:"etcd-ca-file" usage:"PEM roots that prove etcd"`
	EtcdCertFile         string        `name:"etcd-cert-file" usage:"PEM client certificate for etcd"`
	EtcdKeyFile          string        `name:"etcd-key-file" usage:"PEM key of etcd-cert-file"`
	EtcdUsername         string        `name:"etcd-username" usage:"user of etcd"`
	EtcdPassword         Secret        `name:"etcd-password" flag:"no" usage:"password of etcd-username"`
	KeyEncryptionKeyFile string        `name:"key-encryption-key-file" usage:"file of the key that seals secrets in etcd; default: kek in the data directory"`
	TrustLoopback        bool          `name:"trust-loopback" usage:"take requests from this machine without a token for an admin's"`
	HeartbeatInterval    time.Duration `name:"heartbeat-interval" default:"10s" usage:"how often zones hear of global when nothing else is to be said"`
	PeerAddress          string        `name:"peer-address" default:":5686" required:"true" usage:"host:port where other replicas ask this one; only with gossip-address"`
	RESTRate             int           `name:"rest-rate" default:"200" usage:"requests a second that one client of the REST API may send, and those of five seconds at once; 0 sets no bound"`
	RESTConcurrency      int           `name:"rest-concurrency" default:"128" usage:"requests of one client of the REST API under way at once, those that watch included; 0 sets no bound"`
	RESTConnections      int           `name:"rest-connections" default:"1024" usage:"connections of the REST API; beyond that the address with most of them loses its newest. 0 sets no bound"`
	KDSConnections       int           `name:"kds-connections" default:"8192" usage:"connections of zones; beyond that the address with most of them loses its newest. 0 sets no bound"`
	StreamRate           int           `name:"stream-rate" default:"60" usage:"streams a minute that one zone may begin, and those of half a minute at once; 0 sets no bound"`
	RootSettle           time.Duration `name:"root-settle" default:"10s" usage:"how long a phase of a rotation of roots goes on once all proxies have acknowledged it, for connections that began before: at least as long as proxies try to connect"`
	Gossip
	Server
	Log
}

func (g *Global) check() []error {
	errs := address("rest-address", g.RESTAddress, true)
	errs = append(errs, address("kds-address", g.KDSAddress, true)...)
	errs = append(errs, g.Server.check()...)
	errs = append(errs, pair("etcd-cert-file", g.EtcdCertFile, "etcd-key-file", g.EtcdKeyFile)...)
	errs = append(errs, pair("etcd-username", g.EtcdUsername, "etcd-password", string(g.EtcdPassword))...)
	errs = append(errs, address("peer-address", g.PeerAddress, true)...)
	errs = append(errs, g.Gossip.check()...)
	if g.GossipAddress != "" && len(g.EtcdEndpoints) == 0 {
		errs = append(errs, errors.New("gossip-address is for replicas, which share an etcd: set etcd-endpoints"))
	}
	if len(g.EtcdEndpoints) == 0 && (g.EtcdCAFile != "" || g.EtcdCertFile != "" || g.EtcdUsername != "") {
		errs = append(errs, errors.New("etcd-ca-file, etcd-cert-file and etcd-username are for a cluster: set etcd-endpoints, or leave them out"))
	}
	return errs
}

// Zone is what `zone run` is told.
type Zone struct {
	Name          string        `name:"name" required:"true" usage:"name of the zone"`
	DataDir       string        `name:"data-dir" default:"/var/lib/zoneforge/zone" required:"true" usage:"directory of all that must outlive the process"`
	Global        []string      `name:"global" required:"true" usage:"host:port of global's KDS, of each of its replicas: the zone is connected to one, and goes to the next when that one goes"`
	GlobalCAFile  string        `name:"global-ca" required:"true" usage:"PEM roots that prove global: tls/server-ca.crt in its data directory, of all replicas where they differ"`
	TokenFile     string        `name:"token-file" required:"true" usage:"file of the zone's token, from zoneforge token zone"`
	XDSAddress    string        `name:"xds-address" default:":5678" required:"true" usage:"host:port where proxies connect"`
	RESTAddress   string        `name:"rest-address" default:":5683" required:"true" usage:"host:port of health, readiness and metrics"`
	MetricsToken  string        `name:"metrics-token-file" usage:"file of a token that scrapers of /metrics must send as Bearer; default: none is asked for"`
	EndpointGrace time.Duration `name:"endpoint-grace" default:"60s" usage:"how long endpoints known from disk, or from a replica that went, stay until their proxies are back"`
	SVIDLifetime  time.Duration `name:"svid-lifetime" default:"24h" usage:"how long certificates of workloads live where their mesh does not say"`
	Connections   int           `name:"xds-connections" default:"32768" usage:"connections of proxies; beyond that the address with most of them loses its newest. 0 sets no bound"`
	StreamRate    int           `name:"stream-rate" default:"60" usage:"streams a minute that one proxy may begin, and those of half a minute at once; 0 sets no bound"`
	Gossip
	Server
	Log
}

func (z *Zone) check() []error {
	errs := address("xds-address", z.XDSAddress, true)
	for _, g := range z.Global {
		errs = append(errs, address("global", g, false)...)
	}
	errs = append(errs, address("rest-address", z.RESTAddress, true)...)
	errs = append(errs, z.Gossip.check()...)
	return append(errs, z.Server.check()...)
}

// Dataplane is what `dataplane run` is told.
type Dataplane struct {
	File       string        `name:"file" required:"true" usage:"document of the Dataplane or ZoneIngress; - for standard input"`
	Select     string        `name:"select" usage:"name of the document to run where the file holds several"`
	Zone       []string      `name:"zone" required:"true" usage:"host:port of the zone's xDS: a name may lead to all replicas; several must be IP addresses, one a replica. The proxy is connected to one, and goes to another when that one goes"`
	CAFile     string        `name:"ca" required:"true" usage:"PEM roots that prove the zone: tls/server-ca.crt in its data directory, of all replicas where they differ"`
	ServerName string        `name:"server-name" usage:"name in the zone's certificate; default: the host of zone, and with several the name that certificates of zones have in common"`
	TokenFile  string        `name:"token-file" required:"true" usage:"file of the proxy's token, from zoneforge token dataplane or zone-ingress"`
	Envoy      string        `name:"envoy" usage:"path of Envoy; default: .tools/bin/envoy, then PATH"`
	WorkDir    string        `name:"work-dir" usage:"directory for the bootstrap and the admin socket; default: a temporary one"`
	Drain      time.Duration `name:"drain" default:"5s" usage:"how long open connections may go on after a stop was asked for; 0s for not at all"`
	MaxConns   int           `name:"max-connections" default:"50000" usage:"connections of clients that Envoy has at once, on all of its listeners; more are closed. 0 sets no bound"`
	EnvoyLog   string        `name:"envoy-log-level" default:"warning" oneof:"trace|debug|info|warning|error|critical|off" usage:"Envoy's own log level"`
	Log
}

func (d *Dataplane) check() []error {
	var errs []error
	for _, z := range d.Zone {
		errs = append(errs, address("zone", z, false)...)
	}
	return errs
}

// address checks host:port; listening allows no host, and port 0 for one that the system picks.
func address(name, value string, listening bool) []error {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return []error{fmt.Errorf("%s: %q is not host:port", name, value)}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 && !listening {
		return []error{fmt.Errorf("%s: %q needs a port from 1 to 65535", name, value)}
	}
	if host == "" && !listening {
		return []error{fmt.Errorf("%s: %q needs a host before the port", name, value)}
	}
	return nil
}

// pair checks that of two settings both are set, or none.
func pair(a, valueA, b, valueB string) []error {
	if (valueA == "") == (valueB == "") {
		return nil
	}
	missing, there := a, b
	if valueA != "" {
		missing, there = b, a
	}
	return []error{fmt.Errorf("%s is set without %s: set both, or none", there, missing)}
}
