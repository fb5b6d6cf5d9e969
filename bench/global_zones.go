package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/bench/simzone"
	"github.com/zoneforge/zoneforge/deploy/demo"
	"github.com/zoneforge/zoneforge/pki/certfile"
)

const (
	// servicesPerZone are what each simulated zone offers, and manyProxies how many proxies it says it has.
	servicesPerZone = 5
	manyProxies     = 1000
	fewProxies      = 10
	// batch is how many resources go into one change, and patience bounds what takes a global with many zones long.
	batch    = 2000
	patience = 5 * time.Minute
	// firstGlobal is before the last numbers of the addresses of globals.
	firstGlobal = 10
	// statusHold is the product's zones' before they tell of their proxies.
	statusHold = 3 * time.Millisecond
)

// globalSizes are of what is simulated around a global.
type globalSizes struct{ zones, policiesOfAll, stored, globalApplies int }

// fullGlobal is at which goals of a global are judged.
var fullGlobal = globalSizes{zones: 1000, policiesOfAll: 10_000, stored: 100_000, globalApplies: 200}

func (o *globalSizes) flags(f *flag.FlagSet) {
	f.IntVar(&o.zones, "zones", fullGlobal.zones, "simulated zones of one global; goals are judged at the default alone, or above")
	f.IntVar(&o.policiesOfAll, "zone-resources", fullGlobal.policiesOfAll, "policies that all zones hold; goals as for -zones")
	f.IntVar(&o.stored, "stored", fullGlobal.stored, "resources in the larger of two stores that are compared; goals as for -zones")
	f.IntVar(&o.globalApplies, "global-applies", fullGlobal.globalApplies, "changes to apply to all zones")
}

// check says what can't be measured.
func (o *globalSizes) check() error {
	if o.zones < 2 || o.policiesOfAll < 1 || o.stored < smallStore || o.globalApplies < 1 {
		return fmt.Errorf("-zones must be 2 or more, -stored %d or more, and -zone-resources and -global-applies positive", smallStore)
	}
	return nil
}

// judged keeps the goals of rows at full size alone.
func (o *globalSizes) judged(rows []Row) []Row {
	if o.zones < fullGlobal.zones || o.policiesOfAll < fullGlobal.policiesOfAll || o.stored < fullGlobal.stored {
		for i := range rows {
			rows[i].Goal, rows[i].OK = nil, true
		}
	}
	return rows
}

// server is a global in its own process.
type server struct {
	*child
	launch func() (*child, error)
	dir    string // for what it writes
	data   string
	kds    string
	// profiles are of this global, nil for none.
	profiles *profiles
	*global
}

// global starts a global with a store of its own; host is the last number of its address.
func (s *scale) global(ctx context.Context, host int) (*server, error) {
	dir, err := os.MkdirTemp("", "zoneforge-bench-")
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("%s.%d", s.prefix, firstGlobal+host)
	g := &server{dir: dir, data: filepath.Join(dir, "data"), kds: address + ":5685"}
	if s.debug != "" {
		g.profiles = s.profiles
	}
	g.launch = func() (*child, error) {
		return launch(dir, "global", s.binary, "global", "run", "--data-dir", g.data, "--rest-address", address+":5682", "--kds-address", g.kds,
			"--log-level", "warn", "--debug-address", s.debug)
	}
	if g.child, err = g.launch(); err != nil {
		return nil, err
	}
	err = g.await(ctx, "global to be ready", func() error {
		token, err := os.ReadFile(filepath.Join(g.data, "admin-token"))
		if err == nil {
			if g.global, err = connectTo("https://"+address+":5682", g.ca(), strings.TrimSpace(string(token)), 0); err == nil {
				err = g.isReady(ctx)
			}
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, g.end(true))
	}
	return g, nil
}

// ca is the file of the roots that prove the global.
func (g *server) ca() string { return filepath.Join(g.data, "tls", certfile.CAFile) }

// end stops the global and removes its files, unless they are to tell why something failed.
func (g *server) end(keep bool) error {
	marked := g.profiles.mark()
	if g.global != nil {
		g.close()
	}
	if err := errors.Join(marked, g.child.stop()); err != nil || keep {
		return errors.Join(err, fmt.Errorf("what global said is in %s", g.dir))
	}
	return os.RemoveAll(g.dir)
}

func (g *server) isReady(ctx context.Context) error {
	resp, err := g.send(ctx, http.MethodGet, "/readyz", "", nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// await asks again and again until there is no error.
func (g *server) await(ctx context.Context, what string, ok func() error) error {
	return until(ctx, what, patience, []*child{g.child}, ok)
}

// committed is a change as global answered to it.
type committed struct {
	Revision uint64 `json:"revision"`
	Change   int64  `json:"change"`
}

// commit applies documents without following them.
func (g *server) commit(ctx context.Context, document string) (c committed, err error) {
	err = g.ask(ctx, http.MethodPost, "/v1/changes", "application/yaml", []byte(document), &c)
	if err == nil && c.Change == 0 {
		err = errors.New("the change changed nothing")
	}
	return c, err
}

// fill applies policies until the store holds so many of them, a batch a change.
func (g *server) fill(ctx context.Context, from, to int) error {
	for from < to {
		var documents []string
		for ; from < to && len(documents) < batch; from++ {
			documents = append(documents, policy(from, 0))
		}
		if _, err := g.commit(ctx, strings.Join(documents, "---\n")); err != nil {
			return fmt.Errorf("policies up to %d: %w", from, err)
		}
	}
	return nil
}

// policy is one of a mix of policies as users have them, some 300 bytes in the store. version changes its content and nothing of
// its size.
func policy(n, version int) string {
	service := fmt.Sprintf("service-%d", n%1000)
	switch n % 4 {
	case 0:
		return fmt.Sprintf("type: MeshGatewayRoute\nmesh: %s\nname: scale-%d\nselectors:\n  - match: {kuma.io/service: edge}\nconf:\n  http:\n    rules:\n"+
			"      - matches:\n          - path: {match: PREFIX, value: /scale/%d}\n        filters:\n          - requestHeader:\n              set:\n"+
			"                - {name: x-version, value: \"v%08d\"}\n        backends:\n          - destination: {kuma.io/service: %s}\n", demo.Mesh, n, n, version, service)
	case 1:
		return fmt.Sprintf("type: TrafficPermission\nmesh: %s\nname: scale-%d\nsources:\n  - match: {kuma.io/service: client-%08d}\n"+
			"destinations:\n  - match: {kuma.io/service: %s}\nconf:\n  action: ALLOW\n", demo.Mesh, n, version, service)
	case 2:
		return fmt.Sprintf("type: Timeout\nmesh: %s\nname: scale-%d\nsources:\n  - match: {kuma.io/service: client-%08d}\n"+
			"destinations:\n  - match: {kuma.io/service: %s}\nconf:\n  connectTimeout: 5s\n  http: {requestTimeout: 15s, idleTimeout: 1h}\n", demo.Mesh, n, version, service)
	default:
		return fmt.Sprintf("type: Retry\nmesh: %s\nname: scale-%d\nsources:\n  - match: {kuma.io/service: client-%08d}\n"+
			"destinations:\n  - match: {kuma.io/service: %s}\nconf:\n  http: {numRetries: 3, perTryTimeout: 200ms}\n", demo.Mesh, n, version, service)
	}
}

// newest is the revision that zones should hold.
func (g *server) newest(ctx context.Context) (revision uint64, inSync int, err error) {
	var list struct {
		Items []struct {
			Wanted    uint64 `json:"wanted"`
			Connected bool   `json:"connected"`
			InSync    bool   `json:"inSync"`
		} `json:"items"`
	}
	if err := g.ask(ctx, http.MethodGet, "/v1/status/zones", "", nil, &list); err != nil {
		return 0, 0, err
	}
	for _, z := range list.Items {
		revision = max(revision, z.Wanted)
		if z.Connected && z.InSync {
			inSync++
		}
	}
	return revision, inSync, nil
}

// askAgain is how long to wait before global is asked for the status of all zones again, which takes it some work itself.
const askAgain = 200 * time.Millisecond

// inSync waits until global itself says that all zones hold exactly what they should.
func (g *server) inSync(ctx context.Context, zones int) (revision uint64, err error) {
	err = g.await(ctx, "all zones to be in sync", func() error {
		var n int
		if revision, n, err = g.newest(ctx); err == nil && n != zones {
			err = fmt.Errorf("%d of %d zones are", n, zones)
		}
		if err != nil {
			err = errors.Join(err, pause(ctx, askAgain))
		}
		return err
	})
	return revision, err
}

// manyZones is one global with its simulated zones.
type manyZones struct {
	*server
	fleet  *simzone.Fleet
	joined []Row
}

// manyZones makes them once for all scenarios of a stage.
func (s *scale) manyZones(ctx context.Context) (*manyZones, error) {
	if s.many != nil {
		return s.many, nil
	}
	g, err := s.global(ctx, 1)
	if err != nil {
		return nil, err
	}
	m := &manyZones{server: g}
	s.many = m // it ends with the stage, whatever follows
	if err := g.fill(ctx, 0, s.policiesOfAll); err != nil {
		return nil, err
	}
	s.say("global holds %d resources", s.policiesOfAll)
	tokens, err := g.tokens(ctx, s.zones)
	if err != nil {
		return nil, err
	}
	roots, err := pool(g.ca())
	if err != nil {
		return nil, err
	}
	m.fleet, err = simzone.New(simzone.Config{
		Target: g.kds, Roots: roots, Proxies: fewProxies, Services: servicesPerZone, Mesh: demo.Mesh, StatusHold: statusHold,
	})
	if err != nil {
		return nil, err
	}
	return m, m.join(ctx, s, tokens)
}

func (g *server) tokens(ctx context.Context, n int) ([]string, error) {
	tokens := make([]string, n)
	for i := range tokens {
		var answer struct{ Token string }
		body, err := json.Marshal(map[string]string{"zone": manyName(i)})
		if err != nil {
			return nil, err
		}
		if err := g.ask(ctx, http.MethodPost, "/v1/tokens/zone", "application/json", body, &answer); err != nil {
			return nil, err
		}
		tokens[i] = answer.Token
	}
	return tokens, nil
}

func manyName(i int) string { return fmt.Sprintf("zone-%04d", i) }

// join lets zones come that were never seen: the first takes a snapshot, and all others hold what it holds, as if the same disk
// had been copied to all. Each becomes a Zone, and what it offers goes to all others.
func (m *manyZones) join(ctx context.Context, s *scale, tokens []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	first := m.fleet.Add(manyName(0), tokens[0], nil)
	if err := m.fleet.Online(ctx, 1, 1); err != nil {
		return err
	}
	if _, err := m.inSync(ctx, 1); err != nil {
		return err
	}
	before := m.fleet.Traffic()
	cpu, err := m.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	for i := 1; i < len(tokens); i++ {
		m.fleet.Add(manyName(i), tokens[i], first)
	}
	revision, err := m.inSync(ctx, len(tokens))
	if err != nil {
		return err
	}
	if err := m.fleet.Online(ctx, len(tokens), revision); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := m.cpu()
	if err != nil {
		return err
	}
	m.zones = len(tokens)
	n := int64(len(tokens) - 1)
	t := m.fleet.Traffic().Sub(before)
	m.joined = []Row{
		row("new zones join at once, all in sync", took.Seconds(), "s", n),
		row("the same, processor time of global", (after - cpu).Seconds(), "s", n),
		row("the same, deltas a zone", float64(t.Deltas)/float64(n), "deltas", n),
	}
	s.say("%d zones are in sync at revision %d", len(tokens), revision)
	return nil
}

func (m *manyZones) stop(keep bool) error {
	if m.fleet != nil {
		m.fleet.Stop()
	}
	return m.end(keep)
}

func measureGlobalJoin(ctx context.Context, s *scale) ([]Row, error) {
	m, err := s.manyZones(ctx)
	if err != nil {
		return nil, err
	}
	return s.judged(m.joined), nil
}
