package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	"github.com/zoneforge/zoneforge/deploy/demo"
)

const (
	// fullResources is how many the goal of a cold start is for, and coldStarts how often one is measured.
	fullResources, coldStarts = 10_000, 20
	// perChange is how many resources one change brings.
	perChange = 500
)

// measureCold starts a zone from its disk, again and again, and takes the time until a proxy that waits for it has all that it should.
func measureCold(ctx context.Context, s *scale) (_ []Row, err error) {
	w, err := newZoneWorld(ctx, s)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		if w.fleet != nil {
			w.fleet.Wait()
		}
		err = errors.Join(err, w.close(err != nil))
	}()
	for at := 0; at < s.resources; at += perChange {
		var documents []string
		for i := at; i < min(at+perChange, s.resources); i++ {
			documents = append(documents, coldDocument(i))
		}
		var change any
		if err := w.api.ask(ctx, http.MethodPost, "/v1/changes", "application/yaml", []byte(strings.Join(documents, "---\n")), &change); err != nil {
			return nil, err
		}
	}
	if err := until(ctx, "the zone holds the resources", time.Minute, w.running(), func() error {
		m, err := w.metrics()
		if held := m["zoneforge_zone_records"]; err == nil && held < float64(s.resources) {
			err = fmt.Errorf("it holds %g", held)
		}
		return err
	}); err != nil {
		return nil, err
	}
	if err := w.open(simproxy.Config{Pause: 20 * time.Millisecond}); err != nil {
		return nil, err
	}
	token, err := w.serviceToken(ctx, serviceName(0))
	if err != nil {
		return nil, err
	}
	who, err := node(sidecar("cold", serviceName(0), proxyAddress(0)))
	if err != nil {
		return nil, err
	}
	w.fleet.Add(ctx, who, token)
	complete := func(c simproxy.Counts) bool { return c.Complete == 1 }
	if err := w.fleet.Await(ctx, "the proxy", time.Minute, complete); err != nil {
		return nil, err
	}
	l := newLatency("zone started from disk to a proxy complete")
	for range coldStarts {
		if err := s.profiles.mark(); err != nil {
			return nil, err
		}
		w.zone.kill()
		if err := w.fleet.Await(ctx, "the proxy notices", time.Minute, func(c simproxy.Counts) bool { return c.Connected == 0 }); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := w.startZone(); err != nil {
			return nil, err
		}
		if err := w.fleet.Await(ctx, "the proxy is back", time.Minute, complete); err != nil {
			return nil, errors.Join(err, w.zone.ended())
		}
		l.add(time.Since(began))
	}
	rows := l.rows(0, 0)
	if s.resources >= fullResources {
		rows[1] = rows[1].atMost(500)
	}
	return rows, nil
}

// coldDocument is one of the policies that fill a zone's disk. Most are for services that other proxies have.
func coldDocument(i int) string {
	between := fmt.Sprintf("mesh: %s\nname: cold-%05d\nsources:\n  - match: {kuma.io/service: %s}\ndestinations:\n  - match: {kuma.io/service: %s}\n",
		demo.Mesh, i, serviceName(i/10), serviceName(i%1000))
	switch i % 4 {
	case 0:
		return "type: TrafficPermission\n" + between
	case 1:
		return "type: Timeout\n" + between + "conf:\n  http:\n    requestTimeout: 7s\n"
	case 2:
		return "type: Retry\n" + between + "conf:\n  http:\n    numRetries: 3\n"
	}
	return "type: CircuitBreaker\n" + between + "conf:\n  thresholds:\n    maxConnections: 100\n"
}
