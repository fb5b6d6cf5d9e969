package store

import (
	"context"
	"slices"
	"sync"
	"syscall"
)

// Health is how etcd is.
type Health struct {
	Members []Member `json:"members"`
	// Alarms stand until an operator disarms them; with NOSPACE nothing can be written.
	Alarms []string `json:"alarms,omitempty"`
	// DiskFree is what is left for the embedded etcd, in bytes; 0 for a cluster.
	DiskFree uint64 `json:"diskFree,omitempty"`
}

// Member is one etcd; sizes are in bytes.
type Member struct {
	// Endpoint is empty for the embedded one.
	Endpoint  string `json:"endpoint,omitempty"`
	Version   string `json:"version,omitempty"`
	Size      int64  `json:"size,omitempty"`
	SizeInUse int64  `json:"sizeInUse,omitempty"`
	// Quota is the size above which nothing can be written.
	Quota  int64 `json:"quota,omitempty"`
	Leader bool  `json:"leader,omitempty"`
	// Error is why it doesn't answer; empty when it does.
	Error string `json:"error,omitempty"`
}

// Health asks each member, until ctx ends.
func (s *Store) Health(ctx context.Context) Health {
	endpoints := s.cfg.Endpoints
	if len(endpoints) == 0 {
		endpoints = []string{""}
	}
	out := Health{Members: make([]Member, len(endpoints))}
	alarms := make([][]string, len(endpoints))
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() {
			m := Member{Endpoint: e}
			res, err := s.cli.Status(ctx, e)
			if err != nil {
				m.Error = err.Error()
			} else {
				m.Version, m.Size, m.SizeInUse, m.Quota = res.Version, res.DbSize, res.DbSizeInUse, res.DbSizeQuota
				m.Leader = res.Header.GetMemberId() == res.Leader
				alarms[i] = res.Errors
			}
			out.Members[i] = m
		})
	}
	wg.Wait()
	out.Alarms = slices.Compact(slices.Sorted(slices.Values(slices.Concat(alarms...))))
	if s.cfg.DataDir != "" {
		var disk syscall.Statfs_t
		if syscall.Statfs(s.cfg.DataDir, &disk) == nil {
			out.DiskFree = uint64(disk.Bavail) * uint64(disk.Bsize)
		}
	}
	return out
}
