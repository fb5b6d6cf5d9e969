package zone

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/state"
)

// metrics are what a replica tells Prometheus. Names begin with zoneforge_zone_ and are kept between versions; none has a
// label for a mesh or a proxy, so that a scraper learns nothing of tenants.
type metrics struct {
	registry  *prometheus.Registry
	proxies   prometheus.Gauge
	settled   prometheus.Gauge
	revision  prometheus.Gauge
	live      prometheus.Gauge
	records   prometheus.Gauge
	standing  prometheus.Gauge
	rejected  prometheus.Gauge
	flush     prometheus.Histogram
	builds    prometheus.Counter
	endpoints prometheus.Counter
	nacks     prometheus.Counter
	refused   prometheus.Counter
	welcomes  prometheus.Counter
	repairs   prometheus.Counter
	lost      prometheus.Counter

	// What changes took; the rest of it is counted by the server of proxies.
	examined  prometheus.Counter
	resources prometheus.Counter
	bytes     prometheus.Counter
}

// servedCollector reads what a server of proxies did when it is asked for; its server is set before it is registered.
type servedCollector struct{ server *server.Server }

var (
	toldDesc      = prometheus.NewDesc("zoneforge_zone_streams_told_total", "Times that a proxy's stream was given something to look at.", nil, nil)
	responsesDesc = prometheus.NewDesc("zoneforge_zone_responses_total", "Responses that were sent to proxies.", nil, nil)
	sentDesc      = prometheus.NewDesc("zoneforge_zone_sent_resources_total", "Resources in the responses that were sent to proxies.", nil, nil)
	sentBytesDesc = prometheus.NewDesc("zoneforge_zone_sent_bytes_total", "Bytes of the resources that were sent to proxies.", nil, nil)
)

func (c servedCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c servedCollector) Collect(ch chan<- prometheus.Metric) {
	w := c.server.Work()
	for desc, n := range map[*prometheus.Desc]uint64{toldDesc: w.Told, responsesDesc: w.Responses, sentDesc: w.Resources, sentBytesDesc: w.Bytes} {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n))
	}
}

// siblingsCollector reads what a replica knows of others when it is asked for.
type siblingsCollector struct{ siblings *siblings }

var (
	replicasDesc  = prometheus.NewDesc("zoneforge_zone_replicas", "Replicas of the zone that are alive as far as this one knows, itself included.", nil, nil)
	claimsDesc    = prometheus.NewDesc("zoneforge_zone_replica_records", "Records that the replicas of the zone share: one for each, and for each proxy that serves.", nil, nil)
	asideDesc     = prometheus.NewDesc("zoneforge_zone_replica_aside", "1 while this replica sends proxies to others, as it is cut off from global and behind them.", nil, nil)
	partedDesc    = prometheus.NewDesc("zoneforge_zone_replicas_parted", "Replicas of the zone that this one has lost, and that may live: what they had stays.", nil, nil)
	exchangesDesc = prometheus.NewDesc("zoneforge_zone_replica_repairs_total", "Times that what another replica said was taken over by its difference: when one came, or what it sent was lost.", nil, nil)
)

func (c siblingsCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c siblingsCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.siblings.gossip.Stats()
	ch <- prometheus.MustNewConstMetric(replicasDesc, prometheus.GaugeValue, float64(s.Members))
	ch <- prometheus.MustNewConstMetric(claimsDesc, prometheus.GaugeValue, float64(s.Records))
	aside := 0.0
	if c.siblings.aside.on.Load() {
		aside = 1
	}
	parted, _ := c.siblings.partedFrom(time.Now())
	ch <- prometheus.MustNewConstMetric(partedDesc, prometheus.GaugeValue, float64(len(parted)))
	ch <- prometheus.MustNewConstMetric(asideDesc, prometheus.GaugeValue, aside)
	ch <- prometheus.MustNewConstMetric(exchangesDesc, prometheus.CounterValue, float64(s.Repairs))
}

// work counts what changes took.
func (m *metrics) work(w state.Work) {
	m.examined.Add(float64(w.Examined))
	m.resources.Add(float64(w.Resources))
	m.bytes.Add(float64(w.Bytes))
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "zoneforge_zone_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "zoneforge_zone_" + name, Help: help})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		proxies:  gauge("proxies", "Proxies with a stream."),
		settled:  gauge("proxies_acked", "Proxies that acknowledged all they were given."),
		revision: gauge("revision", "Newest revision of global that became configuration."),
		live:     gauge("revision_live", "Newest revision that is on all proxies that it touches."),
		records:  gauge("records", "Records of global that are held."),
		standing: gauge("proxy_nacks", "Refusals by proxies that stand."),
		rejected: gauge("rejected_records", "Records that are not in force."),
		flush: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "zoneforge_zone_flush_seconds", Help: "Time to turn gathered changes into configuration.",
			Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3}}),
		builds:    counter("proxy_builds_total", "Times that a proxy's configuration was built."),
		endpoints: counter("endpoint_builds_total", "Times that shared endpoints were built."),
		nacks:     counter("proxy_nacks_total", "Refusals by proxies."),
		refused:   counter("proxies_refused_total", "Streams that were not let in."),
		welcomes:  counter("kds_welcomes_total", "Streams to global that were welcomed."),
		repairs:   counter("kds_repairs_total", "Times that what is held differed from what global meant."),
		lost:      counter("kds_lost_total", "Streams to global that ended because frames were missing."),
		examined:  counter("proxies_examined_total", "Times that a proxy was looked at because a change may affect it."),
		resources: counter("resources_built_total", "Resources that were built for proxies."),
		bytes:     counter("resource_bytes_built_total", "Bytes of the resources that were built for proxies."),
	}
	m.registry.MustRegister(m.proxies, m.settled, m.revision, m.live, m.records, m.standing, m.rejected, m.flush, m.builds, m.endpoints, m.nacks,
		m.refused, m.welcomes, m.repairs, m.lost, m.examined, m.resources, m.bytes, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observe(c *core, nacks, rejected int) {
	m.proxies.Set(float64(len(c.proxies)))
	m.settled.Set(float64(c.settled))
	m.revision.Set(float64(c.revisions.taken))
	if n := len(c.revisions.live); n > 0 {
		m.live.Set(float64(c.revisions.live[n-1].Revision))
	}
	m.records.Set(float64(c.heldRecords))
	m.standing.Set(float64(nacks))
	m.rejected.Set(float64(rejected))
}

// scrapes are under way at once; more are answered with 503, as whoever reaches the port may ask, and each looks at all certificates.
const scrapes = 4

// handler serves health and readiness to whoever asks, and metrics to those with the token in a file where one is named; none
// of them tells what a tenant runs.
func (m *metrics) handler(keys *keys, serving *atomic.Bool, tokenFile string) http.Handler {
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, code int, status, detail string) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
		body := map[string]string{"status": status}
		if detail != "" {
			body["detail"] = detail
		}
		_ = json.NewEncoder(w).Encode(body)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok", "") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case !serving.Load():
			say(w, http.StatusServiceUnavailable, "not_ready", "this replica is starting or stopping")
		case keys.VerificationKeys() == nil:
			say(w, http.StatusServiceUnavailable, "not_ready", "this zone has never heard of global: check its address, its CA file and the zone's token")
		default:
			say(w, http.StatusOK, "ok", "")
		}
	})
	figures := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Timeout: 10 * time.Second, MaxRequestsInFlight: scrapes})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if tokenFile != "" && !bears(r, tokenFile) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			say(w, http.StatusUnauthorized, "unauthenticated", "send the token of metrics-token-file as Authorization: Bearer")
			return
		}
		figures.ServeHTTP(w, r)
	})
	return mux
}

// bears tells whether a request has the token in a file. A file that is gone or empty lets nobody in.
func bears(r *http.Request, file string) bool {
	content, err := os.ReadFile(file)
	want := strings.TrimSpace(string(content))
	scheme, got, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return err == nil && want != "" && ok && strings.EqualFold(scheme, "Bearer") &&
		subtle.ConstantTimeCompare([]byte(strings.TrimSpace(got)), []byte(want)) == 1
}
