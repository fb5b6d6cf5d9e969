package global

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/zoneforge/zoneforge/overload"
)

// Limits bound what others may ask of a replica. A 0 sets no bound.
type Limits struct {
	// RESTRate is how many requests a second one client may send, RESTConcurrency how many of them may be under way.
	RESTRate, RESTConcurrency int
	// RESTConnections and KDSConnections are those of a port: see overload.Listener for who goes when there are too many.
	RESTConnections, KDSConnections int
	// StreamRate is how many streams a minute one zone may begin.
	StreamRate int
}

// portsCollector reads the connections of ports, by their names, when it is asked for.
type portsCollector map[string]*overload.Listener

var (
	connectionsDesc = prometheus.NewDesc("zoneforge_connections", "Open connections of a port.", []string{"port"}, nil)
	pushedOutDesc   = prometheus.NewDesc("zoneforge_connections_refused_total", "Connections that were closed because a port had too many.", []string{"port"}, nil)
)

// Describe is prometheus.Collector's.
func (c portsCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is prometheus.Collector's.
func (c portsCollector) Collect(ch chan<- prometheus.Metric) {
	for port, l := range c {
		ch <- prometheus.MustNewConstMetric(connectionsDesc, prometheus.GaugeValue, float64(l.Open()), port)
		ch <- prometheus.MustNewConstMetric(pushedOutDesc, prometheus.CounterValue, float64(l.Refused()), port)
	}
}

// tooMuch counts a request that asked for too much.
func (m *metrics) tooMuch(reason string) { m.held.WithLabelValues(reason).Inc() }
