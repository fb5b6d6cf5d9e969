package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A member of etcd that was stopped, or cut off, answers nothing and refuses nothing until its connection is found dead. So each
// question has a short time, and the next attempt goes to another member.
const (
	attemptTimeout = 2 * time.Second
	attempts       = 3
	attemptPause   = 100 * time.Millisecond
	attemptLeast   = 200 * time.Millisecond
	// attemptEmbedded is for an etcd that has no other member: it may only be slow.
	attemptEmbedded = 10 * time.Second
)

// attempt repeats what may be repeated until etcd answers, with an error that wraps ErrUnavailable when it doesn't. Once it is known
// to be away, it is asked only once.
func (s *Store) attempt(ctx context.Context, ask func(context.Context) error) error {
	most := attempts
	if s.away.Load() {
		most = 1
	}
	for n := 1; ; n++ {
		err := s.once(ctx, ask)
		if !transient(err) {
			s.away.Store(false)
			return err
		}
		if n == most || n > 1 && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			s.away.Store(true)
		}
		if n == most || ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		pause(ctx, attemptPause)
	}
}

func (s *Store) once(ctx context.Context, ask func(context.Context) error) error {
	limit := attemptTimeout
	if s.cfg.DataDir != "" {
		limit = attemptEmbedded
	} else if end, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(end)/3, attemptLeast)) // so that there is time for another
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return ask(ctx)
}

// pause returns after a while, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// transient tells an answer from the lack of one.
func transient(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	var answer rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &answer) {
		code = answer.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled
}

// writeError says why etcd refused a write; the outcome of one without an answer is not known.
func writeError(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("store: %w: %w; compact and defragment it, and disarm its alarm", ErrNoSpace, err)
	case transient(err):
		return fmt.Errorf("store: %w: %w", ErrUnavailable, err)
	}
	return err
}
