package global

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/peers"
	"github.com/zoneforge/zoneforge/global/rest"
	"github.com/zoneforge/zoneforge/global/store"
)

const (
	// keyFileEvery is how often the key file is looked at, and keyFileRest after how long again one that can't be used: whether a key is
	// needed that it lacks takes reading the whole store.
	keyFileEvery = 5 * time.Second
	keyFileRest  = time.Minute
	// keyUsesTimeout bounds the reading of all that is sealed.
	keyUsesTimeout = 25 * time.Second
	// resealStint is how long secrets are sealed anew at a time; whoever asked for it asks again.
	resealStint = 20 * time.Second
)

// sealing owns the key-encryption keys while the replica runs: what the key file holds, what needs which key, and the change from
// one to another.
type sealing struct {
	key    *store.KeyFile
	store  *store.Store
	others *peers.Peers // nil when it knows of none
	// embedded says that nobody else can have the store.
	embedded bool
	replica  string
	log      *zap.Logger
}

// follow looks at the key file until ctx ends. What can't be used, and the loss of a key that something needs, is told once.
func (s *sealing) follow(ctx context.Context) error {
	tick := time.NewTicker(keyFileEvery)
	defer tick.Stop()
	failing, rest := "", time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if now.Before(rest) {
				continue
			}
		}
		before := s.key.IDs()
		err := s.key.Reload(func(gone []string) error { return s.unneeded(ctx, gone) })
		if rest = (time.Time{}); err != nil {
			rest = time.Now().Add(keyFileRest)
		}
		switch now := s.key.IDs(); {
		case ctx.Err() != nil:
		case err == nil:
			if failing = ""; !slices.Equal(now, before) {
				s.log.Info("key file holds other keys", zap.Strings("keys", now))
			}
		case failing != err.Error():
			failing = err.Error()
			s.log.Error("key file is not used as it is now", zap.Error(err))
		}
	}
}

// unneeded is an error that wraps store.ErrKeyNeeded where something is sealed with one of the keys, or is going to be by another replica.
func (s *sealing) unneeded(ctx context.Context, keys []string) error {
	ctx, cancel := context.WithTimeout(ctx, keyUsesTimeout)
	defer cancel()
	uses, err := s.store.KeyUses(ctx)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if slices.Contains(keys, u.Key) {
			return fmt.Errorf("%w: key %s seals %d resources and contents of %d changes; `zoneforge kek reseal` seals them anew", store.ErrKeyNeeded, u.Key, u.Resources, u.Changes)
		}
	}
	for _, r := range s.replicas() {
		if len(r.Keys) > 0 && slices.Contains(keys, r.Keys[0]) && !r.Self {
			return fmt.Errorf("%w: replica %s seals with key %s", store.ErrKeyNeeded, r.Name, r.Keys[0])
		}
	}
	return nil
}

// replicas are those that are alive.
func (s *sealing) replicas() []peers.Replica {
	if s.others != nil {
		return s.others.Replicas()
	}
	return []peers.Replica{{Name: s.replica, Self: true, Keys: s.key.IDs()}}
}

// Sealing is rest.Sealing's.
func (s *sealing) Sealing(ctx context.Context) (rest.Sealed, error) {
	ctx, cancel := context.WithTimeout(ctx, keyUsesTimeout)
	defer cancel()
	uses, err := s.store.KeyUses(ctx)
	if err != nil {
		return rest.Sealed{}, err
	}
	out := rest.Sealed{Keys: s.key.IDs(), Uses: uses, Alone: s.embedded, Replicas: map[string][]string{}}
	for _, r := range s.replicas() {
		out.Replicas[r.Name] = append([]string{}, r.Keys...)
	}
	return out, nil
}

// AddKey is rest.Sealing's. Where there may be other replicas, the key must be in their files before anything is sealed with it.
func (s *sealing) AddKey() (id string, err error) {
	id, err = s.key.AddKey(s.embedded)
	if err == nil {
		s.log.Info("key made in the key file", zap.Strings("keys", s.key.IDs()))
	}
	return id, err
}

// Reseal is rest.Sealing's.
func (s *sealing) Reseal(ctx context.Context) (n int, more bool, err error) {
	if err := s.key.Reload(func(gone []string) error { return s.unneeded(ctx, gone) }); err != nil {
		return 0, false, err
	}
	first := s.key.IDs()[0]
	var differ []string
	for _, r := range s.replicas() {
		if !r.Self && (len(r.Keys) == 0 || r.Keys[0] != first) {
			differ = append(differ, r.Name)
		}
	}
	if len(differ) > 0 {
		return 0, false, fmt.Errorf("%w: key %s is not the first one of replicas %s", rest.ErrReplicasDiffer, first, strings.Join(differ, ", "))
	}
	stint, cancel := context.WithTimeout(ctx, resealStint)
	defer cancel()
	n, err = s.store.Reseal(stint)
	if err != nil && ctx.Err() == nil && errors.Is(stint.Err(), context.DeadlineExceeded) {
		return n, true, nil
	}
	if n > 0 {
		s.log.Info("secrets sealed anew", zap.Int("number", n), zap.String("key", first))
	}
	return n, false, err
}

// DropKey is rest.Sealing's.
func (s *sealing) DropKey(ctx context.Context, id string) error {
	if err := s.unneeded(ctx, []string{id}); err != nil {
		return err
	}
	err := s.key.DropKey(id)
	if err == nil {
		s.log.Info("key taken out of the key file", zap.Strings("keys", s.key.IDs()))
	}
	return err
}
