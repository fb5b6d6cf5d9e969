package global

import (
	"fmt"
	"net"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zoneforge/zoneforge/global/peers"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/zones"
	"github.com/zoneforge/zoneforge/gossip"
	"github.com/zoneforge/zoneforge/overload"
)

// config is what package gossip is told.
func (g Gossip) config() (gossip.Config, error) {
	if g.Address == "" {
		return gossip.Config{}, nil
	}
	host, port, err := net.SplitHostPort(g.Address)
	if err != nil {
		return gossip.Config{}, fmt.Errorf("global: gossip-address %q is not IP:port: %w", g.Address, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || host != "" && net.ParseIP(host) == nil {
		return gossip.Config{}, fmt.Errorf("global: gossip-address %q is not IP:port; set an address of this machine", g.Address)
	}
	return gossip.Config{BindAddress: host, BindPort: int(n), AdvertiseAddress: g.Advertise, Join: g.Join}, nil
}

// peerConnections bounds those of other replicas, of which each has one.
const peerConnections = 256

// join starts this replica's part among the others; nil when it is alone.
func (g *Global) join(st *stage, s *store.Store, registry *zones.Registry, key *store.KeyFile, ports portsCollector) (*peers.Peers, error) {
	if g.cfg.Gossip.Address == "" {
		return nil, nil
	}
	cfg, err := g.cfg.Gossip.config()
	if err != nil {
		return nil, err
	}
	listener, err := listen("peer-address", g.cfg.PeerAddress)
	if err != nil {
		return nil, err
	}
	ports["peer"] = overload.Listen(listener, peerConnections)
	p, err := peers.New(peers.Config{
		Name: g.cfg.Replica, Gossip: cfg, KeysFile: g.cfg.Gossip.KeyFile, Listener: ports["peer"], Registry: registry, Away: s.Away, Keys: key.IDs, Logger: g.log,
	})
	if err != nil {
		_ = listener.Close() // nobody was answered on it yet
		return nil, fmt.Errorf("global: %w", err)
	}
	st.start("replicas", p.Run)
	return p, nil
}

// replicas lists them for the REST API.
func (g *Global) replicas(s *store.Store, registry *zones.Registry, others *peers.Peers) func() any {
	return func() any {
		if others != nil {
			return others.Replicas()
		}
		return []peers.Replica{{Name: g.cfg.Replica, Self: true, Away: s.Away(), Zones: registry.Here()}}
	}
}

// replicasCollector reads figures about replicas when they are asked for.
type replicasCollector struct {
	store *store.Store
	zones *zones.Registry
	peers *peers.Peers // nil when this one is alone
}

var (
	replicasDesc    = prometheus.NewDesc("zoneforge_replicas", "Replicas of global that are alive as far as this one knows, itself included.", nil, nil)
	storeAwayDesc   = prometheus.NewDesc("zoneforge_store_away", "1 while etcd does not answer this replica.", nil, nil)
	zoneStreamsDesc = prometheus.NewDesc("zoneforge_zone_streams", "Streams of zones that this replica has.", nil, nil)
	sentAwayDesc    = prometheus.NewDesc("zoneforge_zones_sent_away_total", "Times that a zone was sent to another replica, as etcd did not answer this one.", nil, nil)
)

// Describe is prometheus.Collector's.
func (c replicasCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is prometheus.Collector's.
func (c replicasCollector) Collect(ch chan<- prometheus.Metric) {
	figure := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, v)
	}
	replicas, away := 1, 0.0
	if c.peers != nil {
		replicas = len(c.peers.Replicas())
	}
	if c.store.Away() {
		away = 1
	}
	streams, sentAway := c.zones.Counts()
	figure(replicasDesc, prometheus.GaugeValue, float64(replicas))
	figure(storeAwayDesc, prometheus.GaugeValue, away)
	figure(zoneStreamsDesc, prometheus.GaugeValue, float64(streams))
	figure(sentAwayDesc, prometheus.CounterValue, float64(sentAway))
}
