package global

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zoneforge/zoneforge/global/rest"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/resource"
)

// metrics are what a replica tells Prometheus. Names begin with zoneforge_; they are kept between versions.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	commits  *prometheus.CounterVec
	held     *prometheus.CounterVec
}

func newMetrics(r *prometheus.Registry) *metrics {
	m := &metrics{
		registry: r,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zoneforge_rest_requests_total", Help: "Answered requests of the REST API.",
		}, []string{"method", "route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "zoneforge_rest_request_seconds", Help: "How long requests of the REST API took, without those that watch.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"method"}),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zoneforge_changes_total", Help: "Changes that users asked this replica to commit.",
		}, []string{"outcome"}),
		held: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zoneforge_rest_refused_total", Help: "Requests of the REST API that asked for too much, by what of.",
		}, []string{"reason"}),
	}
	for _, reason := range rest.Reasons() {
		m.held.WithLabelValues(reason)
	}
	for _, outcome := range []string{"committed", "conflict", "failed"} {
		m.commits.WithLabelValues(outcome)
	}
	r.MustRegister(m.requests, m.seconds, m.commits, m.held, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// storeCollector reads the store's figures when they are asked for.
type storeCollector struct{ store *store.Store }

var (
	revisionDesc   = prometheus.NewDesc("zoneforge_store_revision", "Revision of the newest state that this replica holds.", nil, nil)
	recordsDesc    = prometheus.NewDesc("zoneforge_store_resources", "Resources in the store.", []string{"kind"}, nil)
	reloadsDesc    = prometheus.NewDesc("zoneforge_store_reloads_total", "Times that the whole state was read again.", nil, nil)
	mismatchesDesc = prometheus.NewDesc("zoneforge_store_mismatches_total", "Times that the state differed from the digest in etcd.", nil, nil)
	keysDesc       = prometheus.NewDesc("zoneforge_store_keys_total", "Keys that went to etcd (written) and came from there (read).", []string{"way"}, nil)
	bytesDesc      = prometheus.NewDesc("zoneforge_store_bytes_total", "Bytes of these keys and their values.", []string{"way"}, nil)
	visitedDesc    = prometheus.NewDesc("zoneforge_store_visited_total", "Resources that were looked at in the state held here.", nil, nil)
	unreadableDesc = prometheus.NewDesc("zoneforge_store_unreadable", "Resources that this version can't read.", nil, nil)
)

func (c storeCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c storeCollector) Collect(ch chan<- prometheus.Metric) {
	snap, stats := c.store.Snapshot(), c.store.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(revisionDesc, float64(snap.Revision()))
	gauge(unreadableDesc, float64(stats.Unreadable))
	for _, kind := range kindNames {
		d := snap.Digest(kind)
		gauge(recordsDesc, float64(d.Count()), kind)
	}
	ch <- prometheus.MustNewConstMetric(reloadsDesc, prometheus.CounterValue, float64(stats.Reloads))
	ch <- prometheus.MustNewConstMetric(mismatchesDesc, prometheus.CounterValue, float64(stats.Mismatches))
	for _, c := range []struct {
		desc   *prometheus.Desc
		count  uint64
		labels []string
	}{
		{keysDesc, stats.Work.KeysRead, []string{"read"}}, {keysDesc, stats.Work.KeysWritten, []string{"written"}},
		{bytesDesc, stats.Work.BytesRead, []string{"read"}}, {bytesDesc, stats.Work.BytesWritten, []string{"written"}},
		{visitedDesc, stats.Work.Visited, nil},
	} {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(c.count), c.labels...)
	}
}

// countingStore counts what users commit.
type countingStore struct {
	*store.Store
	metrics *metrics
}

func (s countingStore) Commit(ctx context.Context, c store.Change) (store.Committed, error) {
	done, err := s.Store.Commit(ctx, c)
	s.metrics.commits.WithLabelValues(outcome(err)).Inc()
	return done, err
}

// observe counts the answers of a handler.
func (m *metrics) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(rec, r)
		// The pattern, not the path: what clients make up must not become labels.
		method := r.Method
		switch method {
		case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete:
		default:
			method = "other"
		}
		m.requests.WithLabelValues(method, r.Pattern, strconv.Itoa(rec.code)).Inc()
		if !strings.HasPrefix(rec.Header().Get("Content-Type"), "application/x-ndjson") {
			m.seconds.WithLabelValues(method).Observe(time.Since(start).Seconds())
		}
	})
}

// recorder remembers the code of an answer.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController reach what is beneath.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func outcome(err error) string {
	switch {
	case err == nil:
		return "committed"
	case errors.Is(err, store.ErrConflict):
		return "conflict"
	}
	return "failed"
}

var kindNames = func() []string {
	var out []string
	for _, k := range resource.Kinds() {
		out = append(out, k.Name)
	}
	return out
}()
