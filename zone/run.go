package zone

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/overload"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/identity"
	"github.com/zoneforge/zoneforge/zone/quiet"
	"github.com/zoneforge/zoneforge/zone/records"
	"github.com/zoneforge/zoneforge/zone/state"
)

const (
	// Envoy asks after half a minute of silence, and one of an older launcher after 10 s, which gRPC refuses by default.
	keepaliveLeast = 5 * time.Second
	// gRPC asks no proxy whether it lives, see package quiet.
	keepaliveTime = time.Duration(math.MaxInt64)
	// maxRequest bounds what a proxy may send, which holds its document and the names that it wants.
	maxRequest = 16 << 20
	// handshake bounds TLS and HTTP/2 of a new connection. Ten thousand proxies that come back at once take two processors more than ten
	// seconds, and those that were ended for that would only take it again.
	handshake = 30 * time.Second
	// streamsPerConnection: a proxy needs one, and another while it reconnects.
	streamsPerConnection = 8
	// A proxy sends little after its first request, so its connection has no buffers of its own, and its window is not measured by
	// pings. TLS holds a record as it is.
	window = 64 << 10
	// writeBuffer is what goes out at once, as long as a record of TLS. Who has nothing to write has none.
	writeBuffer = 16 << 10
	// stopping is how long proxies may take to hear that the zone stops, and requests of the REST server to end.
	stopping = 2 * time.Second
)

// Run serves until ctx ends, and returns nil then, or why it can't go on. It joins all its goroutines. Call it once.
func (z *Zone) Run(ctx context.Context) (err error) {
	if !z.running.CompareAndSwap(false, true) {
		return errors.New("zone: Run was called before")
	}
	store, err := disk.Open(z.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Claim(z.cfg.Name); err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	if store.Recovered != "" {
		z.log.Error("data directory was damaged; global gives its content again", zap.String("reason", store.Recovered))
	}
	store.Usable = state.Usable
	held, at, err := store.Load()
	if err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	good, err := store.Good()
	if err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	c, err := z.open(store)
	if err != nil {
		return err
	}
	c.heldRecords = held.Len()
	// The machine changes its set, and the state is loaded from what was there.
	machine := kds.NewZone(kds.ZoneConfig{
		Zone: z.cfg.Name, Replica: z.cfg.Replica, Identity: store.Identity, Version: z.cfg.Version, Features: z.features(),
	}, held.Clone(), at)
	trust, err := z.trust()
	if err != nil {
		return err
	}
	client, err := stream.NewClient(stream.ClientConfig{
		Targets: z.cfg.GlobalAddresses, TLS: trust, Token: z.token, Log: z.log, Event: func(e kds.ZoneEvent) { c.event(e) },
		Applier: &applier{store: store, core: c},
	}, machine)
	if err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	c.identity, err = identity.New(identity.Config{
		Zone: z.cfg.Name, Store: store, SVIDLifetime: z.cfg.SVIDLifetime, Logger: z.log,
		Request: func(ctx context.Context, mesh string, csr []byte) error { return request(ctx, client, mesh, csr) },
	})
	if err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	registrations, err := store.Registrations()
	if err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	if len(registrations) == 0 {
		c.blank = &blank{lost: store.Recovered != "", given: map[string]bool{}, kept: map[string]bool{}}
	}
	if n := len(registrations); n > 0 && z.cfg.Returning != nil {
		c.returned = func() { z.cfg.Returning(0) }
		z.cfg.Returning(n)
	}
	c.load(held, good, at, registrations)
	if c.siblings, err = z.join(store, at, client.Connected); err != nil {
		return err
	}
	if c.siblings != nil {
		c.metrics.registry.MustRegister(siblingsCollector{c.siblings})
	}

	cert, err := z.certificate()
	if err != nil {
		return err
	}
	xdsListener, err := listen("xds-address", z.cfg.XDSAddress)
	if err != nil {
		return err
	}
	defer xdsListener.Close()
	restListener, err := listen("rest-address", z.cfg.RESTAddress)
	if err != nil {
		return err
	}
	defer restListener.Close()
	c.checkups = &checkups{
		replica: z.cfg.Replica, dataDir: z.cfg.DataDir, caFile: z.CAFile(), server: cert, recovered: store.Recovered, asked: make(chan func(context.Context), maxCheckUps),
	}
	return z.serve(ctx, c, client, machine, cert, xdsListener, restListener)
}

// among names this replica among others of the zone; empty when it is alone.
func (z *Zone) among() string {
	if z.cfg.Gossip.Address == "" {
		return ""
	}
	return z.cfg.Replica
}

// features are those of KDS that this replica asks for.
func (z *Zone) features() []string {
	if z.among() == "" {
		return nil
	}
	return []string{kds.FeatureSiblings}
}

// open joins the parts around the state.
func (z *Zone) open(store *disk.Store) (*core, error) {
	c := &core{
		zone: z.cfg.Name, version: z.cfg.Version, log: z.log, inbox: newInbox(), state: state.New(z.cfg.Name, z.among()), keys: &keys{},
		files: newRegistrar(store, z.cfg.Version, z.log), report: newReporter(), metrics: newMetrics(),
		proxies: map[string]*proxy{}, restored: map[string]*proxy{}, coming: map[string]int{}, secrets: map[secretKey]*sealed{}, usersOf: map[secretKey]map[string]bool{},
		renew: map[string]bool{}, troubled: map[string]bool{}, meshErrors: map[string]string{}, changed: true, rests: make(chan struct{}, 1),
	}
	var err error
	if c.admitted, err = admission.New(admission.Config{Zone: z.cfg.Name, Keys: c.keys}); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	c.begins, c.refusals = z.cfg.Limits.begins(), newRefusals()
	d := &door{core: c, admission: c.admitted}
	if c.xds, err = server.New(server.Config{Authenticator: d, Observer: d, Logger: z.log}); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	c.metrics.registry.MustRegister(servedCollector{c.xds})
	return c, nil
}

// serve runs everything until ctx ends or a server fails.
func (z *Zone) serve(ctx context.Context, c *core, client *stream.Client, machine *kds.Zone, cert *certificate, xdsListener, restListener net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	part := func(what string, run func() error) {
		wg.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("zone: %s: %w", what, err))
			}
		})
	}
	silent := func(run func()) func() error { return func() error { run(); return nil } }

	keeper, greeter := quiet.New(), newGreeter(ctx.Done())
	grpcServer := proxyServer(greeter.bind(cert.config(), keeper.Credentials), c.stranger)
	c.xds.Register(grpcServer)
	var serving atomic.Bool
	errorLog, err := zap.NewStdLogAt(z.log, zap.DebugLevel)
	if err != nil {
		errorLog = nil
	}
	restServer := &http.Server{Handler: c.metrics.handler(c.keys, &serving, z.cfg.MetricsTokenFile), TLSConfig: cert.config(), ErrorLog: errorLog}
	overload.Patience{Head: 10 * time.Second, Request: 30 * time.Second, Answer: time.Minute, Idle: 2 * time.Minute}.Bind(restServer)

	ports := map[string]*overload.Listener{"xds": overload.Listen(xdsListener, z.cfg.Limits.Connections), "rest": overload.Listen(restListener, restConnections)}
	c.metrics.registry.MustRegister(overloadCollector{ports, c.begins, greeter}, endsCollector{c.identity, cert, client})

	// The owner of the state is stopped before the streams are, so that their end is not taken for that of the proxies.
	var owner sync.WaitGroup
	owner.Go(func() { c.run(ctx, z.cfg.EndpointGrace) })
	part("identities", func() error { return c.identity.Run(ctx) })
	if s := c.siblings; s != nil {
		part("gossip", func() error { return s.gossip.Run(ctx) })
		part("keys of gossip", silent(func() { s.gossip.FollowKeys(ctx, s.keyFile, keysEvery) }))
		part("pulse", silent(func() { s.pulse.run(ctx) }))
		part("replicas", func() error { return s.follow(ctx, c, client, machine) })
	}
	part("global", func() error {
		if s := c.siblings; s != nil {
			select {
			case <-s.met:
			case <-ctx.Done():
				return nil
			}
		}
		return client.Run(ctx)
	})
	part("keepalives", silent(func() { keeper.Run(ctx) }))
	part("check-ups", silent(func() { c.checkups.run(ctx) }))
	part("rest", silent(func() { c.rest(ctx, z.cfg.Rests) }))
	part("reports", silent(func() { c.report.run(ctx, client) }))
	part("server certificate", silent(func() { cert.run(ctx) }))
	proxies := net.Listener(ports["xds"])
	if c.siblings != nil {
		proxies = asideListener{proxies, &c.siblings.aside}
	}
	part("xDS", func() error { return grpcServer.Serve(records.Listener{Listener: proxies}) })
	part("REST", func() error { return ignoreClosed(restServer.ServeTLS(ports["rest"], "", "")) })
	// Registrations are written until the owner has said its last.
	files, stopFiles := context.WithCancel(context.WithoutCancel(ctx))
	wg.Go(func() { c.files.run(files) })

	serving.Store(true)
	at := Addresses{XDS: xdsListener.Addr().String(), REST: restListener.Addr().String()}
	z.log.Info("zone control plane serves", zap.String("xds", at.XDS), zap.String("rest", at.REST), zap.String("version", z.cfg.Version))
	z.mu.Lock()
	z.addresses = at
	z.mu.Unlock()

	<-ctx.Done()
	serving.Store(false)
	owner.Wait()
	stopFiles()
	bounded, done := context.WithTimeout(context.WithoutCancel(ctx), stopping)
	defer done()
	// A plain stop would cut off the word that it is one.
	c.xds.Stop()
	hurry := context.AfterFunc(bounded, grpcServer.Stop)
	grpcServer.GracefulStop()
	hurry()
	if restServer.Shutdown(bounded) != nil {
		_ = restServer.Close()
	}
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// listen takes a port. The address that is in use is the commonest failure, so it is told how to mend it.
func listen(setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("zone: %s %s is in use by another process; stop it, or set another %s: %w", setting, address, setting, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("zone: %s %s is not allowed to this user; set a port above 1023: %w", setting, address, err)
	case err != nil:
		return nil, fmt.Errorf("zone: %s %s: %w; set an address of this machine", setting, address, err)
	}
	return l, nil
}

// trust is how global proves itself.
func (z *Zone) trust() (*tls.Config, error) {
	roots, err := os.ReadFile(z.cfg.GlobalCAFile)
	if err != nil {
		return nil, fmt.Errorf("zone: global-ca: %w; copy tls/server-ca.crt from global's data directory", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("zone: global-ca %s holds no certificate in PEM; copy tls/server-ca.crt from global's data directory", z.cfg.GlobalCAFile)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

func (z *Zone) token() (string, error) {
	b, err := os.ReadFile(z.cfg.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token-file: %w; get one with `zoneforge token zone`", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("token-file %s is empty; get a token with `zoneforge token zone`", z.cfg.TokenFile)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("token-file %s holds more than a token; get one with `zoneforge token zone NAME --out FILE`", z.cfg.TokenFile)
	}
	return token, nil
}

// applier puts deltas on the disk and then into force.
type applier struct {
	store *disk.Store
	core  *core
}

// Apply returns when the state has the delta whole; configuration follows within milliseconds.
func (a *applier) Apply(ctx context.Context, d *kds.Apply) ([]*kdsv1.Rejection, error) {
	if err := a.store.Apply(d.Upserts, d.Deletes, d.Snapshot, d.Position); err != nil {
		return nil, err
	}
	done := make(chan []*kdsv1.Rejection, 1)
	a.core.inbox.post(event{run: func() { done <- a.core.apply(d) }})
	select {
	case rejected := <-done:
		return rejected, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// event takes what the stream's machine tells, on the stream's goroutine.
func (c *core) event(e kds.ZoneEvent) {
	switch {
	case e.Welcome != nil:
		if c.siblings != nil {
			c.siblings.welcomed(true)
			c.siblings.word.welcomed(e.Welcome.GetSiblings())
		}
		c.metrics.welcomes.Inc()
		c.inbox.post(event{run: func() { c.welcomed(e.Welcome.GetOffered()) }})
		c.identity.Connected()
	case e.Refusal != nil && c.siblings != nil && e.Refusal.GetCode() == kdsv1.Refusal_CODE_DUPLICATE_ZONE:
		c.siblings.welcomed(false)
	case e.Siblings != nil && c.siblings != nil:
		c.siblings.word.hear(e.Siblings)
	case e.Certificate != nil:
		c.identity.Answer(e.Certificate)
	case e.Query != nil:
		c.inbox.post(event{run: func() { c.query(e.Query) }})
	case len(e.Mismatch) > 0:
		c.metrics.repairs.Inc()
		c.log.Warn("what this zone holds is not what global meant; it is repaired", zap.Strings("kinds", e.Mismatch))
	case e.Lost:
		c.metrics.lost.Inc()
	case e.ReportAck != nil:
		for _, r := range e.ReportAck.GetRejected() {
			c.log.Warn("global refused what this zone reports", zap.String("kind", r.GetKey().GetKind()), zap.String("mesh", r.GetKey().GetMesh()),
				zap.String("name", r.GetKey().GetName()), zap.String("reason", r.GetReason()))
		}
	}
}

func request(ctx context.Context, client *stream.Client, mesh string, csr []byte) error {
	var id uint64
	if err := client.Do(ctx, func(z *kds.Zone) { id = z.RequestCertificate(mesh, csr) }); err != nil {
		return err
	}
	if id == 0 {
		return errors.New("there is no stream to global")
	}
	return nil
}
