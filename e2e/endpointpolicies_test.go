package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// TestEndpointPoliciesChangeUnderTraffic changes all that concerns a destination's endpoints while requests go on. None is lost:
// what changes is a cluster, and Envoy takes a new one into use once its endpoints are known and checked.
func TestEndpointPoliciesChangeUnderTraffic(t *testing.T) {
	f, members := startPool(t, 2)
	url := "http://" + f.at(10, 8080) + "/"
	var requests atomic.Int64
	var lost sync.Map
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for range 2 {
		senders.Add(1)
		go func() {
			defer senders.Done()
			// Connections are kept, so that one that a change ended would show.
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, _, err := ask(client, "GET", url)
				if err == nil && r.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %d %v", r.StatusCode, r.Header)
				}
				if n := requests.Add(1); err != nil {
					lost.Store(n, err)
				}
			}
		}()
	}
	changes := []string{
		balanced("{random: {}}"), breakerHead + "    thresholds: {maxRequests: 100}\n", healthCheck("  http: {path: /health}\n"),
		locality("  localFirst: false\n"), balanced("{maglev: {}}"), breakerHead + "    detectors: {totalErrors: {}}\n", healthCheck(""),
		timeoutOf("{connectTimeout: 20s, http: {idleTimeout: 1m}}"), "type: Retry\nmesh: default\nname: echo\nsources: [{match: {kuma.io/service: '*'}}]\n" +
			"destinations: [{match: {kuma.io/service: echo}}]\nconf: {http: {numRetries: 0}, budget: {percent: 10}}\n",
		balanced("{leastRequest: {}, slowStart: {window: 1s}}"), locality("  weights: {east: 2}\n  failoverThreshold: 50\n"), balanced("{roundRobin: {}}"),
	}
	for range 2 {
		for _, document := range changes {
			before := requests.Load()
			f.apply(document)
			f.await("traffic", func() error {
				if n := requests.Load(); n < before+50 {
					return fmt.Errorf("%d requests", n-before)
				}
				return nil
			})
		}
		for _, kind := range []string{"healthcheck", "circuitbreaker", "localitypolicy", "timeout", "retry"} {
			f.cli("delete", kind, "echo", "--wait")
		}
	}
	close(stop)
	senders.Wait()
	lost.Range(func(n, err any) bool {
		t.Errorf("request %v of %d: %v", n, requests.Load(), err)
		return true
	})
	f.reaches(newClient(t), url, names(members)...)
}
