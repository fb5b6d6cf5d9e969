package dataplane

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// agentSocket is the launcher's own socket in the directory in which Envoy runs. The zone's listener for metrics leads to it by
// this name.
const agentSocket = "agent.sock"

// scrapeHeader holds what the zone says of a scrape, as a query: label=NAME=VALUE for each label, usedonly, and filter=REGEX.
const scrapeHeader = "x-zoneforge-scrape"

// scraper serves the metrics of one proxy on a unix socket: Envoy's, with labels that tell the proxy from others, and those
// of the launcher. Nothing else of Envoy's admin interface can be reached through it.
type scraper struct {
	socket string
	admin  *http.Client
	logs   *logForwarder
	log    *zap.Logger
}

func newScraper(socket, adminSocket string, logs *logForwarder, log *zap.Logger) *scraper {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", adminSocket)
	}
	return &scraper{socket: socket, logs: logs, log: log, admin: &http.Client{
		Timeout: time.Minute, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}
}

// listen opens the socket, which is the owner's alone.
func (s *scraper) listen() (net.Listener, error) {
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket of metrics: %w", err)
	}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		return nil, fmt.Errorf("socket of metrics: %w", err)
	}
	if err := os.Chmod(s.socket, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("socket of metrics: %w", err)
	}
	return l, nil
}

// run serves until ctx ends.
func (s *scraper) run(ctx context.Context, l net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.scrape)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("metrics are no longer served", zap.Error(err))
	}
	<-stopped
}

func (s *scraper) scrape(w http.ResponseWriter, r *http.Request) {
	asked, err := url.ParseQuery(r.Header.Get(scrapeHeader))
	if err != nil {
		http.Error(w, "what to scrape can't be read", http.StatusBadRequest)
		return
	}
	query := url.Values{}
	for _, name := range []string{"usedonly", "filter"} {
		if asked.Has(name) {
			query.Set(name, asked.Get(name))
		}
	}
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://admin/stats/prometheus?"+query.Encode(), nil)
	if err != nil {
		http.Error(w, "what to scrape can't be read", http.StatusBadRequest)
		return
	}
	response, err := s.admin.Do(request)
	if err != nil {
		http.Error(w, "Envoy does not answer", http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		http.Error(w, "Envoy refuses to tell its metrics", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	labels := labelText(asked["label"])
	out := bufio.NewWriter(w)
	if err := label(out, response.Body, labels); err != nil {
		// The headers are sent: a scraper must not take half for the whole.
		panic(http.ErrAbortHandler)
	}
	var own strings.Builder
	s.logs.metrics(&own)
	if err := label(out, strings.NewReader(own.String()), labels); err != nil || out.Flush() != nil {
		panic(http.ErrAbortHandler)
	}
}

var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labelText is NAME=VALUE pairs as Prometheus has labels.
func labelText(pairs []string) string {
	slices.Sort(pairs)
	var out []string
	for _, pair := range pairs {
		if name, value, ok := strings.Cut(pair, "="); ok {
			out = append(out, name+`="`+escapeLabel.Replace(value)+`"`)
		}
	}
	return strings.Join(out, ",")
}

// maxSample bounds one line of Envoy's metrics, in bytes.
const maxSample = 1 << 20

// label copies metrics and adds labels to each sample.
func label(w *bufio.Writer, r io.Reader, labels string) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxSample)
	for lines.Scan() {
		line := lines.Bytes()
		i := bytes.IndexAny(line, "{ ")
		if len(line) == 0 || line[0] == '#' || i < 0 || labels == "" {
			_, _ = w.Write(line)
		} else {
			rest := line[i:]
			_, _ = w.Write(line[:i])
			_ = w.WriteByte('{')
			_, _ = w.WriteString(labels)
			switch {
			case rest[0] == ' ':
				_ = w.WriteByte('}')
			case bytes.HasPrefix(rest, []byte("{}")):
				rest = rest[1:]
			default:
				_ = w.WriteByte(',')
				rest = rest[1:]
			}
			_, _ = w.Write(rest)
		}
		// A writer keeps its first error.
		if err := w.WriteByte('\n'); err != nil {
			return err
		}
	}
	return lines.Err()
}
