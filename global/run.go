package global

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/audit"
	"github.com/zoneforge/zoneforge/global/ca"
	"github.com/zoneforge/zoneforge/global/rest"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/view"
	"github.com/zoneforge/zoneforge/global/zones"
	"github.com/zoneforge/zoneforge/overload"
	"github.com/zoneforge/zoneforge/pki/token"
	"github.com/zoneforge/zoneforge/sync/kds"
)

const (
	// openEmbedded bounds the start of the embedded etcd, defaultOpenCluster the first answer of a cluster.
	openEmbedded       = 2 * time.Minute
	defaultOpenCluster = 30 * time.Second
	// firstWrites bounds what a replica writes before it serves.
	firstWrites = 30 * time.Second
)

// parts are the goroutines of a replica; the first failure ends all.
type parts struct{ failed chan error }

// stage is a set of goroutines that end together.
type stage struct {
	parts  *parts
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// stage ends by stop alone, so that the order is ours and not that of the caller's context.
func (p *parts) stage() *stage {
	s := &stage{parts: p}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// start runs f until the stage ends; an end before is the replica's.
func (s *stage) start(name string, f func(context.Context) error) {
	s.wg.Go(func() {
		err := f(s.ctx)
		if s.ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		select {
		case s.parts.failed <- fmt.Errorf("global: %s: %w", name, err):
		default: // the first failure is told
		}
	})
}

func (s *stage) stop() {
	s.cancel()
	s.wg.Wait()
}

// Run serves until ctx ends, and then stops in order: no new requests, those under way to their end, zones, and the store
// last. It returns nil when it stopped because of ctx, and else why it can't go on. Call it once.
func (g *Global) Run(ctx context.Context) error {
	if !g.running.CompareAndSwap(false, true) {
		return errors.New("global: Run is called a second time; make another Global")
	}
	known, err := openDir(g.cfg.DataDir)
	if err != nil {
		return err
	}
	cert, err := g.certificate()
	if err != nil {
		return err
	}
	restListener, err := listen("rest-address", g.cfg.RESTAddress)
	if err != nil {
		return err
	}
	defer restListener.Close()
	kdsListener, err := listen("kds-address", g.cfg.KDSAddress)
	if err != nil {
		return err
	}
	defer kdsListener.Close()

	// Health is told from the beginning, as opening a large store takes its time.
	p := &parts{failed: make(chan error, 1)}
	entrance, ready := &door{}, &readiness{done: make(chan struct{})}
	base, cutOff := context.WithCancel(context.Background())
	defer cutOff()
	server := httpServer(base, g.metrics.observe(entrance), cert.config(), g.log)
	ports := portsCollector{"rest": overload.Listen(restListener, g.cfg.Limits.RESTConnections), "kds": overload.Listen(kdsListener, g.cfg.Limits.KDSConnections)}
	front := p.stage()
	front.start("server certificate", cert.run)
	serveREST(front, ports["rest"], server)
	endREST := sync.OnceFunc(func() {
		ready.stop()
		stopREST(front, server, cutOff)
	})
	defer endREST()

	s, key, err := g.open(ctx, known)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	defer s.Close()
	back := p.stage()
	defer back.stop()
	back.start("store", s.Run)
	authorities, err := g.prepare(ctx, s, known)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	back.start("mark", func(ctx context.Context) error { return g.remember(ctx, s) })
	back.start("certificate authorities", authorities.Run)

	views := view.New(s, g.log)
	registry, err := g.registry(s, views, authorities)
	if err != nil {
		return err
	}
	back.start("zones", registry.Run)
	rotator := ca.NewRotator(authorities, standings{registry}, g.cfg.RootSettle)
	back.start("rotation of roots", rotator.Run)
	others, err := g.join(back, s, registry, key, ports)
	if err != nil {
		return err
	}
	secrets := &sealing{key: key, store: s, others: others, embedded: len(g.cfg.EtcdEndpoints) == 0, replica: g.cfg.Replica, log: g.log}
	back.start("key file", secrets.follow)
	link := p.stage()
	kdsServer := serveKDS(link, ports["kds"], cert.config(), registry)
	// Deferred calls run last to first: here REST stops before KDS, then what both need, and the store closes at last.
	defer stopKDS(link, kdsServer, registry, g.log)
	defer endREST()

	log, err := audit.Open(g.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("global: %w", err)
	}
	defer log.Close()
	defer endREST() // which writes it

	g.metrics.registry.MustRegister(storeCollector{s}, zonesCollector{registry, views}, rootsCollector{rotator}, replicasCollector{s, registry, others}, ports)
	ready.open(s)
	entrance.open(rest.New(rest.Config{
		Store: countingStore{s, g.metrics}, Tokens: authorities, Roots: rotator, Zones: zonesOf{registry, others}, Replicas: g.replicas(s, registry, others), References: views, Metrics: g.metrics.handler(),
		Authenticator: &authenticator{users: &verifier{purpose: token.User, store: s, ca: authorities}, trustLoopback: g.cfg.TrustLoopback},
		Backup:        g.backup(s), Audit: log, Sealing: secrets, Health: g.health(s, cert, rotator), Ready: ready.check, Done: ready.done, Logger: g.log,
		Limits:  rest.Limits{Rate: g.cfg.Limits.RESTRate, Concurrency: g.cfg.Limits.RESTConcurrency, Refused: g.metrics.tooMuch},
		Version: g.cfg.Version, Replica: g.cfg.Replica, Schema: g.cfg.Schema,
	}))
	at := Addresses{REST: restListener.Addr().String(), KDS: kdsListener.Addr().String()}
	g.log.Info("global is ready", zap.String("replica", g.cfg.Replica), zap.String("rest", at.REST), zap.String("kds", at.KDS),
		zap.Int64("revision", s.Snapshot().Revision()), zap.String("epoch", s.Epoch()))
	g.mu.Lock()
	g.addresses = at
	g.mu.Unlock()

	select {
	case <-ctx.Done():
		g.log.Info("global stops")
		return nil
	case err := <-p.failed:
		return err
	}
}

// registry makes the registry of zones, which zones enter by their tokens.
func (g *Global) registry(s *store.Store, views *view.Views, authorities *ca.Authorities) (*zones.Registry, error) {
	tokens := &verifier{purpose: token.Zone, store: s, ca: authorities}
	r, err := zones.New(zones.Config{
		Store: s, Views: views, Signer: authorities, Logger: g.log,
		Verify: func(text string) (string, error) {
			claims, err := tokens.verify(text)
			return claims.Zone, err
		},
		StreamRate: g.cfg.Limits.StreamRate,
		Machine:    kds.GlobalConfig{Replica: g.cfg.Replica, Version: g.cfg.Version, Domain: g.cfg.Domain, Interval: g.cfg.HeartbeatInterval},
	})
	if err != nil {
		return nil, fmt.Errorf("global: %w", err)
	}
	return r, nil
}

// unlessStopped is nil when an error only says that the replica was told to stop while it started.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// open opens the store with its keys.
func (g *Global) open(ctx context.Context, known *mark) (*store.Store, *store.KeyFile, error) {
	key, made, err := openKey(g.cfg.KeyEncryptionKeyFile, known != nil)
	if err != nil {
		return nil, nil, err
	}
	cfg, limit, err := g.storeConfig(key)
	if err != nil {
		return nil, nil, err
	}
	if known != nil {
		cfg.Known = store.Known{Epoch: known.Epoch, Revision: known.Revision}
	}
	opening, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := store.Open(opening, cfg)
	if err == nil {
		return s, key, nil
	}
	if made && errors.Is(err, store.ErrWrongKey) {
		// The key that was just made opens nothing, and would only hide that the right one is missing.
		_ = os.Remove(g.cfg.KeyEncryptionKeyFile)
		return nil, nil, fmt.Errorf("global: there is no key file %s, and the store is sealed with one; copy it from another replica or from a backup: %w",
			g.cfg.KeyEncryptionKeyFile, err)
	}
	if errors.Is(err, context.DeadlineExceeded) && len(g.cfg.EtcdEndpoints) > 0 {
		return nil, nil, fmt.Errorf("global: etcd at %s does not answer within %s; check etcd-endpoints, its certificate files and the cluster: %w",
			strings.Join(g.cfg.EtcdEndpoints, ", "), limit, err)
	}
	return nil, nil, fmt.Errorf("global: %w", err)
}

// storeConfig says where the store is, and how long its opening may take.
func (g *Global) storeConfig(key *store.KeyFile) (cfg store.Config, limit time.Duration, err error) {
	cfg = store.Config{Seal: key, Logger: g.log, CheckInterval: g.compareStore}
	if len(g.cfg.EtcdEndpoints) == 0 {
		cfg.DataDir = filepath.Join(g.cfg.DataDir, storeName)
		return cfg, openEmbedded, nil
	}
	cfg.Endpoints, cfg.Username, cfg.Password = g.cfg.EtcdEndpoints, g.cfg.EtcdUsername, g.cfg.EtcdPassword
	cfg.TLS, err = g.etcdTLS()
	return cfg, g.openCluster, err
}

func (g *Global) etcdTLS() (*tls.Config, error) {
	secure := g.cfg.EtcdTLS != EtcdTLS{}
	for _, e := range g.cfg.EtcdEndpoints {
		secure = secure || strings.HasPrefix(e, "https://")
	}
	if !secure {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if f := g.cfg.EtcdTLS.CA; f != "" {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("global: roots of etcd: %w; set etcd-ca-file", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("global: %s holds no certificate in PEM; set etcd-ca-file to the roots of etcd", f)
		}
	}
	if g.cfg.EtcdTLS.Cert != "" {
		pair, err := tls.LoadX509KeyPair(g.cfg.EtcdTLS.Cert, g.cfg.EtcdTLS.Key)
		if err != nil {
			return nil, fmt.Errorf("global: client certificate for etcd: %w; set etcd-cert-file and etcd-key-file", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// prepare checks that store, directory and configuration belong together, and makes what a federation begins with.
func (g *Global) prepare(ctx context.Context, s *store.Store, known *mark) (*ca.Authorities, error) {
	ctx, cancel := context.WithTimeout(ctx, firstWrites)
	defer cancel()
	if err := checkDomain(s.Snapshot(), g.cfg.Domain); err != nil {
		return nil, err
	}
	if known != nil {
		if err := known.fits(g.cfg.DataDir, s.Snapshot(), g.cfg.Domain); err != nil {
			return nil, err
		}
	}
	authorities, err := ca.New(ca.Config{Store: s, Domain: g.cfg.Domain, Logger: g.log})
	if err != nil {
		return nil, fmt.Errorf("global: %w", err)
	}
	made, err := defaultMesh(ctx, s)
	if err != nil {
		return nil, err
	}
	if made {
		g.log.Info("default mesh made, with mutual TLS and nothing permitted", zap.String("mesh", "default"))
	}
	if err := authorities.EnsureKeys(ctx); err != nil {
		return nil, fmt.Errorf("global: %w", err)
	}
	if err := g.adminToken(ctx, authorities, known == nil); err != nil {
		return nil, err
	}
	if known == nil || known.Epoch != s.Epoch() { // last, so that a start that was cut short is a first one again
		err = mark{Role: role, Epoch: s.Epoch(), Domain: g.cfg.Domain}.write(g.cfg.DataDir)
	}
	return authorities, err
}
