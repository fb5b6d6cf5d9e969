// Package ca owns the certificate authorities of meshes and the signing keys of tokens, which it keeps in the store: it
// makes what is missing, signs the intermediates of zones, and issues, verifies and revokes tokens.
//
// It never decides who may ask for a certificate or a token, never sends anything to zones, and gives no private key out.
// Several replicas may do all of it at once: what two of them make is decided by the store, and the loser takes what the
// winner made.
package ca

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/resource"
)

var (
	// ErrNoMesh says that there is no such mesh.
	ErrNoMesh = errors.New("mesh not found")
	// ErrNoMTLS says that a mesh has no certificate authority in use.
	ErrNoMTLS = errors.New("mesh has no mutual TLS")
	// ErrBackend says that a mesh's certificate authority can't be used as it is configured.
	ErrBackend = errors.New("certificate authority can't be used")
	// ErrNoKey says that no key signs tokens of a purpose yet.
	ErrNoKey = errors.New("no signing key")
)

const (
	author = "zoneforge"
	// retryAfter is how long Run waits before it tries failed meshes again when nothing changes.
	retryAfter = 30 * time.Second
)

// Config says what the authorities work with.
type Config struct {
	// Store must be running (store.Run) whenever methods of Authorities are called, which read what they wrote.
	Store *store.Store
	// Domain of the federation, the end of every trust domain.
	Domain string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Random makes seeds and serial numbers; crypto/rand when nil. Safe for concurrent use.
	Random io.Reader
	// Logger may be nil.
	Logger *zap.Logger
}

// Authorities are the certificate authorities and signing keys of a federation. All methods are safe for concurrent use.
type Authorities struct {
	store  *store.Store
	domain string
	now    func() time.Time
	random io.Reader
	log    *zap.Logger
}

// New checks the configuration; it starts nothing.
func New(cfg Config) (*Authorities, error) {
	if cfg.Store == nil {
		return nil, errors.New("ca: a store is needed")
	}
	if _, err := pki.NewTrustDomain("zone", "mesh", cfg.Domain); err != nil {
		return nil, fmt.Errorf("ca: domain %q of the federation: %w", cfg.Domain, err)
	}
	a := &Authorities{store: cfg.Store, domain: cfg.Domain, now: cfg.Now, random: cfg.Random, log: cfg.Logger}
	if a.now == nil {
		a.now = time.Now
	}
	if a.random == nil {
		a.random = rand.Reader
	}
	if a.log == nil {
		a.log = zap.NewNop()
	}
	return a, nil
}

// converge commits what plan finds missing in a snapshot, until nothing is. A conflict means that the snapshot was old,
// so the next one shows what another replica did.
func (a *Authorities) converge(ctx context.Context, message string, plan func(*store.Snapshot) ([]store.Op, error)) error {
	for {
		snap := a.store.Snapshot()
		ops, err := plan(snap)
		if err != nil || len(ops) == 0 {
			return err
		}
		done, err := a.store.Commit(ctx, store.Change{Author: author, Message: message, Time: a.now(), Ops: ops, Internal: true})
		switch {
		case err == nil:
			_, err = a.store.Wait(ctx, done.Revision)
			return err
		case !errors.Is(err, store.ErrConflict):
			return err
		}
		select {
		case <-snap.Stale():
		case <-ctx.Done():
			return fmt.Errorf("%w, and no newer state came: %w", err, ctx.Err())
		}
	}
}

// put writes a resource only where the snapshot is still right about it.
func put(snap *store.Snapshot, r *resource.Resource) store.Op {
	var at int64
	if e, ok := snap.Get(r.Key); ok {
		at = e.Revision
	}
	return store.Op{Key: r.Key, Put: r, IfRevision: &at}
}
