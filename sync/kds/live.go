package kds

import (
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Live says since when a revision is on all proxies of a zone.
type Live struct {
	Revision uint64
	Since    time.Time
}

// TimesOf are times as they travel, in microseconds. Revisions must grow; a list of none gives nil.
func TimesOf(list []Live) *kdsv1.Status_Times {
	if len(list) == 0 {
		return nil
	}
	out := &kdsv1.Status_Times{Revisions: make([]uint64, len(list)), Since: make([]int64, len(list))}
	var revision uint64
	var since int64
	for i, l := range list {
		at := l.Since.UnixMicro()
		out.Revisions[i], out.Since[i] = l.Revision-revision, at-since
		revision, since = l.Revision, at
	}
	return out
}

// LiveOf reads the times of a status, of which there may be none.
func LiveOf(s *kdsv1.Status) []Live {
	out := make([]Live, 0, len(s.GetTimes().GetRevisions())+len(s.GetLive()))
	for _, l := range s.GetLive() {
		out = append(out, Live{l.GetRevision(), l.GetSince().AsTime()})
	}
	var revision uint64
	var since int64
	for i := range min(len(s.GetTimes().GetRevisions()), len(s.GetTimes().GetSince())) {
		revision, since = revision+s.GetTimes().GetRevisions()[i], since+s.GetTimes().GetSince()[i]
		out = append(out, Live{revision, time.UnixMicro(since)})
	}
	return out
}
