package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func timeoutOf(conf string) string {
	return "type: Timeout\nmesh: default\nname: echo\nsources: [{match: {kuma.io/service: edge}}]\ndestinations: [{match: {kuma.io/service: echo}}]\nconf: " + conf + "\n"
}

// stat reads a number of a proxy's own statistics, by the end of its name.
func (f *federation) stat(proxy, end string) (int, error) {
	client := &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", f.path("run", proxy, "admin.sock"))
	}}}
	r, err := client.Get("http://admin/stats?filter=" + end + "$")
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	sum := 0
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if _, value, ok := strings.Cut(line, ": "); ok {
			n := 0
			if _, err := fmt.Sscan(value, &n); err != nil {
				return 0, fmt.Errorf("%s: %w", line, err)
			}
			sum += n
		}
	}
	return sum, nil
}

// workers is how many threads of a proxy serve connections: as many as the machine has processors.
func (f *federation) workers(proxy string) (n int) {
	f.t.Helper()
	f.await("workers of "+proxy, func() (err error) {
		if n, err = f.stat(proxy, "server.concurrency"); err == nil && n == 0 {
			err = errors.New("none")
		}
		return err
	})
	return n
}

var startedPID = regexp.MustCompile(`"the process started","pid":([0-9]+)`)

// envoyOf is the process of a proxy's Envoy, which its launcher names.
func (f *federation) envoyOf(proxy string) int {
	f.t.Helper()
	found := startedPID.FindStringSubmatch(f.said(proxy))
	if found == nil {
		f.t.Fatalf("%s does not name its process", proxy)
	}
	pid, err := strconv.Atoi(found[1])
	if err != nil {
		f.t.Fatal(err)
	}
	return pid
}

// TestGatewayTimeouts has a gateway end what takes longer than each field of a Timeout allows.
func TestGatewayTimeouts(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), gatewayRoute("echo", "", toEcho))
	waits := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	f.workload(f.at(31, 8080), "echo", map[string]http.HandlerFunc{
		"/silent": waits,
		"/half": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			waits(w, r)
		},
		"/trickle": func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
					_, _ = io.WriteString(w, "drop")
					_ = http.NewResponseController(w).Flush()
				}
			}
		},
	})
	f.startProxy("east", 2, "echo", sidecarDocument("default", "echo", f.host(31), inboundOf("echo", "http", f.host(31), 8080, "")), f.serviceToken("echo"))
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.serviceToken("edge"))
	f.settled("east", 2)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.answers(client, http.StatusOK, "GET", url("/"))
	// Far below what holds by default, and far above what a slow machine needs.
	const soon = 12 * time.Second
	within := func(t *testing.T, began time.Time) {
		t.Helper()
		if took := time.Since(began); took > soon {
			t.Errorf("it took %s", took)
		}
	}
	// cut reads an answer that must end before it is whole.
	cut := func(t *testing.T, path string) {
		t.Helper()
		f.await("the beginning of "+path, func() error {
			began := time.Now()
			r, err := client.Get(url(path))
			if err != nil {
				return err
			}
			defer r.Body.Close()
			body, err := io.ReadAll(r.Body)
			within(t, began)
			if r.StatusCode != http.StatusOK || len(body) == 0 {
				return fmt.Errorf("status %d, %d bytes", r.StatusCode, len(body)) // it may have been over before it began
			}
			if err == nil {
				t.Errorf("%s is whole", path)
			}
			return nil
		})
	}
	// inForce waits until the gateway's workers have a bound that answers /silent by a status.
	inForce := func(t *testing.T, status int) {
		t.Helper()
		f.answers(client, status, "GET", url("/silent"))
		began := time.Now()
		if r, _, err := ask(client, "GET", url("/silent")); err != nil || r.StatusCode != status {
			t.Errorf("%v %v, want %d", r, err, status)
		}
		within(t, began)
	}

	t.Run("request", func(t *testing.T) {
		f.apply(timeoutOf("{http: {requestTimeout: 200ms}}"))
		inForce(t, http.StatusGatewayTimeout)
	})
	t.Run("stream idle", func(t *testing.T) {
		f.apply(timeoutOf("{http: {requestTimeout: 0s, streamIdleTimeout: 300ms}}"))
		inForce(t, http.StatusGatewayTimeout)
		cut(t, "/half")
	})
	t.Run("max stream", func(t *testing.T) {
		f.apply(timeoutOf("{http: {requestTimeout: 0s, maxStreamDuration: 300ms}}"))
		inForce(t, http.StatusGatewayTimeout)
		cut(t, "/trickle")
	})
	t.Run("idle connection", func(t *testing.T) {
		f.apply(timeoutOf("{http: {idleTimeout: 200ms}}"))
		f.answers(client, http.StatusOK, "GET", url("/"))
		// A request over a connection keeps it from being idle, so the next is only sent when there is none.
		f.await("the end of an idle connection", func() error {
			n, err := f.stat("edge", "upstream_cx_idle_timeout")
			if err != nil || n > 0 {
				return err
			}
			open, err := f.stat("edge", "echo.*upstream_cx_active")
			if err == nil && open == 0 {
				var r *http.Response
				if r, _, err = ask(client, "GET", url("/")); err == nil && r.StatusCode != http.StatusOK {
					err = fmt.Errorf("%d", r.StatusCode)
				}
			}
			return errors.Join(fmt.Errorf("%d connections are open, none was ended", open), err)
		})
	})
	t.Run("connect", func(t *testing.T) {
		f.apply(timeoutOf("{connectTimeout: 200ms, http: {requestTimeout: 1s}}"))
		f.answers(client, http.StatusOK, "GET", url("/"))
		// The bound of a request closes connections from before. The kernel takes a connection for a sidecar that stands still, and nobody answers its handshake.
		envoy := f.envoyOf("echo")
		if err := syscall.Kill(envoy, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Kill(envoy, syscall.SIGCONT) }() // or it could not be ended where this fails
		f.await("a connection that is given up", func() error {
			n, err := f.stat("edge", "upstream_cx_connect_timeout")
			if err != nil || n > 0 {
				return err
			}
			_, _, err = ask(client, "GET", url("/"))
			return errors.Join(errors.New("none was given up"), err)
		})
		if err := syscall.Kill(envoy, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		f.answers(client, http.StatusOK, "GET", url("/"))
	})
}
