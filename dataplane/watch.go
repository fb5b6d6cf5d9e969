package dataplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	// watchInterval is how often an Envoy is asked whether it has its zone. One that lacks it twice in a row is told of: a restart of the
	// zone is no news.
	watchInterval = 10 * time.Second
	// An Envoy without its zone is told of again when half of what was left of its certificate has gone, within these bounds.
	leastReminder, mostReminder = time.Minute, 6 * time.Hour
	// urgentShare of what it had when the zone was missed is what a certificate has left when it is urgent to bring the zone back.
	urgentShare = 4
	// maxCertificates bounds an answer of the admin socket, in bytes; it is read piece by piece.
	maxCertificates = 64 << 20
)

// zoneWatch tells when an Envoy goes on without its zone control plane, and for how long it can: its certificates are renewed by
// the zone alone.
type zoneWatch struct {
	// connected is 0 while Envoy has no stream to its zone.
	connected *adminStat
	admin     *http.Client
	zone      string
	log       *zap.Logger

	// since is when the zone was missed first; zero while it is there.
	since time.Time
	// told says that somebody was told, and again is when that is due next.
	told  bool
	again time.Time
}

func newZoneWatch(adminSocket, zone string, log *zap.Logger) *zoneWatch {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", adminSocket)
	}
	return &zoneWatch{zone: zone, log: log, connected: newAdminStat(adminSocket, "control_plane.connected_state"), admin: &http.Client{
		Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}
}

// run looks until ctx ends.
func (w *zoneWatch) run(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	defer w.connected.close()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			w.look(ctx, now)
		}
	}
}

// look asks once. An Envoy that doesn't answer starts or ends, of which its supervisor tells.
func (w *zoneWatch) look(ctx context.Context, now time.Time) {
	connected, err := w.connected.value(ctx)
	switch {
	case err != nil:
		return
	case connected != 0:
		if w.told {
			w.log.Info("the zone control plane is back", zap.Duration("away", now.Sub(w.since).Round(time.Second)))
		}
		w.since, w.told, w.again = time.Time{}, false, time.Time{}
		return
	case w.since.IsZero():
		w.since = now
		return
	case now.Before(w.again):
		return
	}
	until, err := w.identity(ctx)
	if err != nil {
		w.log.Warn("the ends of certificates can't be learnt", zap.Error(err))
	}
	w.told, w.again = true, now.Add(mostReminder)
	fields := []zap.Field{zap.String("zone", w.zone), zap.Time("since", w.since)}
	say := w.log.Warn
	if !until.IsZero() {
		left := until.Sub(now)
		w.again = now.Add(min(max(left/2, leastReminder), mostReminder))
		fields = append(fields, zap.Time("until", until))
		if left <= until.Sub(w.since)/urgentShare {
			say = w.log.Error
		}
	}
	say("the zone control plane is away: the proxy goes on with what it has, until its certificate ends", fields...)
}

// identity is the end of the certificate of the mesh that ends first; zero where Envoy has none.
func (w *zoneWatch) identity(ctx context.Context) (until time.Time, err error) {
	body, err := w.get(ctx, "/certs")
	if err != nil {
		return until, err
	}
	defer body.Close()
	// There is an entry for each cluster, so they are looked at one by one.
	decoder := json.NewDecoder(io.LimitReader(body, maxCertificates))
	for range 3 { // {, "certificates", [
		if _, err := decoder.Token(); err != nil {
			return until, fmt.Errorf("Envoy's list of certificates: %w", err)
		}
	}
	for decoder.More() {
		var entry struct {
			Chain []struct {
				Names []struct {
					URI string `json:"uri"`
				} `json:"subject_alt_names"`
				Until time.Time `json:"expiration_time"`
			} `json:"cert_chain"`
		}
		if err := decoder.Decode(&entry); err != nil {
			return until, fmt.Errorf("Envoy's list of certificates: %w", err)
		}
		for _, c := range entry.Chain {
			if len(c.Names) == 1 && strings.HasPrefix(c.Names[0].URI, "spiffe://") && (until.IsZero() || c.Until.Before(until)) {
				until = c.Until
			}
		}
	}
	return until, nil
}

func (w *zoneWatch) get(ctx context.Context, path string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := w.admin.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("Envoy answers %s to %s", response.Status, path), response.Body.Close())
	}
	return response.Body, nil
}
