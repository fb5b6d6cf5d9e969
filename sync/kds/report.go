package kds

import (
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// reports tracks what the zone offers upward: one report is on its way at a time, and what changes meanwhile coalesces.
type reports struct {
	// offer is the newest; nil until the first Offer. Never changed once here.
	offer *Set
	// acked is what global has of this stream; nil before the snapshot is acknowledged.
	acked *Set
	// stored is what global has from before, as the Welcome said it; nil when it didn't.
	stored *resource.Digest
	// flight is the offer that report sequence carries; nil when none is on its way.
	flight   *Set
	sequence uint64
}

func (r *reports) reset() { r.acked, r.flight, r.stored, r.sequence = nil, nil, nil, 0 }

// next makes the report that is due; nil when there is none.
func (r *reports) next() *kdsv1.Report {
	if r.offer == nil || r.flight != nil {
		return nil
	}
	if r.stored != nil && *r.stored == r.offer.Digest() {
		r.acked = r.offer
	}
	r.stored = nil
	upserts, deletes := Diff(r.acked, r.offer)
	if r.acked != nil && len(upserts)+len(deletes) == 0 {
		return nil
	}
	r.sequence++
	r.flight = r.offer
	return &kdsv1.Report{Sequence: r.sequence, Snapshot: r.acked == nil, Upserts: upserts, Deletes: deletes}
}

func (r *reports) ack(sequence uint64) bool {
	if r.flight == nil || sequence != r.sequence {
		return false
	}
	r.acked, r.flight = r.flight, nil
	return true
}

// Offer says what the zone offers to others. The machine takes a copy. A report is not cut into chunks, as others must not see a
// part of it: what goes beyond MaxOffer is withheld, the last by key, and an event names it.
func (z *Zone) Offer(s *Set) {
	offer, size := s.Clone(), 0
	var withheld []resource.Key
	if s.bytes > MaxOffer {
		s.each("", func(e entry) bool {
			if n := proto.Size(e.record); size+n > MaxOffer {
				withheld = append(withheld, e.key)
			} else {
				size += n
			}
			return true
		})
	}
	for _, key := range withheld {
		offer.Delete(key)
	}
	if len(withheld) > 0 {
		z.event(ZoneEvent{Withheld: withheld})
	}
	z.reports.offer = offer
	z.report()
}

func (z *Zone) report() {
	if z.state != Online {
		return
	}
	if r := z.reports.next(); r != nil {
		z.send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Report{Report: r}})
	}
}

// SetStatus sends a status, and sends it again at the next Welcome. Of several between two calls of Ready only the newest is
// sent; debouncing is the driver's. Since when a revision is live is told once in a stream.
func (z *Zone) SetStatus(s *kdsv1.Status) {
	z.status = s
	if z.state == Online {
		z.sendStatus()
	}
}

func (z *Zone) sendStatus() {
	s := z.status
	if z.told > 0 {
		list := LiveOf(s)
		known := 0
		for known < len(list) && list[known].Revision <= z.told {
			known++
		}
		s = &kdsv1.Status{
			Revision: s.GetRevision(), Proxies: s.GetProxies(), Acked: s.GetAcked(), Nacks: s.GetNacks(), Rejected: s.GetRejected(), Trust: s.GetTrust(), Times: TimesOf(list[known:]),
		}
	}
	f := &kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Status{Status: s}}
	for i, old := range z.out.Frames {
		if _, ok := old.GetFrame().(*kdsv1.ZoneFrame_Status); ok {
			z.out.Frames[i] = f
			return
		}
	}
	z.send(f)
}

// tell notes which times a status that goes out tells.
func (z *Zone) tell(s *kdsv1.Status) {
	if s.GetTimes() == nil {
		return
	}
	z.told = 0
	for _, r := range s.GetTimes().GetRevisions() {
		z.told += r
	}
}

// RequestCertificate asks for the intermediate of a mesh; csr is DER. It returns the id of the answering event, or 0 when no
// stream is up. After a disconnect no answer comes: ask again.
func (z *Zone) RequestCertificate(mesh string, csr []byte) uint64 {
	if z.state != Online {
		return 0
	}
	z.lastRequest++
	z.requests[z.lastRequest] = true
	z.send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_CertificateRequest{
		CertificateRequest: &kdsv1.CertificateRequest{Id: z.lastRequest, Mesh: mesh, Csr: csr},
	}})
	return z.lastRequest
}

// Answer sends a part of the answer to a Query event; dropped when no stream is up.
func (z *Zone) Answer(a *kdsv1.Answer) {
	if z.state == Online {
		z.send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Answer{Answer: a}})
	}
}
