// Package composer owns the server beside a gateway's Envoy that carries out compositions: Envoy hands it a request with the plan, it
// makes the calls through Envoy again, so that mutual TLS, limits and retries hold for each, and puts the answers together.
//
// It keeps no state of compositions: each request brings its plan. It listens on a socket that only the owner may open, and never
// reaches a service by itself.
package composer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/composition"
)

const (
	// maxRequest bounds the body of a request, and maxAnswer that of a call's answer, in bytes.
	maxRequest = 1 << 20
	maxAnswer  = 8 << 20
	// maxPlans bounds the compiled plans that are kept; a gateway has a handful.
	maxPlans = 256
	// shutdown is how long requests may go on after the end.
	shutdown = 5 * time.Second
)

// tracing are the request headers that each call gets, too, so that a trace stays one.
var tracing = []string{
	"x-request-id", "traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
	"x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority", "x-forwarded-for", "x-forwarded-proto",
}

// Composer is the server. Create it by New.
type Composer struct {
	dir    string
	log    *zap.Logger
	client *http.Client

	mu    sync.Mutex
	plans map[string]*composition.Compiled // by their encoding
}

// New makes a composer for the Envoy that runs in dir; it starts nothing.
func New(dir string, log *zap.Logger) *Composer {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, composition.BackSocket))
	}
	return &Composer{dir: dir, log: log, plans: map[string]*composition.Compiled{}, client: &http.Client{
		Transport:     &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 64, MaxIdleConns: 64, IdleConnTimeout: time.Minute, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Listen takes the socket. What an earlier process left there is removed.
func (c *Composer) Listen() (net.Listener, error) {
	path := filepath.Join(c.dir, composition.Socket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("composer: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("composer: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("composer: %w", err), l.Close())
	}
	return l, nil
}

// Run serves until ctx ends, and then lets requests come to their end for a few seconds.
func (c *Composer) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 128 << 10, ErrorLog: zap.NewStdLog(c.log)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("composer: %w", err)
	case <-ctx.Done():
	}
	// The context is over, and what goes on has its own bound.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
	defer cancel()
	err := server.Shutdown(last)
	<-ended // http.ErrServerClosed
	c.client.CloseIdleConnections()
	return err
}

// problem is what a client is told when there is no answer.
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
}

func answer(w http.ResponseWriter, p problem) {
	body, err := json.Marshal(p)
	if err != nil { // texts and a number
		body = nil
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the client may have gone
}

// ServeHTTP carries out the plan that a request brings.
func (c *Composer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	plan, err := c.plan(composition.Join(r.Header.Get))
	if err != nil {
		c.log.Error("composition can't be carried out", zap.Error(err))
		answer(w, problem{Status: http.StatusInternalServerError, Title: "the gateway's plan of this endpoint can't be used"})
		return
	}
	values, bad := valuesOf(plan, r, http.MaxBytesReader(w, r.Body, maxRequest))
	if bad != nil {
		answer(w, *bad)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), plan.Timeout)
	defer cancel()
	run := &run{composer: c, plan: plan, request: r, values: values, done: make([]chan struct{}, len(plan.Calls))}
	if failed := run.calls(ctx); failed != nil {
		answer(w, *failed)
		return
	}
	body, err := plan.Response(run.values)
	if err != nil {
		answer(w, problem{Status: http.StatusBadGateway, Title: "the answers don't make a response", Detail: err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if len(run.without) > 0 {
		slices.Sort(run.without)
		w.Header().Set(composition.PartialHeader, strings.Join(run.without, ", "))
	}
	w.WriteHeader(plan.Status)
	_, _ = w.Write(body) // the client may have gone
}

func (c *Composer) plan(encoded string) (*composition.Compiled, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if plan := c.plans[encoded]; plan != nil {
		return plan, nil
	}
	p, err := composition.Decode(encoded)
	if err != nil {
		return nil, err
	}
	plan, problems := composition.Compile(p)
	if len(problems) > 0 {
		return nil, fmt.Errorf("composition %s: %s: %s", p.Name, problems[0].Field, problems[0].Message)
	}
	if len(c.plans) >= maxPlans {
		clear(c.plans) // those of changed compositions
	}
	c.plans[encoded] = plan
	return plan, nil
}

// valuesOf reads a request.
func valuesOf(plan *composition.Compiled, r *http.Request, body io.Reader) (composition.Values, *problem) {
	v := composition.Values{Header: map[string][]string{}, Calls: map[string]composition.Answer{}}
	path, ok := plan.Match(r.URL.EscapedPath())
	if !ok {
		return v, &problem{Status: http.StatusNotFound, Title: "no such path"}
	}
	for name, segment := range path {
		plain, err := url.PathUnescape(segment)
		if err != nil {
			return v, &problem{Status: http.StatusBadRequest, Title: "the path can't be read", Detail: err.Error()}
		}
		path[name] = plain
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return v, &problem{Status: http.StatusBadRequest, Title: "the query can't be read", Detail: err.Error()}
	}
	v.Path, v.Query = path, query
	for name, values := range r.Header {
		v.Header[strings.ToLower(name)] = values
	}
	data, err := io.ReadAll(body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return v, &problem{Status: http.StatusRequestEntityTooLarge, Title: fmt.Sprintf("the body is larger than %d bytes", maxRequest)}
	case err != nil:
		return v, &problem{Status: http.StatusBadRequest, Title: "the body can't be read"}
	case len(bytes.TrimSpace(data)) == 0:
		return v, nil
	}
	if v.Body, err = composition.DecodeJSON(data); err != nil {
		return v, &problem{Status: http.StatusBadRequest, Title: "the body is no JSON", Detail: err.Error()}
	}
	return v, nil
}

// run is one request being carried out.
type run struct {
	composer *Composer
	plan     *composition.Compiled
	request  *http.Request
	done     []chan struct{} // closed when a call came to an end

	mu      sync.Mutex
	values  composition.Values
	failed  *problem
	without []string
}

// calls makes all calls, each as soon as those before it are done. The first failure that the whole can't do without ends the others.
func (r *run) calls(ctx context.Context) *problem {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range r.done {
		r.done[i] = make(chan struct{})
	}
	var all sync.WaitGroup
	for i := range r.plan.Calls {
		all.Go(func() {
			defer close(r.done[i])
			for _, n := range r.plan.Needs(i) {
				select {
				case <-r.done[n]:
				case <-ctx.Done():
				}
			}
			if p := r.one(ctx, i); p != nil {
				cancel()
			}
		})
	}
	all.Wait()
	return r.failed
}

// one makes a call and notes what came of it; not nil when the whole fails with it.
func (r *run) one(ctx context.Context, i int) *problem {
	call := r.plan.Calls[i]
	got, err := r.ask(ctx, i)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.values.Calls[call.Name] = got
		return nil
	}
	if standIn, ok := r.plan.StandIn(i); ok {
		r.values.Calls[call.Name] = composition.Answer{Body: standIn}
		r.without = append(r.without, call.Name)
		return nil
	}
	if r.failed == nil {
		r.failed = &problem{Status: http.StatusBadGateway, Title: "call " + call.Name + " failed", Detail: err.Error()}
		if errors.Is(err, context.DeadlineExceeded) {
			r.failed.Status, r.failed.Detail = http.StatusGatewayTimeout, "it took too long"
		}
	}
	return r.failed
}

// errNeeded says that a call has nothing to begin with.
var errNeeded = errors.New("a call that it needs failed")

func (r *run) ask(ctx context.Context, i int) (composition.Answer, error) {
	call := r.plan.Calls[i]
	if err := ctx.Err(); err != nil {
		return composition.Answer{}, err
	}
	r.mu.Lock()
	for _, n := range r.plan.Needs(i) {
		// One that a default stands for is there.
		if name := r.plan.Calls[n].Name; slices.Contains(r.without, name) && r.plan.Calls[n].OnFailure != composition.Default {
			r.mu.Unlock()
			return composition.Answer{}, fmt.Errorf("%w: %s", errNeeded, name)
		}
	}
	wanted, err := r.plan.Request(i, r.values)
	r.mu.Unlock()
	if err != nil {
		return composition.Answer{}, err
	}
	if call.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, call.Timeout)
		defer cancel()
	}
	request, err := http.NewRequestWithContext(ctx, wanted.Method, "http://composer"+wanted.Target, bytes.NewReader(wanted.Body))
	if err != nil {
		return composition.Answer{}, err
	}
	request.Host = r.request.Host
	for _, name := range slices.Concat(tracing, r.plan.ForwardHeaders) {
		if values := r.request.Header.Values(name); len(values) > 0 {
			request.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	request.Header.Set("Accept", "application/json")
	if wanted.Body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, h := range wanted.Headers {
		request.Header.Set(h.Name, h.Value)
	}
	request.Header.Set(composition.CallHeader, r.plan.Name+"/"+call.Name)
	response, err := r.composer.client.Do(request)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the rest is of the socket
		}
		return composition.Answer{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return composition.Answer{}, err
	case !r.plan.Succeeds(i, response.StatusCode):
		return composition.Answer{}, fmt.Errorf("it answered with status %d", response.StatusCode)
	case len(data) > maxAnswer:
		return composition.Answer{}, fmt.Errorf("its answer is larger than %d bytes", maxAnswer)
	}
	out := composition.Answer{Status: response.StatusCode}
	if len(bytes.TrimSpace(data)) == 0 {
		return out, nil
	}
	if out.Body, err = composition.DecodeJSON(data); err != nil {
		return composition.Answer{}, fmt.Errorf("its answer is no JSON: %w", err)
	}
	return out, nil
}
