package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// tool is a program that the project's own tests bring along. A machine without it must not pass silently.
func tool(t *testing.T, name, install string) string {
	t.Helper()
	own, err := filepath.Abs(filepath.Join("..", ".tools", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(own); err == nil {
		return own
	}
	found, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("no %s in .tools/bin or PATH: %s", name, install)
	}
	return found
}

// server runs a program until it listens at an address, as a process of the federation.
func (f *federation) server(name, address string, cmd *exec.Cmd) {
	f.t.Helper()
	p := &process{name: name, log: f.path("logs", name+".log"), cmd: cmd, done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	spawn <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		f.t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // its state says how it ended
		close(p.done)
	}()
	f.running[name] = p
	f.await(name, func() error {
		c, err := net.DialTimeout("tcp", address, answerTime)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

func (f *federation) startRedis(host string) {
	f.t.Helper()
	redis := tool(f.t, "redis-server", "apt-get install redis-server")
	f.server("redis", host+":6379", exec.Command(redis, "--bind", host, "--port", "6379", "--save", "", "--appendonly", "no", "--dir", f.dir))
}

// startRateLimitService runs the service with the configuration that docs/functions/rate-limits.md gives.
func (f *federation) startRateLimitService(host string) {
	f.t.Helper()
	f.write("limits/ratelimit/config/zoneforge.yaml", "domain: zoneforge\ndescriptors: []\n")
	cmd := exec.Command(tool(f.t, "ratelimit", "run `make tools-test`"))
	cmd.Env = append(os.Environ(), "REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+host+":6379", "USE_STATSD=false", "RUNTIME_ROOT="+f.path("limits"),
		"RUNTIME_SUBDIRECTORY=ratelimit", "RUNTIME_WATCH_ROOT=false", "HOST="+host, "GRPC_HOST="+host, "DEBUG_HOST="+host)
	f.server("ratelimit", host+":8081", cmd)
}

// TestSharedRateLimit has gateways of two zones count by one envoyproxy/ratelimit with a Redis. A day's limits are counted by the
// calendar, so it begins after midnight, UTC, where that is near.
func TestSharedRateLimit(t *testing.T) {
	f := startEdge(t)
	f.await("a day that goes on", func() error {
		const enough = time.Minute
		now := time.Now().UTC()
		if left := now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now); left < enough {
			return fmt.Errorf("it ends in %s", left)
		}
		return nil
	})
	host := f.host(40)
	f.startRedis(host)
	f.startRateLimitService(host)
	f.startZone("west", 3)
	f.startProxy("west", 3, "edge-west", fmt.Sprintf("type: Dataplane\nmesh: default\nname: edge-west\nnetworking:\n  address: %s\n  gateway: {type: BUILTIN, tags: {kuma.io/service: edge}}\n", f.host(20)),
		f.path("tokens", "edge"))
	f.workload(f.host(51)+":8080", "west", nil)
	f.startProxy("west", 3, "echo-west", sidecarDocument("default", "echo-west", f.host(51), inboundOf("echo", "http", f.host(51), 8080, ", version: v1")), f.path("tokens", "echo"))
	f.settled("west", 2)
	// One more way to the service: by the mesh.
	f.startProxy("east", 2, "limits", sidecarDocument("default", "limits", f.host(41), inboundOf("limits", "grpc", host, 8081, "")),
		f.token("limits", "dataplane", "--mesh", "default", "--service", "limits"))
	f.settled("east", 4)
	service := fmt.Sprintf("service: {url: 'http://%s:8081'}, timeout: 5s", host)
	limited := func(path, limit string) string { return limitRule(path, "{rateLimit: {interval: 24h, "+limit+"}}") }
	f.apply(gatewayRoute("shared", "",
		limited("/all", "requests: 6, onRateLimit: {status: 429, headers: [{name: x-limited, value: everywhere}], retryAfter: true}, rateLimitHeaders: true, shared: {"+service+"}")+
			limited("/key", "requests: 2, keys: [{header: x-api-key}], shared: {"+service+"}")+
			limited("/mesh", "requests: 2, shared: {service: {destination: {kuma.io/service: limits}}, timeout: 5s}")+
			limited("/closed", "requests: 100, shared: {"+service+", onFailure: DENY}")))
	client := newClient(t)
	east, west := "http://"+f.at(10, 8080), "http://"+f.at(20, 8080)
	f.answers(client, http.StatusOK, "GET", east+"/closed")
	f.answers(client, http.StatusOK, "GET", west+"/closed")

	var got []int
	for i := range 8 {
		got = append(got, statuses(t, client, 1, []string{east, west}[i%2]+"/all")...)
	}
	wantStatuses(t, "six of both zones together", got, 200, 200, 200, 200, 200, 200, 429, 429)
	over := deliver(t, client, "GET", west+"/all", nil)
	if h := over.header; h.Get("X-Limited") != "everywhere" || h.Get("Retry-After") == "" || h.Get("X-Ratelimit-Remaining") != "0" {
		t.Errorf("a refusal: %d %v", over.status, h)
	}
	for _, key := range []string{"a", "b"} {
		got = append(statuses(t, client, 1, east+"/key", "X-Api-Key", key), statuses(t, client, 2, west+"/key", "X-Api-Key", key)...)
		wantStatuses(t, "key "+key, got, 200, 200, 429)
	}
	wantStatuses(t, "without a key", append(statuses(t, client, 2, east+"/key"), statuses(t, client, 1, west+"/key")...), 200, 200, 429)
	wantStatuses(t, "asked through the mesh", statuses(t, client, 3, east+"/mesh"), 200, 200, 429)

	f.kill("redis")
	wantStatuses(t, "without Redis, open", statuses(t, client, 2, east+"/all"), 200, 200)
	wantStatuses(t, "without Redis, closed", statuses(t, client, 2, west+"/closed"), 500, 500)
	f.kill("ratelimit")
	wantStatuses(t, "without the service, open", statuses(t, client, 2, west+"/all"), 200, 200)
	wantStatuses(t, "without the service, closed", statuses(t, client, 2, east+"/closed"), 500, 500)
	f.startRedis(host)
	f.startRateLimitService(host)
	f.answers(client, http.StatusOK, "GET", east+"/closed")
}
