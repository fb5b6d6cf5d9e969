package global

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/zoneforge/zoneforge/global/peers"
	"github.com/zoneforge/zoneforge/global/rest"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/view"
	"github.com/zoneforge/zoneforge/global/zones"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/sync/stream"
)

const (
	// Zones say something at every heartbeat, so these find only connections that are dead below gRPC.
	keepaliveAfter   = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	// keepaliveLeast is how often a zone may ask whether the connection lives.
	keepaliveLeast = 5 * time.Second
	// handshake bounds TLS and HTTP/2 of a new connection.
	handshake = 10 * time.Second
	// connectionIdle is how long a connection may have no stream: one that was refused, or that never asked for any.
	connectionIdle = time.Minute
	// streamsPerConnection: a zone needs one, and another while it reconnects.
	streamsPerConnection = 4
)

// grpcServer makes the server of KDS.
func grpcServer(t *tls.Config) *grpc.Server {
	return grpc.NewServer(append(stream.ServerOptions(),
		grpc.Creds(credentials.NewTLS(t)),
		grpc.ConnectionTimeout(handshake), grpc.MaxConcurrentStreams(streamsPerConnection), grpc.MaxHeaderListSize(64<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveAfter, Timeout: keepaliveTimeout, MaxConnectionIdle: connectionIdle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveLeast, PermitWithoutStream: true}),
	)...)
}

// serveKDS serves zones on a listener until its stage ends by stopKDS.
func serveKDS(st *stage, l net.Listener, t *tls.Config, r *zones.Registry) *grpc.Server {
	server := grpcServer(t)
	kdsv1.RegisterKDSServer(server, r.Server())
	st.start("KDS server", func(context.Context) error { return server.Serve(l) })
	return server
}

// stopKDS tells zones to go to another replica, and joins their streams.
func stopKDS(st *stage, server *grpc.Server, r *zones.Registry, log *zap.Logger) {
	st.cancel()
	end, cancel := context.WithTimeout(context.Background(), stopping)
	defer cancel()
	if err := r.Server().Shutdown(end); err != nil {
		log.Warn("zones were cut off", zap.Error(err))
	}
	// What was said last is still on its way: a plain Stop would cut it off.
	hurry := context.AfterFunc(end, server.Stop)
	server.GracefulStop()
	hurry()
	st.stop()
	r.Server().Wait()
}

// zonesOf shows the registry of zones to the REST API.
type zonesOf struct {
	*zones.Registry
	others *peers.Peers // nil when this replica is alone
}

// Statuses is rest.Zones's.
func (z zonesOf) Statuses() any { return z.Registry.Statuses() }

// Status is rest.Zones's.
func (z zonesOf) Status(zone string) (any, bool) { return z.Registry.Status(zone) }

// Receipt is rest.Zones's.
func (z zonesOf) Receipt(c *store.ShownChange) (any, bool) {
	r := z.Registry.Receipt(c)
	return r, r.Live || r.Complete
}

// noProxy is what a zone answers that knows none of the name.
const noProxy = "no such proxy"

// Ask is rest.Zones's.
func (z zonesOf) Ask(ctx context.Context, zone string, q *kdsv1.Query) ([]byte, error) {
	if _, ok := z.Registry.Status(zone); !ok {
		return nil, rest.ErrNoZone
	}
	answer, err := z.Registry.Ask(ctx, zone, q)
	if z.others != nil {
		answer, err = z.askOthers(ctx, zone, q, answer, err)
	}
	switch {
	case errors.Is(err, stream.ErrNotConnected):
		return nil, fmt.Errorf("%w: %w", rest.ErrNotConnected, err)
	case errors.Is(err, stream.ErrAnswer) && strings.Contains(err.Error(), noProxy):
		return nil, fmt.Errorf("%w: %w", rest.ErrNoProxy, err)
	}
	return answer, err
}

// askOthers asks the other replicas of global, too, where some of the zone's replicas are connected to them: what all are asked is joined, and a proxy
// may be at any.
func (z zonesOf) askOthers(ctx context.Context, zone string, q *kdsv1.Query, answer []byte, err error) ([]byte, error) {
	switch {
	case zones.Joined(q):
		there := z.others.AskAll(ctx, zone, q)
		if err == nil {
			there[""] = answer
		}
		if len(there) == 0 {
			return z.others.Ask(ctx, zone, q) // for its error
		}
		var answers [][]byte
		for _, name := range slices.Sorted(maps.Keys(there)) {
			answers = append(answers, there[name])
		}
		var silent []string
		for replica, at := range z.Registry.Connected(zone) {
			if there[at] == nil {
				silent = append(silent, replica)
			}
		}
		return zones.Join(q, answers, silent)
	case errors.Is(err, stream.ErrNotConnected), errors.Is(err, stream.ErrAnswer):
		if other, otherErr := z.others.Ask(ctx, zone, q); otherErr == nil || errors.Is(err, stream.ErrNotConnected) {
			return other, otherErr
		}
	}
	return answer, err
}

// zonesCollector reads the figures of zones when they are asked for.
type zonesCollector struct {
	zones *zones.Registry
	views *view.Views
}

var (
	zonesDesc          = prometheus.NewDesc("zoneforge_zones", "Zones, by whether they are connected to any replica.", []string{"connected"}, nil)
	zoneRevisionDesc   = prometheus.NewDesc("zoneforge_zone_revision", "Revision that a zone has on its disk.", []string{"zone"}, nil)
	zoneSyncDesc       = prometheus.NewDesc("zoneforge_zone_in_sync", "1 when a zone holds exactly what it should.", []string{"zone"}, nil)
	zoneProxiesDesc    = prometheus.NewDesc("zoneforge_zone_proxies", "Connected proxies of a zone.", []string{"zone"}, nil)
	zoneAckedDesc      = prometheus.NewDesc("zoneforge_zone_proxies_acked", "Proxies that acknowledged all that their zone has taken.", []string{"zone"}, nil)
	zoneNacksDesc      = prometheus.NewDesc("zoneforge_zone_proxy_nacks", "Rejections by proxies that stand.", []string{"zone"}, nil)
	zoneRejectedDesc   = prometheus.NewDesc("zoneforge_kds_rejected", "Resources that a zone keeps without using them.", []string{"zone"}, nil)
	zoneHeldOffDesc    = prometheus.NewDesc("zoneforge_kds_streams_held_off_total", "Streams of zones that were refused because a zone began too many.", nil, nil)
	zoneRepairsDesc    = prometheus.NewDesc("zoneforge_kds_repairs_total", "Times that a zone differed from what it had confirmed.", []string{"zone"}, nil)
	lostDesc           = prometheus.NewDesc("zoneforge_kds_lost_total", "Streams of zones that ended because frames were missing.", nil, nil)
	viewRebuildsDesc   = prometheus.NewDesc("zoneforge_view_rebuilds_total", "Times that the view of zones was made from scratch.", nil, nil)
	viewMismatchesDesc = prometheus.NewDesc("zoneforge_view_mismatches_total", "Times that the view of zones differed from the store.", nil, nil)
)

// Describe is prometheus.Collector's.
func (c zonesCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{zonesDesc, zoneRevisionDesc, zoneSyncDesc, zoneProxiesDesc, zoneAckedDesc, zoneNacksDesc,
		zoneRejectedDesc, zoneRepairsDesc, zoneHeldOffDesc, lostDesc, viewRebuildsDesc, viewMismatchesDesc} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (c zonesCollector) Collect(ch chan<- prometheus.Metric) {
	figure := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	connected, gone := 0, 0
	for _, s := range c.zones.Statuses() {
		if s.Connected {
			connected++
		} else {
			gone++
		}
		inSync := 0.0
		if s.InSync {
			inSync = 1
		}
		figure(zoneRevisionDesc, prometheus.GaugeValue, float64(s.Revision), s.Zone)
		figure(zoneSyncDesc, prometheus.GaugeValue, inSync, s.Zone)
		figure(zoneProxiesDesc, prometheus.GaugeValue, float64(s.Proxies), s.Zone)
		figure(zoneAckedDesc, prometheus.GaugeValue, float64(s.Acked), s.Zone)
		figure(zoneNacksDesc, prometheus.GaugeValue, float64(len(s.Nacks)), s.Zone)
		figure(zoneRejectedDesc, prometheus.GaugeValue, float64(len(s.Rejected)), s.Zone)
		figure(zoneRepairsDesc, prometheus.CounterValue, float64(s.Repairs), s.Zone)
	}
	figure(zonesDesc, prometheus.GaugeValue, float64(connected), "true")
	figure(zonesDesc, prometheus.GaugeValue, float64(gone), "false")
	figure(zoneHeldOffDesc, prometheus.CounterValue, float64(c.zones.HeldOff()))
	figure(lostDesc, prometheus.CounterValue, float64(c.zones.Server().Lost()))
	stats := c.views.Stats()
	figure(viewRebuildsDesc, prometheus.CounterValue, float64(stats.Rebuilds))
	figure(viewMismatchesDesc, prometheus.CounterValue, float64(stats.Mismatches))
}
