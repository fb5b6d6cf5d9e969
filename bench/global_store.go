package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// smallStore is the resources of the smaller of two stores, and storeApplies how many changes each is given.
	smallStore, storeApplies = 100, 1000
)

// measureGlobalStore applies changes of one resource to a store with few resources and to one with many.
func measureGlobalStore(ctx context.Context, s *scale) (rows []Row, err error) {
	var cost [2]float64
	for i, stored := range []int{smallStore, s.stored} {
		some, cpu, err := s.applyTo(ctx, stored, 2+i)
		if err != nil {
			return nil, err
		}
		rows, cost[i] = append(rows, some...), cpu
	}
	return s.judged(append(rows, row(fmt.Sprintf("processor time of an apply, %d resources to %d", s.stored, smallStore), cost[1]/cost[0], "ratio", storeApplies).atMost(1.1))), nil
}

func (s *scale) applyTo(ctx context.Context, stored, host int) (_ []Row, cpu float64, err error) {
	g, err := s.global(ctx, host)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, g.end(err != nil)) }()
	if err := g.fill(ctx, 0, stored); err != nil {
		return nil, 0, err
	}
	// What filling left to do is done, and not part of an apply.
	for i := range storeApplies / 10 {
		if _, err := g.commit(ctx, policy(i%smallStore, 1+i)); err != nil {
			return nil, 0, err
		}
	}
	if err := pause(ctx, settleTime); err != nil {
		return nil, 0, err
	}
	before, err := g.cpu()
	if err != nil {
		return nil, 0, err
	}
	l := newLatency(fmt.Sprintf("apply to committed, %d resources stored", stored))
	for i := range storeApplies {
		sent := time.Now()
		if _, err := g.commit(ctx, policy(i%smallStore, 1000+i)); err != nil {
			return nil, 0, err
		}
		l.add(time.Since(sent))
	}
	after, err := g.cpu()
	if err != nil {
		return nil, 0, err
	}
	cpu = (after - before).Seconds() * 1000 / storeApplies
	return append(l.rows(0, 0), row(fmt.Sprintf("processor time of an apply, %d resources stored", stored), cpu, "ms", storeApplies)), cpu, nil
}
