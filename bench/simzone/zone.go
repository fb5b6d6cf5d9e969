package simzone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// The product's waits between streams.
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// maxLive is of how many of the newest revisions a zone tells since when they are live.
const maxLive = 100

// taken says when a zone acknowledged a revision.
type taken struct {
	revision uint64
	at       time.Time
}

// Zone is one simulated zone.
type Zone struct {
	Name  string
	fleet *Fleet
	token string
	wire  wire
	taken atomic.Pointer[taken]

	streams, reports, snapshots, deltas, records, bytes, beatsDown, beatsUp atomic.Int64

	// mu guards what follows, and sending.
	mu       sync.Mutex
	stream   kdsv1.KDS_StreamClient // nil unless welcomed
	state    *state
	epoch    string
	revision uint64
	live     []kds.Live // not told yet on this stream
	told     []kds.Live
	due      *time.Timer // of the next status
	offer    *kds.Set
}

func newZone(f *Fleet, name, token string) *Zone {
	z := &Zone{Name: name, fleet: f, token: token, state: f.states.empty, offer: kds.NewSet()}
	z.due = time.AfterFunc(time.Hour, z.sendStatus)
	z.due.Stop()
	z.fill(f.cfg.Services)
	return z
}

// fill makes what the zone offers: an ingress, and some services of the mesh.
func (z *Zone) fill(services int) {
	put := func(key resource.Key, r *resource.Resource) {
		payload, err := resource.Marshal(r)
		if err == nil {
			err = z.offer.Put(kds.NewRecord(key, payload))
		}
		if err != nil {
			z.fleet.fail(fmt.Errorf("offer of %s: %w", z.Name, err))
		}
	}
	key := resource.Key{Kind: "ZoneIngress", Name: z.Name + ".ingress"}
	put(key, &resource.Resource{Key: key, Spec: &meshv1.ZoneIngress{
		Zone:       z.Name,
		Networking: &meshv1.ZoneIngress_Networking{Address: "192.0.2.1", Port: 10001, AdvertisedAddress: "192.0.2.1", AdvertisedPort: 10001},
	}})
	for i := range services {
		service := fmt.Sprintf("service-%d", i)
		key := resource.Key{Kind: "ServiceAvailability", Mesh: z.fleet.cfg.Mesh, Name: z.Name + "." + service}
		put(key, &resource.Resource{Key: key, Spec: &federationv1.ServiceAvailability{
			Zone: z.Name, Service: service, TagSets: []*federationv1.TagSet{{
				Tags: map[string]string{resource.TagService: service, resource.TagZone: z.Name, "kuma.io/protocol": "http"}, Count: 10,
			}},
		}})
	}
}

// Traffic is what the zone sent and was given since it began.
func (z *Zone) Traffic() Traffic {
	return Traffic{
		Down: z.wire.down.Load(), Up: z.wire.up.Load(), TLSDown: z.wire.tlsDown.Load(), TLSUp: z.wire.tlsUp.Load(),
		BeatsDown: z.beatsDown.Load(), BeatsUp: z.beatsUp.Load(),
		Streams: z.streams.Load(), Reports: z.reports.Load(), Snapshots: z.snapshots.Load(), Deltas: z.deltas.Load(),
		Records: z.records.Load(), Bytes: z.bytes.Load(),
	}
}

// refused is an end of a stream that global explained.
type refused struct{ *kdsv1.Refusal }

func (r refused) Error() string { return fmt.Sprintf("%s: %s", r.GetCode(), r.GetReason()) }

// run keeps a stream until ctx ends.
func (z *Zone) run(ctx context.Context) {
	defer z.due.Stop()
	backoff := z.fleet.cfg.MinBackoff
	for ctx.Err() == nil {
		welcomed, err := z.serve(ctx)
		if welcomed {
			backoff = z.fleet.cfg.MinBackoff
		}
		wait := backoff/2 + rand.N(backoff/2+1)
		backoff = min(2*backoff, z.fleet.cfg.MaxBackoff)
		if r := (refused{}); errors.As(err, &r) {
			wait = max(wait, time.Duration(r.GetRetryAfterMillis())*time.Millisecond)
			if r.GetCode() != kdsv1.Refusal_CODE_UNAVAILABLE {
				z.fleet.fail(fmt.Errorf("zone %s was refused: %w", z.Name, err))
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// serve is one stream, over a connection of its own.
func (z *Zone) serve(ctx context.Context) (welcomed bool, err error) {
	opts := append(z.wire.options(credentials.NewTLS(z.fleet.tls)), stream.DialOptions()...)
	conn, err := grpc.NewClient("passthrough:///"+z.fleet.cfg.Target, opts...)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(10*time.Second, cancel)
	s, err := kdsv1.NewKDSClient(conn).Stream(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+z.token))
	if err != nil {
		return false, err
	}
	z.streams.Add(1)
	z.mu.Lock()
	hello := &kdsv1.Hello{
		Zone: z.Name, Replica: z.Name + "-0", Identity: "simulated-" + z.Name, Version: "simulated", Protocols: []uint32{kds.Protocol},
	}
	if z.epoch != "" {
		hello.Position = z.positionLocked()
	}
	z.mu.Unlock()
	if err := s.Send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Hello{Hello: hello}}); err != nil {
		_, err = s.Recv()
		return false, err
	}
	f, err := s.Recv()
	late.Stop()
	if err != nil {
		return false, err
	}
	if r := f.GetRefusal(); r != nil {
		return false, refused{r}
	}
	w := f.GetWelcome()
	if w == nil {
		return false, errors.New("the first frame is no Welcome")
	}
	defer z.leave()
	z.enter(s, w)
	beat := time.Duration(w.GetHeartbeatMillis()) * time.Millisecond
	var heart *time.Timer
	heart = time.AfterFunc(beat, func() {
		z.heartbeat()
		heart.Reset(beat)
	})
	defer heart.Stop()
	var partial *kdsv1.Chunk
	for {
		frame, err := s.Recv()
		if err != nil {
			return true, err
		}
		switch f := frame.GetFrame().(type) {
		case *kdsv1.GlobalFrame_Refusal:
			return true, refused{f.Refusal}
		case *kdsv1.GlobalFrame_Chunk:
			c := f.Chunk
			if partial != nil {
				partial.Upserts = append(partial.Upserts, c.GetUpserts()...)
				partial.Deletes = append(partial.Deletes, c.GetDeletes()...)
				partial.Last, partial.Position = c.Last, c.Position
				c = partial
			}
			if partial = c; !c.GetLast() {
				continue
			}
			partial = nil
			if err := z.apply(c); err != nil {
				z.fleet.fail(fmt.Errorf("zone %s, revision %d: %w", z.Name, c.GetPosition().GetRevision(), err))
				return true, err
			}
		case *kdsv1.GlobalFrame_Heartbeat:
			z.beatsDown.Add(onWire(frame))
			z.compare(f.Heartbeat.GetPosition())
		case *kdsv1.GlobalFrame_InventoryRequest:
			z.inventory(f.InventoryRequest)
		}
	}
}

func (z *Zone) positionLocked() *kdsv1.Position {
	return z.state.set.Position(z.epoch, z.revision).Proto()
}

// sendLocked sends when the zone is welcomed; what fails is found by the stream's end.
func (z *Zone) sendLocked(f *kdsv1.ZoneFrame) {
	if z.stream != nil {
		_ = z.stream.Send(f)
	}
}

func (z *Zone) enter(s kdsv1.KDS_StreamClient, w *kdsv1.Welcome) {
	z.mu.Lock()
	z.stream = s
	z.statusLocked()
	if d := z.offer.Digest(); d.Count() != w.GetOffered().GetCount() || !bytes.Equal(d.Sum(), w.GetOffered().GetSum()) {
		report := &kdsv1.Report{Sequence: 1, Snapshot: true}
		z.offer.Each("", func(_ resource.Key, r *kdsv1.Record) bool {
			report.Upserts = append(report.Upserts, r)
			return true
		})
		z.reports.Add(1)
		z.sendLocked(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Report{Report: report}})
	}
	at := &taken{z.revision, time.Now()}
	z.mu.Unlock()
	z.fleet.took(z, at)
	z.fleet.count(1)
}

func (z *Zone) leave() {
	z.mu.Lock()
	z.stream = nil
	z.live, z.told = append(z.told, z.live...), nil // the next stream is told all
	z.live = z.live[max(0, len(z.live)-maxLive):]
	z.mu.Unlock()
	z.fleet.count(-1)
}

// apply takes a whole delta and acknowledges it.
func (z *Zone) apply(c *kdsv1.Chunk) error {
	p := c.GetPosition()
	z.mu.Lock()
	if p.GetEpoch() == z.epoch && p.GetRevision() < z.revision {
		defer z.mu.Unlock()
		return fmt.Errorf("it goes back from revision %d", z.revision)
	}
	next, err := z.fleet.states.apply(z.state, c.GetSnapshot(), c.GetUpserts(), c.GetDeletes())
	if err == nil {
		err = next.is(p.GetDigest())
	}
	if err != nil {
		z.mu.Unlock()
		return err
	}
	z.state, z.epoch, z.revision = next, p.GetEpoch(), p.GetRevision()
	z.sendLocked(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Ack{Ack: &kdsv1.Ack{Nonce: c.GetNonce(), Revision: z.revision}}})
	at := &taken{z.revision, time.Now()}
	z.live = append(z.live, kds.Live{Revision: z.revision, Since: at.at})
	z.due.Reset(z.fleet.cfg.StatusHold)
	z.mu.Unlock()
	if c.GetSnapshot() {
		z.snapshots.Add(1)
	}
	z.deltas.Add(1)
	z.records.Add(int64(len(c.GetUpserts())))
	for _, r := range c.GetUpserts() {
		k := r.GetKey()
		z.bytes.Add(int64(len(k.GetKind()) + len(k.GetMesh()) + len(k.GetName()) + len(r.GetPayload())))
	}
	z.fleet.took(z, at)
	return nil
}

func (z *Zone) sendStatus() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.statusLocked()
}

func (z *Zone) statusLocked() {
	n := uint32(z.fleet.proxies.Load())
	z.sendLocked(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Status{Status: &kdsv1.Status{Revision: z.revision, Proxies: n, Acked: n, Times: kds.TimesOf(z.live)}}})
	if z.stream != nil {
		z.told, z.live = append(z.told, z.live...), nil
		z.told = slices.Delete(z.told, 0, max(0, len(z.told)-maxLive))
	}
}

func (z *Zone) heartbeat() {
	z.mu.Lock()
	defer z.mu.Unlock()
	f := &kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Heartbeat{Heartbeat: &kdsv1.ZoneHeartbeat{
		Position: z.positionLocked(), Sent: timestamppb.Now(),
	}}}
	z.beatsUp.Add(onWire(f))
	z.sendLocked(f)
}

// onWire is the bytes of a message with the headers that gRPC and HTTP/2 put before it.
func onWire(m proto.Message) int64 { return int64(proto.Size(m)) + 5 + 9 }

// compare holds what the zone has against what it should have.
func (z *Zone) compare(p *kdsv1.Position) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if p == nil || p.GetEpoch() != z.epoch || p.GetRevision() != z.revision {
		return
	}
	if err := z.state.is(p.GetDigest()); err != nil {
		z.fleet.fail(fmt.Errorf("zone %s, heartbeat of revision %d: %w", z.Name, z.revision, err))
	}
}

func (z *Zone) inventory(q *kdsv1.InventoryRequest) {
	z.mu.Lock()
	defer z.mu.Unlock()
	kinds := z.state.differing(q.GetKinds())
	z.sendLocked(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Inventory{Inventory: &kdsv1.Inventory{
		Nonce: q.GetNonce(), Kinds: kinds, Entries: z.state.inventory(kinds),
	}}})
}
