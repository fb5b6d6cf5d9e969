package zone

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/state"
)

// registrar writes to disk which proxies are there, behind the owner of the state, which waits for no disk. Of several
// changes to one proxy only the newest is written.
type registrar struct {
	store *disk.Store
	log   *zap.Logger
	wake  chan struct{}

	mu sync.Mutex
	// wanted holds what is to be written; nil removes. Guarded by mu.
	wanted map[string]*disk.Registration
}

func newRegistrar(store *disk.Store, log *zap.Logger) *registrar {
	return &registrar{store: store, log: log, wake: make(chan struct{}, 1), wanted: map[string]*disk.Registration{}}
}

// registration is what is kept of a proxy. It holds no secret and no token.
type registration struct {
	Kind    string `json:"kind"`
	Mesh    string `json:"mesh,omitempty"`
	Name    string `json:"name"`
	Payload []byte `json:"payload"`
}

// put keeps what a proxy presents, and gives that.
func (r *registrar) put(who *admission.Proxy) []byte {
	payload, err := resource.Marshal(who.Resource)
	var value []byte
	if err == nil {
		value, err = json.Marshal(registration{Kind: who.Kind, Mesh: who.Mesh, Name: who.Name, Payload: payload})
	}
	if err != nil {
		r.log.Error("proxy can't be kept on disk", zap.String("proxy", who.ID), zap.Error(err))
		return nil
	}
	r.set(who.ID, &disk.Registration{Key: who.ID, Value: value, Seen: time.Now()})
	return value
}

func (r *registrar) remove(id string) { r.set(id, nil) }

func (r *registrar) set(id string, to *disk.Registration) {
	r.mu.Lock()
	r.wanted[id] = to
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is left.
func (r *registrar) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			r.write()
			return
		case <-r.wake:
			r.write()
		}
	}
}

func (r *registrar) write() {
	r.mu.Lock()
	wanted := r.wanted
	r.wanted = map[string]*disk.Registration{}
	r.mu.Unlock()
	if len(wanted) == 0 {
		return
	}
	if err := r.store.SetRegistrations(wanted); err != nil {
		r.log.Error("proxies can't be kept on disk", zap.Error(err))
	}
}

func readRegistration(r disk.Registration) (state.Proxy, error) {
	var v registration
	if err := json.Unmarshal(r.Value, &v); err != nil {
		return state.Proxy{}, fmt.Errorf("registration %s: %w", r.Key, err)
	}
	res, err := resource.Unmarshal(resource.Key{Kind: v.Kind, Mesh: v.Mesh, Name: v.Name}, v.Payload)
	if err != nil {
		return state.Proxy{}, fmt.Errorf("registration %s: %w", r.Key, err)
	}
	out := state.Proxy{ID: r.Key, Mesh: v.Mesh, Name: v.Name}
	switch spec := res.Spec.(type) {
	case *meshv1.Dataplane:
		out.Dataplane = spec
	case *meshv1.ZoneIngress:
		out.ZoneIngress = spec
	default:
		return state.Proxy{}, fmt.Errorf("registration %s: a %s is no proxy", r.Key, v.Kind)
	}
	return out, nil
}
