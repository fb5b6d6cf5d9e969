package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

var (
	// ErrNoZone says that no zone of the name is known.
	ErrNoZone = errors.New("no such zone")
	// ErrNotConnected says that no replica of the zone is connected here, so that it can't be asked.
	ErrNotConnected = errors.New("zone is not connected")
	// ErrNoProxy says that the zone knows no such proxy.
	ErrNoProxy = errors.New("no such proxy")
)

// Zones is what the API needs of the zones; what it gives is encoded as JSON as it is. Safe for concurrent use.
type Zones interface {
	// Statuses of all zones, ordered by name; a slice.
	Statuses() any
	// Status of one zone; ok is false when there is none of the name.
	Status(zone string) (status any, ok bool)
	// Receipt says how far a change went; done when nothing more is expected.
	Receipt(change *store.ShownChange) (receipt any, done bool)
	// Changed closes when any of the above may have changed.
	Changed() <-chan struct{}
	// Ask asks a zone until ctx ends; the answer is JSON. Errors wrap ErrNoZone, ErrNotConnected, ErrNoProxy or ctx's, or are what
	// the zone said.
	Ask(ctx context.Context, zone string, q *kdsv1.Query) ([]byte, error)
}

const (
	defaultWatch = time.Minute
	maxWatch     = time.Hour
	// A watcher rests after each line for restShare times as long as the line took, within these bounds: what waits for a receipt
	// hears of it at once, and watchers of thousands of zones leave most of the time to the zones.
	restShare        = 8
	minRest, maxRest = time.Millisecond, 100 * time.Millisecond
	// lineTimeout is how long a watcher may take to read a line.
	lineTimeout = 10 * time.Second
	askTimeout  = 10 * time.Second
	maxAnswer   = 16 << 20
)

func (a *api) zoneStatuses(w http.ResponseWriter, _ *http.Request, _ Principal) *problem {
	writeJSON(w, http.StatusOK, map[string]any{"items": a.Zones.Statuses()})
	return nil
}

func (a *api) zoneStatus(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	s, ok := a.Zones.Status(r.PathValue("zone"))
	if !ok {
		return unknownZone(r.PathValue("zone"))
	}
	writeJSON(w, http.StatusOK, s)
	return nil
}

func unknownZone(zone string) *problem {
	return newProblem(http.StatusNotFound, "not_found", "zone "+strconv.Quote(zone)+" is not known", "list the zones to see which have connected")
}

// change reads the change that a route names.
func (a *api) change(r *http.Request) (*store.ShownChange, *problem) {
	seq, err := strconv.ParseInt(r.PathValue("seq"), 10, 64)
	if err != nil || seq < 1 {
		return nil, newProblem(http.StatusNotFound, "not_found", "a change is named by its number", "list the changes to see their numbers")
	}
	c, err := a.Store.ShowChange(r.Context(), seq)
	if err != nil {
		return nil, a.storeProblem(err)
	}
	return c, nil
}

// receipt answers once, or with watch=true by a line whenever the receipt moves, until it is complete or time is up.
func (a *api) receipt(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	watch, timeout := false, defaultWatch
	switch r.URL.Query().Get("watch") {
	case "", "false":
	case "true":
		watch = true
	default:
		return newProblem(http.StatusBadRequest, "bad_query", "watch is neither true nor false", "use watch=true")
	}
	if text := r.URL.Query().Get("timeout"); text != "" {
		var err error
		if timeout, err = time.ParseDuration(text); err != nil || timeout < 0 || timeout > maxWatch {
			return newProblem(http.StatusBadRequest, "bad_query", "timeout is no duration up to "+maxWatch.String(), "use timeout=60s")
		}
	}
	change, p := a.change(r)
	if p != nil {
		return p
	}
	if !watch {
		receipt, _ := a.Zones.Receipt(change)
		writeJSON(w, http.StatusOK, receipt)
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	a.follow(ctx, w, change)
	return nil
}

func (a *api) follow(ctx context.Context, w http.ResponseWriter, change *store.ShownChange) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // proxies that buffer would hold the lines back
	control := http.NewResponseController(w)
	// The server's limits are for those who answer at once. A writer without deadlines has none to lift.
	_ = control.SetReadDeadline(time.Time{})
	var last []byte
	for {
		// Before the receipt is made, so that nothing falls between.
		changed := a.Zones.Changed()
		began := time.Now()
		receipt, done := a.Zones.Receipt(change)
		line, err := json.Marshal(receipt)
		rest := min(max(restShare*time.Since(began), minRest), maxRest)
		if err != nil {
			a.Logger.Error("a receipt cannot be encoded", zap.Int64("revision", change.Revision), zap.Error(err))
			return
		}
		if !bytes.Equal(line, last) {
			last = line
			_ = control.SetWriteDeadline(time.Now().Add(lineTimeout))
			if _, err := w.Write(append(line, '\n')); err != nil {
				return
			}
			if err := control.Flush(); err != nil {
				return
			}
			_ = control.SetWriteDeadline(time.Time{})
		}
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-a.Done:
			return
		}
		pause := time.NewTimer(rest)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

func (a *api) dataplanes(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	return a.ask(w, r, &kdsv1.Query{Query: &kdsv1.Query_ListDataplanes_{
		ListDataplanes: &kdsv1.Query_ListDataplanes{Mesh: r.URL.Query().Get("mesh")},
	}})
}

func (a *api) dataplane(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	config := false
	switch r.URL.Query().Get("config") {
	case "", "false":
	case "true":
		config = true
	default:
		return newProblem(http.StatusBadRequest, "bad_query", "config is neither true nor false", "use config=true")
	}
	mesh := r.PathValue("mesh")
	if mesh == "-" { // a zone ingress has no mesh
		mesh = ""
	}
	return a.ask(w, r, &kdsv1.Query{Query: &kdsv1.Query_DescribeDataplane_{
		DescribeDataplane: &kdsv1.Query_DescribeDataplane{Mesh: mesh, Name: r.PathValue("name"), Config: config},
	}})
}

// checkUp asks all replicas of a zone how they are, and says between which times of this replica's clock they answered. The first of them
// stands alone, too, for whoever knows of one only.
func (a *api) checkUp(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	asked := a.Now().UTC()
	answer, p := a.answer(r, &kdsv1.Query{Query: &kdsv1.Query_CheckUp_{CheckUp: &kdsv1.Query_CheckUp{}}})
	if p != nil {
		return p
	}
	var all struct {
		Items  []json.RawMessage `json:"items"`
		Silent []string          `json:"silent"`
	}
	if err := json.Unmarshal(answer, &all); err != nil || len(all.Items) == 0 {
		return newProblem(http.StatusBadGateway, "zone_error", "the zone's answer is no list of its replicas", "run all replicas of global at the same version")
	}
	out := map[string]any{"asked": asked, "answered": a.Now().UTC(), "checkUp": all.Items[0], "checkUps": all.Items}
	if len(all.Silent) > 0 {
		out["silent"] = all.Silent
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

// ask passes a question to a zone, and its answer on.
func (a *api) ask(w http.ResponseWriter, r *http.Request, q *kdsv1.Query) *problem {
	answer, p := a.answer(r, q)
	if p != nil {
		return p
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// answer is a zone's to a question. The zone has redacted secrets.
func (a *api) answer(r *http.Request, q *kdsv1.Query) (json.RawMessage, *problem) {
	zone := r.PathValue("zone")
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	q.TimeoutMillis, q.MaxBytes = uint32(askTimeout.Milliseconds()), maxAnswer
	answer, err := a.Zones.Ask(ctx, zone, q)
	switch {
	case errors.Is(err, ErrNoZone):
		return nil, unknownZone(zone)
	case errors.Is(err, ErrNotConnected):
		return nil, newProblem(http.StatusServiceUnavailable, "zone_not_connected", "zone "+strconv.Quote(zone)+" is not connected", "start the zone; where replicas of global do not find each other by gossip, ask another one")
	case errors.Is(err, ErrNoProxy):
		return nil, newProblem(http.StatusNotFound, "not_found", err.Error(), "list the zone's dataplanes to see what there is")
	case errors.Is(err, context.DeadlineExceeded):
		return nil, newProblem(http.StatusGatewayTimeout, "zone_timeout", "the zone did not answer within "+askTimeout.String(), "retry later")
	case err != nil:
		return nil, newProblem(http.StatusBadGateway, "zone_error", err.Error(), "see the zone's log")
	case !json.Valid(answer):
		return nil, newProblem(http.StatusBadGateway, "zone_error", "the zone's answer is no JSON", "run zone and global at the same version")
	}
	return answer, nil
}
