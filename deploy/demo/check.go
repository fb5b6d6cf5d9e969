package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// settleTime bounds how long a fault may take until it is healed, and a change until it is seen.
const settleTime = 30 * time.Second

// client opens a connection for each request, so that every request is on its own.
var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}

// unexpected is an answer that is no 200.
type unexpected struct {
	status int
	body   string
}

func (u unexpected) Error() string {
	return fmt.Sprintf("status %d: %s", u.status, strings.TrimSpace(u.body))
}

// get sends one request and reads the workload's answer.
func (f *federation) get(ctx context.Context, url string) (Answer, error) {
	var answer Answer
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return answer, err
	}
	if resp.StatusCode != http.StatusOK {
		return answer, unexpected{resp.StatusCode, string(body)}
	}
	return answer, json.Unmarshal(body, &answer)
}

// each sends n requests one after another; all must be answered and satisfy ok.
func (f *federation) each(ctx context.Context, n int, url string, ok func(Answer) error) error {
	for i := range n {
		answer, err := f.get(ctx, url)
		if err == nil {
			err = ok(answer)
		}
		if err != nil {
			return fmt.Errorf("request %d of %d to %s: %w", i+1, n, url, err)
		}
	}
	return nil
}

func from(zone string) func(Answer) error {
	return func(a Answer) error {
		if a.Zone != zone {
			return fmt.Errorf("answered in %s, not in %s", a.Zone, zone)
		}
		return nil
	}
}

// step is one line of the check; its result is what is printed after its name.
type step struct {
	name string
	run  func(context.Context) (string, error)
}

// checkAll runs the steps in order and stops at the first that fails.
func (f *federation) checkAll(ctx context.Context, out io.Writer) error {
	fmt.Fprintln(out)
	steps := f.steps()
	for i, s := range steps {
		began := time.Now()
		result, err := s.run(ctx)
		if err == nil {
			err = f.check()
		}
		if err != nil {
			fmt.Fprintf(out, "FAIL %2d/%d %s: %v\n", i+1, len(steps), s.name, err)
			return fmt.Errorf("%w: %s", ErrCheck, s.name)
		}
		fmt.Fprintf(out, "ok   %2d/%d %s: %s (%.1f s)\n", i+1, len(steps), s.name, result, time.Since(began).Seconds())
	}
	return nil
}

func (f *federation) steps() []step {
	return []step{
		{"a local request", f.checkLocal},
		{"a request across zones", f.checkCross},
		{"a request without permission", f.checkDenied},
		{"a weighted split", f.checkSplit},
		{"a change, followed to the last proxy", f.checkChange},
		{"a rejected change", f.checkRejected},
		{"failover to another zone and back", f.checkFailover},
		{"a certificate forged with a stolen zone key", f.checkForged},
		{"requests with global killed", f.checkGlobalKilled},
		{"a zone restarted while global is dead, and a new proxy", f.checkZoneRestart},
		{"global back, and a new change", f.checkGlobalBack},
	}
}

func (f *federation) first() site  { return f.sites[0] }
func (f *federation) second() site { return f.sites[1] }

func (f *federation) checkLocal(ctx context.Context) (string, error) {
	zone := f.first().name
	if err := f.each(ctx, 20, f.first().url("/echo"), from(zone)); err != nil {
		return "", err
	}
	return "20 of 20 answered in " + zone, nil
}

func (f *federation) checkCross(ctx context.Context) (string, error) {
	answer, err := f.get(ctx, f.first().url("/cross"))
	if err != nil {
		return "", err
	}
	client := fmt.Sprintf("spiffe://%s.%s.%s/%s", f.first().name, mesh, domain, edge)
	server := fmt.Sprintf("spiffe://%s.%s.%s/backend", f.second().name, mesh, domain)
	if answer.Client != client || answer.Server != server {
		return "", fmt.Errorf("mutual TLS between %q and %q, want %q and %q", answer.Client, answer.Server, client, server)
	}
	if answer.EnteredBy == "" {
		return "", errors.New("the route's filter did not set its header")
	}
	return fmt.Sprintf("%s -> %s", answer.Client, answer.Server), nil
}

func (f *federation) checkDenied(ctx context.Context) (string, error) {
	_, err := f.get(ctx, f.first().url("/denied"))
	var refused unexpected
	if !errors.As(err, &refused) || refused.status != http.StatusForbidden {
		return "", fmt.Errorf("got %v, want status 403", err)
	}
	return refused.Error(), nil
}

func (f *federation) checkSplit(ctx context.Context) (string, error) {
	const n = 200
	versions := map[string]int{}
	if err := f.each(ctx, n, f.first().url("/split"), func(a Answer) error { versions[a.Version]++; return nil }); err != nil {
		return "", err
	}
	// 80 of 100: with 200 requests the mean is 160 and the deviation 5.7, so this fails by chance once in ten million times.
	if v1 := versions["v1"]; v1 < 130 || v1 > 190 || v1+versions["v2"] != n {
		return "", fmt.Errorf("%v of %d, want about 160 from v1 and 40 from v2", versions, n)
	}
	return fmt.Sprintf("%d from v1, %d from v2", versions["v1"], versions["v2"]), nil
}

// route is a change that can be seen: path leads to a service.
func route(path, service string) string {
	return fmt.Sprintf(`type: MeshGatewayRoute
mesh: %s
name: check
selectors:
  - match: {kuma.io/service: %s}
conf:
  http:
    rules:
      - matches:
          - path: {match: EXACT, value: %s}
        backends:
          - destination: {kuma.io/service: %s}
`, mesh, edge, path, service)
}

// apply applies a document, waits for its receipt and returns the receipt's last line.
func (f *federation) apply(ctx context.Context, name, document string) (string, error) {
	file, err := f.write("check/"+name+".yaml", document)
	if err != nil {
		return "", err
	}
	out, err := f.cli(ctx, "apply", "--wait", "--timeout", "30s", "--message", "the check: "+name, "-f", file)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1], err
}

func (f *federation) checkChange(ctx context.Context) (string, error) {
	receipt, err := f.apply(ctx, "change", route("/new", "backend"))
	if err != nil {
		return "", err
	}
	for _, s := range f.sites {
		if err := f.each(ctx, 5, s.url("/new"), from(f.second().name)); err != nil {
			return "", err
		}
	}
	return receipt, nil
}

func (f *federation) checkRejected(ctx context.Context) (string, error) {
	file, err := f.write("check/bad.yaml", strings.Replace(route("/new", "echo"), "EXACT", "EXCAT", 1))
	if err != nil {
		return "", err
	}
	_, err = f.cli(ctx, "apply", "-f", file)
	if err == nil {
		return "", errors.New("a change with an error was accepted")
	}
	at := strings.LastIndex(err.Error(), "bad.yaml:")
	if at < 0 || !strings.Contains(err.Error(), "did you mean EXACT") {
		return "", fmt.Errorf("the error does not name place and mend: %w", err)
	}
	line, _, _ := strings.Cut(err.Error()[at:], "\n")
	return line, nil
}

func (f *federation) checkFailover(ctx context.Context) (string, error) {
	var gone []workload
	for _, w := range f.first().workloads {
		if w.service == "echo" {
			gone = append(gone, w)
			f.kill(f.first().name+"/"+w.name, f.first().name+"/"+w.name+"/app")
		}
	}
	url := f.first().url("/echo")
	elsewhere := ""
	if err := f.await(ctx, "failover", settleTime, func() error {
		answer, err := f.get(ctx, url)
		elsewhere = answer.Zone
		return err
	}); err != nil {
		return "", err
	}
	if elsewhere == f.first().name {
		return "", fmt.Errorf("answered in %s, where every echo is dead", elsewhere)
	}
	if err := f.each(ctx, 20, url, func(a Answer) error {
		if a.Zone == f.first().name {
			return errors.New("answered by the dead")
		}
		return nil
	}); err != nil {
		return "", err
	}
	for _, w := range gone {
		if err := f.startWorkload(f.first(), w); err != nil {
			return "", err
		}
	}
	lost := 0
	if err := f.await(ctx, "return", settleTime, func() error {
		answer, err := f.get(ctx, url)
		if err != nil {
			lost++
			return err
		}
		return from(f.first().name)(answer)
	}); err != nil {
		return "", err
	}
	if lost > 0 {
		return "", fmt.Errorf("%d requests were lost on the way back", lost)
	}
	return fmt.Sprintf("to %s, and back to %s with no request lost", elsewhere, f.first().name), nil
}

func (f *federation) checkGlobalKilled(ctx context.Context) (string, error) {
	f.kill("global")
	for _, path := range []string{"/echo", "/cross"} {
		for _, s := range f.sites {
			if err := f.each(ctx, 20, s.url(path), func(Answer) error { return nil }); err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("%d of %d answered, within and across zones", 40*len(f.sites), 40*len(f.sites)), nil
}

func (f *federation) checkZoneRestart(ctx context.Context) (string, error) {
	s := f.first()
	f.kill(s.name)
	if err := f.each(ctx, 10, s.url("/cross"), func(Answer) error { return nil }); err != nil {
		return "", fmt.Errorf("with the zone's control plane dead: %w", err)
	}
	if err := f.startZone(s); err != nil {
		return "", err
	}
	newcomer := workload{name: "echo-new", service: "echo", version: "v1", host: s.host(60)}
	if err := f.startWorkload(s, newcomer); err != nil {
		return "", err
	}
	asked := 0
	if err := f.await(ctx, "the new proxy's first answer", settleTime, func() error {
		answer, err := f.get(ctx, s.url("/echo"))
		if err != nil {
			// Told apart from not yet: a request that fails here is one that a restart took.
			return fmt.Errorf("a request failed: %w", err)
		}
		asked++
		if answer.Proxy != newcomer.name {
			return fmt.Errorf("%s answers", answer.Proxy)
		}
		return nil
	}); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s joined and answers", newcomer.name), nil
}

func (f *federation) checkGlobalBack(ctx context.Context) (string, error) {
	if err := f.startGlobal(ctx); err != nil {
		return "", err
	}
	// Zones come back by themselves; a change waits only for those that are there.
	if err := f.await(ctx, "zones at global", settleTime, func() error {
		out, err := f.cli(ctx, "get", "zones", "-o", "json")
		if err != nil {
			return err
		}
		var zones struct {
			Items []struct {
				Zone      string `json:"zone"`
				Connected bool   `json:"connected"`
			} `json:"items"`
		}
		if err := json.Unmarshal([]byte(out), &zones); err != nil {
			return err
		}
		connected := 0
		for _, z := range zones.Items {
			if z.Connected {
				connected++
			}
		}
		if connected != len(f.sites) {
			return fmt.Errorf("%d of %d zones are connected", connected, len(f.sites))
		}
		return nil
	}); err != nil {
		return "", err
	}
	receipt, err := f.apply(ctx, "after", route("/after", "backend"))
	if err != nil {
		return "", err
	}
	for _, s := range f.sites {
		if err := f.each(ctx, 5, s.url("/after"), from(f.second().name)); err != nil {
			return "", err
		}
	}
	return receipt, nil
}
