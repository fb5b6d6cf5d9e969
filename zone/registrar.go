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

// apart is how far the beginnings of two writes are apart at least. Each takes a third of a millisecond of a processor and waits for the disk,
// and nobody waits for it.
const apart = 10 * time.Millisecond

// registrar writes to disk which proxies are there, behind the owner of the state, which waits for no disk. Of several
// changes to one proxy only the newest is written.
type registrar struct {
	store   *disk.Store
	version string
	log     *zap.Logger
	wake    chan struct{}

	mu sync.Mutex
	// wanted holds what is to be written; nil removes. Guarded by mu.
	wanted map[string]*disk.Registration
}

func newRegistrar(store *disk.Store, version string, log *zap.Logger) *registrar {
	return &registrar{store: store, version: version, log: log, wake: make(chan struct{}, 1), wanted: map[string]*disk.Registration{}}
}

// registration is what is kept of a proxy. It holds no secret and no token.
type registration struct {
	Kind    string `json:"kind"`
	Mesh    string `json:"mesh,omitempty"`
	Name    string `json:"name"`
	Payload []byte `json:"payload"`
	// Document is the SHA-256 of what the proxy presented, and Version that of the software which read it.
	Document []byte `json:"document,omitempty"`
	Version  string `json:"version,omitempty"`
}

// put keeps what a proxy presents, and gives that.
func (r *registrar) put(who *admission.Proxy) []byte {
	payload, err := resource.Marshal(who.Resource)
	var value []byte
	if err == nil {
		value, err = json.Marshal(registration{Kind: who.Kind, Mesh: who.Mesh, Name: who.Name, Payload: payload, Document: who.Document[:], Version: r.version})
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
		}
		next := time.After(apart)
		r.write()
		select {
		case <-ctx.Done():
		case <-next:
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

// restored is a proxy that the disk knows.
type restored struct {
	state.Proxy
	resource *resource.Resource
	// document is what the resource was read from by this version, nil for what another read.
	document *admission.Document
}

func (r *registrar) read(from disk.Registration) (restored, error) {
	var v registration
	if err := json.Unmarshal(from.Value, &v); err != nil {
		return restored{}, fmt.Errorf("registration %s: %w", from.Key, err)
	}
	res, err := resource.Unmarshal(resource.Key{Kind: v.Kind, Mesh: v.Mesh, Name: v.Name}, v.Payload)
	if err != nil {
		return restored{}, fmt.Errorf("registration %s: %w", from.Key, err)
	}
	out := restored{Proxy: state.Proxy{ID: from.Key, Mesh: v.Mesh, Name: v.Name}, resource: res}
	switch spec := res.Spec.(type) {
	case *meshv1.Dataplane:
		out.Dataplane = spec
		if v.Version == r.version && len(v.Document) == len(admission.Document{}) {
			out.document = (*admission.Document)(v.Document)
		}
	case *meshv1.ZoneIngress:
		out.ZoneIngress = spec
	default:
		return restored{}, fmt.Errorf("registration %s: a %s is no proxy", from.Key, v.Kind)
	}
	return out, nil
}
