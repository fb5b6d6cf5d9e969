package store

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Claim is the right to write in some name until another claims it, so that a writer that was paused, or cut off, can't write over
// what came after it. The zero Claim guards nothing.
type Claim struct{ key, id string }

// Claim takes a name over, and returns once the state here has all that the former holders wrote. An embedded store, which has no
// other process, gives the zero Claim.
func (s *Store) Claim(ctx context.Context, name string) (Claim, error) {
	if s.cfg.DataDir != "" {
		return Claim{}, nil
	}
	id, err := random()
	if err != nil {
		return Claim{}, err
	}
	c := Claim{s.prefix + "claim/" + name, id}
	if err := s.attempt(ctx, func(ctx context.Context) error {
		_, err := s.cli.Put(ctx, c.key, c.id)
		return err
	}); err != nil {
		return Claim{}, fmt.Errorf("store: claim %s: %w", name, writeError(err))
	}
	if _, err := s.Confirm(ctx); err != nil {
		return Claim{}, err
	}
	return c, nil
}

// Release gives a claim up, where it still holds.
func (s *Store) Release(ctx context.Context, c Claim) error {
	_, err := s.cli.Txn(ctx).If(c.holds()).Then(clientv3.OpDelete(c.key)).Commit()
	if err != nil {
		return fmt.Errorf("store: release a claim: %w", err)
	}
	return nil
}

func (c Claim) holds() clientv3.Cmp { return clientv3.Compare(clientv3.Value(c.key), "=", c.id) }

// held reads the answer to a commit that failed, which has the claims in order.
func held(claims []Claim, res *clientv3.TxnResponse) bool {
	for i, c := range claims {
		kvs := res.Responses[i].GetResponseRange().GetKvs()
		if len(kvs) != 1 || string(kvs[0].Value) != c.id {
			return false
		}
	}
	return true
}
