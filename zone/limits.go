package zone

import (
	"fmt"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zoneforge/zoneforge/overload"
)

// Limits bound what proxies may ask of a replica. A 0 sets no bound.
type Limits struct {
	// Connections of proxies: see overload.Listener for who goes when there are too many.
	Connections int
	// StreamRate is how many streams a minute one proxy may begin, and half as many at once.
	StreamRate int
}

const (
	// restConnections bounds those of health checks and scrapers.
	restConnections = 512
	// connectionIdle is how long a proxy's connection may have no stream: one that was refused, or that never asked for any.
	// gRPC looks at each connection as often, also at those with a stream.
	connectionIdle = 5 * time.Minute
)

// begins bounds how often a proxy begins streams: each end of its last one takes its endpoints from all others, and each beginning
// gives them back.
func (l Limits) begins() *overload.Clients {
	if l.StreamRate <= 0 {
		return overload.NewClients(0, 1)
	}
	return overload.NewClients(time.Minute/time.Duration(l.StreamRate), (l.StreamRate+1)/2)
}

// refusals decide which of the streams that were not let in are told of: a few of each proxy or address for each reason, and not too many
// of all.
type refusals struct{ each, all *overload.Clients }

func newRefusals() *refusals {
	return &refusals{overload.NewClients(10*time.Second, 3), overload.NewClients(100*time.Millisecond, 100)}
}

// numbers, such as those of times, differ between refusals of one reason.
var numbers = regexp.MustCompile(`[0-9]+`)

func (r *refusals) tells(who string, why error, now time.Time) bool {
	return r.each.Ask(who+"\x00"+numbers.ReplaceAllString(why.Error(), "#"), now) == 0 && r.all.Ask("", now) == 0
}

// holdOff refuses a stream of a proxy that began too many.
func (c *core) holdOff(id string) error {
	if wait := c.begins.Ask(id, time.Now()); wait > 0 {
		return fmt.Errorf("it begins streams too often, and the next may begin in %s: find out what ends them, or set a larger stream-rate of the zone",
			wait.Round(time.Millisecond))
	}
	return nil
}

// overloadCollector reads what was too much when it is asked for.
type overloadCollector struct {
	ports   map[string]*overload.Listener
	begins  *overload.Clients
	greeter *greeter
}

var (
	connectionsDesc = prometheus.NewDesc("zoneforge_zone_connections", "Open connections of a port.", []string{"port"}, nil)
	pushedOutDesc   = prometheus.NewDesc("zoneforge_zone_connections_refused_total", "Connections that were closed because a port had too many.", []string{"port"}, nil)
	heldOffDesc     = prometheus.NewDesc("zoneforge_zone_streams_held_off_total", "Streams of proxies that were refused because a proxy began too many.", nil, nil)
	greetingsDesc   = prometheus.NewDesc("zoneforge_zone_handshakes_waiting", "Connections of proxies whose handshake waits for its turn, as after a restart.", nil, nil)
)

// Describe is prometheus.Collector's.
func (c overloadCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is prometheus.Collector's.
func (c overloadCollector) Collect(ch chan<- prometheus.Metric) {
	for port, l := range c.ports {
		ch <- prometheus.MustNewConstMetric(connectionsDesc, prometheus.GaugeValue, float64(l.Open()), port)
		ch <- prometheus.MustNewConstMetric(pushedOutDesc, prometheus.CounterValue, float64(l.Refused()), port)
	}
	ch <- prometheus.MustNewConstMetric(heldOffDesc, prometheus.CounterValue, float64(c.begins.Refused()))
	ch <- prometheus.MustNewConstMetric(greetingsDesc, prometheus.GaugeValue, float64(c.greeter.waiting.Load()))
}
