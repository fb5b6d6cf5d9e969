// Package rest owns the REST API of global: routes, roles, the shape of answers and of problems, and the checks that a change
// needs across resources. It never listens, never verifies credentials itself, never shows a secret, and knows nothing of etcd
// or of zones.
package rest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/view"
	"github.com/zoneforge/zoneforge/resource"
)

// Store is what the API needs of the store; *store.Store is one. Its Run must be running, as writers wait for what they wrote.
type Store interface {
	Snapshot() *store.Snapshot
	Commit(ctx context.Context, c store.Change) (store.Committed, error)
	Wait(ctx context.Context, revision int64) (*store.Snapshot, error)
	History(ctx context.Context, limit int, before int64) ([]store.ChangeInfo, error)
	ShowChange(ctx context.Context, seq int64) (*store.ShownChange, error)
}

// Role is what a principal may do.
type Role string

// Roles. A viewer reads everything, a writer also writes in its meshes, an admin writes everything.
const (
	RoleAdmin  Role = "admin"
	RoleWriter Role = "writer"
	RoleViewer Role = "viewer"
)

// Principal is who sent a request. Meshes are those that a writer may write in, Token is the identifier of the token, if any.
type Principal struct {
	Name   string
	Role   Role
	Meshes []string
	Token  string
}

func (p Principal) mayRead() bool {
	return p.Role == RoleAdmin || p.Role == RoleWriter || p.Role == RoleViewer
}

// mayWrite decides over one key. Global kinds, which have no mesh, are an admin's alone.
func (p Principal) mayWrite(k resource.Key) bool {
	return p.Role == RoleAdmin || p.Role == RoleWriter && k.Mesh != "" && slices.Contains(p.Meshes, k.Mesh)
}

// mayWriteSome is true of whoever may write at all.
func (p Principal) mayWriteSome() bool {
	return p.Role == RoleAdmin || p.Role == RoleWriter && len(p.Meshes) > 0
}

// Authenticator finds out who sent a request; an error means that nobody known did. Safe for concurrent use.
type Authenticator interface {
	Authenticate(*http.Request) (Principal, error)
}

// References is what the API needs to know of the stored resources besides themselves; *view.Views is one.
type References interface {
	// Naming lists the policies that name a Secret.
	Naming(secret resource.Key) []resource.Key
}

// Config is what New needs.
type Config struct {
	Store         Store
	Authenticator Authenticator
	// References knows what names a Secret; when nil it is made of Store.
	References References
	// Schema checks what ProxyTemplates say to Envoy; nil leaves that to the zones.
	Schema resource.EnvoySchema
	// Logger may be nil.
	Logger *zap.Logger
	// Now is the time of changes; time.Now when nil.
	Now func() time.Time
	// Ready tells why requests should go elsewhere; nil means always ready.
	Ready func(context.Context) error
	// Tokens issues and revokes; without it there are no such routes.
	Tokens Tokens
	// Roots are those of meshes; without it there are no such routes.
	Roots Roots
	// Zones knows the zones; without it there are no such routes.
	Zones Zones
	// Replicas lists those of global, for /v1/status/replicas; without it there is no such route.
	Replicas func() any
	// Backup serves /v1/backup to admins; without it there is no such route.
	Backup Backup
	// Health says how this replica is, in what is encoded as JSON; without it there is no such route.
	Health func(context.Context) any
	// Sealing changes what seals secrets, for admins; without it there are no such routes.
	Sealing Sealing
	// Audit records who asked for what beyond reading, and serves /v1/audit to admins; without it there is neither.
	Audit Audit
	// Metrics serves /metrics to whoever may read; without it there is no such route.
	Metrics http.Handler
	// Limits bound what one client may ask for.
	Limits Limits
	// Done ends watches when it closes; nil for never.
	Done <-chan struct{}
	// Version of the software and name of this replica of global, for /v1/version.
	Version, Replica string
}

// maxBody bounds a request's body, in bytes.
const maxBody = resource.MaxBytes

// commitTimeout bounds a commit, which goes on when its client hangs up, so that its outcome is known.
const commitTimeout = 30 * time.Second

type api struct {
	Config
	kinds map[string]*resource.Kind // by plural
	// writing holds one token: within one process a change is checked against exactly the state that it is committed to.
	writing chan struct{}
	// backingUp holds one token, as a backup reads much, and so does resealing.
	backingUp, resealing chan struct{}
	bounds               *bounds
}

// New makes the handler. It is safe for concurrent use and starts nothing.
func New(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.References == nil {
		cfg.References = view.New(cfg.Store, cfg.Logger)
	}
	a := &api{Config: cfg, kinds: map[string]*resource.Kind{}, writing: make(chan struct{}, 1), backingUp: make(chan struct{}, 1), resealing: make(chan struct{}, 1), bounds: newBounds(cfg.Limits)}
	for _, k := range resource.Kinds() {
		a.kinds[k.Plural] = k
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("/readyz", a.readyz)
	mux.HandleFunc("/v1/changes", a.guard(methods{http.MethodGet: a.history, http.MethodPost: a.apply}))
	mux.HandleFunc("/v1/changes/{seq}", a.guard(methods{http.MethodGet: a.showChange}))
	mux.HandleFunc("/v1/version", a.guard(methods{http.MethodGet: a.version}))
	if a.Tokens != nil {
		mux.HandleFunc("/v1/tokens/revocations", a.guard(methods{http.MethodPost: a.revoke}))
		mux.HandleFunc("/v1/tokens/keys", a.guard(methods{http.MethodPost: a.rotateKey}))
		mux.HandleFunc("/v1/tokens/keys/{id}", a.guard(methods{http.MethodDelete: a.retireKey}))
		mux.HandleFunc("/v1/tokens/{what}", a.guard(methods{http.MethodPost: a.issue}))
	}
	if a.Roots != nil {
		mux.HandleFunc("/v1/roots", a.guard(methods{http.MethodGet: a.roots}))
		mux.HandleFunc("/v1/roots/{mesh}", a.guard(methods{http.MethodGet: a.root}))
		mux.HandleFunc("/v1/roots/{mesh}/rotation", a.guard(methods{http.MethodPost: a.rotateRoot}))
		mux.HandleFunc("/v1/roots/{mesh}/rotation/without", a.guard(methods{http.MethodPost: a.rotateWithout}))
	}
	if a.Zones != nil {
		mux.HandleFunc("/v1/status/zones", a.guard(methods{http.MethodGet: a.zoneStatuses}))
		mux.HandleFunc("/v1/status/zones/{zone}", a.guard(methods{http.MethodGet: a.zoneStatus}))
		mux.HandleFunc("/v1/zones/{zone}/check-up", a.guard(methods{http.MethodGet: a.checkUp}))
		mux.HandleFunc("/v1/changes/{seq}/status", a.guard(methods{http.MethodGet: a.receipt}))
		mux.HandleFunc("/v1/zones/{zone}/dataplanes", a.guard(methods{http.MethodGet: a.dataplanes}))
		mux.HandleFunc("/v1/zones/{zone}/dataplanes/{mesh}/{name}", a.guard(methods{http.MethodGet: a.dataplane}))
	}
	if a.Health != nil {
		mux.HandleFunc("/v1/status/global", a.guard(methods{http.MethodGet: a.health}))
	}
	if a.Replicas != nil {
		mux.HandleFunc("/v1/status/replicas", a.guard(methods{http.MethodGet: func(w http.ResponseWriter, _ *http.Request, _ Principal) *problem {
			writeJSON(w, http.StatusOK, map[string]any{"items": a.Replicas()})
			return nil
		}}))
	}
	if a.Backup != nil {
		mux.HandleFunc("/v1/backup", a.guard(methods{http.MethodGet: a.download}))
	}
	if a.Sealing != nil {
		mux.HandleFunc("/v1/kek", a.guard(methods{http.MethodGet: a.sealed}))
		mux.HandleFunc("/v1/kek/keys", a.guard(methods{http.MethodPost: a.addSealingKey}))
		mux.HandleFunc("/v1/kek/keys/{id}", a.guard(methods{http.MethodDelete: a.dropSealingKey}))
		mux.HandleFunc("/v1/kek/reseal", a.guard(methods{http.MethodPost: a.reseal}))
	}
	if a.Audit != nil {
		mux.HandleFunc("/v1/audit", a.guard(methods{http.MethodGet: a.showAudit}))
	}
	if a.Metrics != nil {
		mux.HandleFunc("/metrics", a.guard(methods{http.MethodGet: func(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
			a.Metrics.ServeHTTP(w, r)
			return nil
		}}))
	}
	one := a.guard(methods{http.MethodGet: a.get, http.MethodPut: a.put, http.MethodDelete: a.delete})
	list := a.guard(methods{http.MethodGet: a.list})
	mux.HandleFunc("/v1/{plural}", list)
	mux.HandleFunc("/v1/{plural}/{name}", one)
	mux.HandleFunc("/v1/meshes/{mesh}/{plural}", list)
	mux.HandleFunc("/v1/meshes/{mesh}/{plural}/{name}", one)
	mux.HandleFunc("/", a.guard(nil))
	return mux
}

func (a *api) readyz(w http.ResponseWriter, r *http.Request) {
	if a.Ready != nil {
		if err := a.Ready(r.Context()); err != nil {
			newProblem(http.StatusServiceUnavailable, "not_ready", err.Error(), "retry later or ask another replica").write(w)
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

func (a *api) version(w http.ResponseWriter, _ *http.Request, _ Principal) *problem {
	writeJSON(w, http.StatusOK, map[string]string{"version": a.Version, "epoch": a.Store.Snapshot().Epoch(), "replica": a.Replica})
	return nil
}

func (a *api) health(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	writeJSON(w, http.StatusOK, a.Health(r.Context()))
	return nil
}

type handler func(http.ResponseWriter, *http.Request, Principal) *problem

type methods map[string]handler

// guard asks for a principal before anything is told, even whether a route exists.
func (a *api) guard(ms methods) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		serve := func(w http.ResponseWriter, r *http.Request) *problem { return a.serve(ms, w, r) }
		if a.Audit != nil && !readsOnly(r) {
			a.audited(w, r, serve)
			return
		}
		if p := serve(w, r); p != nil {
			p.write(w)
		}
	}
}

func (a *api) serve(ms methods, w http.ResponseWriter, r *http.Request) *problem {
	who, err := a.Authenticator.Authenticate(r)
	leave, p := a.bounds.enter(w, clientOf(r, who, err))
	if p != nil {
		return p
	}
	defer leave()
	if err != nil {
		a.Logger.Debug("request refused", zap.Error(err))
		w.Header().Set("WWW-Authenticate", "Bearer")
		return newProblem(http.StatusUnauthorized, "unauthenticated", "the request carries no valid credentials", "send a valid token")
	}
	noteOf(r.Context()).by(who)
	if !who.mayRead() {
		return newProblem(http.StatusForbidden, "forbidden", "the token's role is not known", "use a token with the role admin, writer or viewer")
	}
	if ms == nil {
		return noRoute()
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	h, ok := ms[method]
	if !ok {
		for _, m := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
			if ms[m] != nil {
				w.Header().Add("Allow", m)
			}
		}
		return newProblem(http.StatusMethodNotAllowed, "method_not_allowed", "the method is not allowed here", "see the Allow header")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	return h(w, r, who)
}

// storeProblem tells a client what the store said; unknown errors are logged here, as the client learns no detail.
func (a *api) storeProblem(err error) *problem {
	switch {
	case errors.Is(err, store.ErrConflict):
		return newProblem(http.StatusConflict, "conflict", err.Error(), "read the resource again and repeat the change")
	case errors.Is(err, store.ErrNotFound):
		return newProblem(http.StatusNotFound, "not_found", err.Error(), "list the changes to see their numbers")
	case errors.Is(err, store.ErrInvalid):
		return newProblem(http.StatusUnprocessableEntity, "invalid", err.Error(), "mend the change")
	case errors.Is(err, store.ErrFull):
		a.Logger.Error("the store has no room", zap.Error(err))
		return newProblem(http.StatusInsufficientStorage, "store_full", err.Error(), "make room on the disk of global and repeat the change")
	case errors.Is(err, store.ErrNoSpace):
		a.Logger.Error("etcd takes no writes", zap.Error(err))
		return newProblem(http.StatusInsufficientStorage, "store_full", "etcd is out of space (alarm NOSPACE); nothing was changed",
			"compact and defragment etcd, disarm its alarm, and repeat the change")
	case errors.Is(err, store.ErrUnknownOutcome):
		return newProblem(http.StatusServiceUnavailable, "unknown_outcome", err.Error(), "read the resources to learn whether the change happened")
	case errors.Is(err, store.ErrUnavailable):
		a.Logger.Warn("the store does not answer", zap.Error(err))
		return newProblem(http.StatusServiceUnavailable, "store_unavailable", "the store does not answer this replica; nothing was changed",
			"ask another replica, or retry when /readyz of this one says ready")
	}
	a.Logger.Error("the store failed", zap.Error(err))
	return newProblem(http.StatusServiceUnavailable, "store_unavailable", "the store does not answer", "retry later")
}
