package zone

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zoneforge/zoneforge/sync/stream"
	"github.com/zoneforge/zoneforge/zone/identity"
)

// endsCollector reads until when a zone can go on without global, when it is asked for.
type endsCollector struct {
	identity *identity.Identity
	server   *certificate
	client   *stream.Client
}

var (
	connectedDesc     = prometheus.NewDesc("zoneforge_zone_global_connected", "1 while there is a stream that global has welcomed.", nil, nil)
	identitiesDesc    = prometheus.NewDesc("zoneforge_zone_identities_end_timestamp_seconds", "When the first of the certificates of workloads ends, none of them being renewed; 0 without any.", nil, nil)
	intermediatesDesc = prometheus.NewDesc("zoneforge_zone_intermediates_end_timestamp_seconds", "When the first of the zone's intermediates ends, which global alone renews; 0 without any.", nil, nil)
	serverEndDesc     = prometheus.NewDesc("zoneforge_zone_server_certificate_end_timestamp_seconds", "When the certificate ends by which proxies know the zone.", nil, nil)
)

// Describe is prometheus.Collector's.
func (c endsCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is prometheus.Collector's.
func (c endsCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	end := func(d *prometheus.Desc, at time.Time) {
		if at.IsZero() {
			at = time.Unix(0, 0)
		}
		gauge(d, float64(at.Unix()))
	}
	var identities, intermediates time.Time
	sooner := func(first *time.Time, at time.Time) {
		if !at.IsZero() && (first.IsZero() || at.Before(*first)) {
			*first = at
		}
	}
	for _, s := range c.identity.Statuses() {
		sooner(&identities, s.SVIDsEnd)
		sooner(&intermediates, s.NotAfter)
	}
	end(identitiesDesc, identities)
	end(intermediatesDesc, intermediates)
	if leaf := c.server.current.Load().Leaf; leaf != nil {
		end(serverEndDesc, leaf.NotAfter)
	}
	connected := 0.0
	if c.client.Connected() {
		connected = 1
	}
	gauge(connectedDesc, connected)
}
