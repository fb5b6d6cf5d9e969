package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// clients is how many requests are under way at a time.
	clients = 8
	// workerLag bounds how long a request may meet the old routes after the receipt: Envoy acknowledges on its main thread, and its
	// workers take the new routes just after. What it really was is in the table.
	workerLag = 100 * time.Millisecond
)

// move is one configuration of the route under load: where it leads, and from when until when it may decide on requests.
type move struct {
	service, zone string
	sent, live    time.Time
}

// sighting is one request: which move decided, by the mark that the gateway set, and who answered.
type sighting struct {
	began, ended  time.Time
	mark          int
	service, zone string
}

// measureLoss moves a route between a local and a cross-zone service while clients send requests through the gateway as fast as
// they are answered. A request is lost when it isn't answered with 200, or when its answer follows from neither the old nor the
// new configuration.
func measureLoss(ctx context.Context, b *bench) (rows []Row, err error) {
	local, cross := b.near().Name, b.far().Name
	// The second and the third name a part of a service that no other route leads to: their clusters come and go with each move.
	targets := []struct{ service, part, zone string }{
		{"echo", "", local},
		{"echo", ", kuma.io/zone: " + cross, cross},
		{"echo", ", kuma.io/zone: " + local, local},
		{"backend", "", cross},
	}
	var moves []move
	apply := func(i int) error {
		t := targets[i%len(targets)]
		m := move{service: t.service, zone: t.zone}
		a, err := b.global.apply(ctx, route("bench-loss", "/bench-loss", t.service+t.part, "move-"+strconv.Itoa(i)))
		m.sent, m.live = a.sent, a.live
		moves = append(moves, m)
		return err
	}
	if err := apply(0); err != nil {
		return nil, err
	}
	load := startLoad(ctx, b.near().Gateway+"/bench-loss")
	took := newLatency("apply to live, under load")
	began := time.Now()
	for i := range b.moves {
		if err = apply(i + 1); err != nil {
			break
		}
		took.add(moves[i+1].live.Sub(moves[i+1].sent))
	}
	during := time.Since(began)
	seen, failures := load.stop()
	if err != nil {
		return nil, err
	}
	if err := b.global.remove(ctx, "MeshGatewayRoute", "bench-loss"); err != nil {
		return nil, err
	}

	latencies := newLatency("request through the gateway")
	unexplained, first, latest := 0, error(nil), time.Duration(0)
	marks := map[int]bool{}
	for _, s := range seen {
		latencies.add(s.ended.Sub(s.began))
		marks[s.mark] = true
		latest = max(latest, late(moves, s))
		if err := explain(moves, s); err != nil {
			unexplained++
			if first == nil {
				first = err
			}
		}
	}
	if len(seen) == 0 {
		return nil, errors.Join(errors.New("no request was answered"), errors.Join(failures...))
	}
	for i, err := range failures {
		if i == 5 {
			fmt.Fprintf(b.out, "... and %d more\n", len(failures)-i)
			break
		}
		fmt.Fprintln(b.out, "lost:", err)
	}
	if first != nil {
		fmt.Fprintln(b.out, "unexplained:", first)
	}
	total := int64(len(seen) + len(failures))
	rows = []Row{
		row("requests lost", float64(len(failures)), "requests", total).atMost(0),
		row("answers that no configuration in force explains", float64(unexplained), "requests", total).atMost(0),
		row("connections of the clients", float64(load.dialled.Load()), "connections", total).atMost(clients),
		row("last request by the old routes, after the receipt", float64(latest.Microseconds())/1000, "ms", int64(len(moves))),
		row("moves seen by requests", float64(len(marks)), "changes", int64(len(moves))),
		row("requests", float64(total)/during.Seconds(), "per second", total),
	}
	rows = append(rows, latencies.rows(0, 0)...)
	return append(rows, took.rows(0, 0)...), nil
}

// explain is nil when the move that an answer names leads to who answered, and may have been in force in between: from when it
// was sent until the one after it was live on all workers.
func explain(moves []move, s sighting) error {
	if s.mark < 0 || s.mark >= len(moves) {
		return fmt.Errorf("move %d was never made", s.mark)
	}
	m := moves[s.mark]
	if s.service != m.service || s.zone != m.zone {
		return fmt.Errorf("move %d leads to %s in %s, and %s in %s answered", s.mark, m.service, m.zone, s.service, s.zone)
	}
	if s.ended.Before(m.sent) {
		return fmt.Errorf("move %d decided %s before it was sent", s.mark, m.sent.Sub(s.ended))
	}
	if by := late(moves, s); by > workerLag {
		return fmt.Errorf("move %d decided on a request that began %s after the next was live", s.mark, by)
	}
	return nil
}

// late is how long after the receipt of the next move a request began that a move decided on; 0 where it began before.
func late(moves []move, s sighting) time.Duration {
	if s.mark < 0 || s.mark+1 >= len(moves) {
		return 0
	}
	return max(s.began.Sub(moves[s.mark+1].live), 0)
}

// load is clients that send requests one after another, each over one connection.
type load struct {
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	dialled atomic.Int64

	mu       sync.Mutex
	seen     []sighting
	failures []error
}

func startLoad(ctx context.Context, url string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel}
	for range clients {
		l.wg.Go(func() { l.client(ctx, url) })
	}
	return l
}

// stop lets requests that are under way come to their end.
func (l *load) stop() ([]sighting, []error) {
	l.cancel()
	l.wg.Wait()
	slices.SortFunc(l.seen, func(a, b sighting) int { return a.began.Compare(b.began) })
	return l.seen, l.failures
}

func (l *load) client(ctx context.Context, url string) {
	// Go repeats a request whose kept connection turns out to be closed; the second connection is counted and told.
	transport := &http.Transport{MaxConnsPerHost: 1, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		l.dialled.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	client := &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	var seen []sighting
	var failures []error
	for ctx.Err() == nil {
		began := time.Now()
		answer, err := ask(context.WithoutCancel(ctx), client, url)
		ended := time.Now()
		var mark int
		if err == nil {
			number, _ := strings.CutPrefix(answer.EnteredBy, "move-")
			if mark, err = strconv.Atoi(number); err != nil {
				err = fmt.Errorf("the answer bears no mark of a move but %q", answer.EnteredBy)
			}
		}
		if err != nil {
			failures = append(failures, err)
			continue
		}
		seen = append(seen, sighting{began: began, ended: ended, mark: mark, service: answer.Service, zone: answer.Zone})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen, l.failures = append(l.seen, seen...), append(l.failures, failures...)
}
