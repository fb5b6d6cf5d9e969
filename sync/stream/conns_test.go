package stream

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// welcome waits until the client is welcomed.
func (f *fixture) welcome(t *testing.T) {
	t.Helper()
	for e := range f.events {
		if e.Welcome != nil {
			return
		}
	}
}

func (f *fixture) do(t *testing.T, fn func(*kds.Zone)) {
	t.Helper()
	if err := f.client.Do(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// query waits at the zone for a question that is not about the mesh late.
func (f *fixture) query() *kdsv1.Query {
	for e := range f.events {
		if e.Query != nil && e.Query.GetListDataplanes().GetMesh() != late {
			return e.Query
		}
	}
	return nil
}

// late is the mesh of a question of which nobody knows whether it went out before its time was over.
const late = "late"

type answered struct {
	body []byte
	err  error
}

func (f *fixture) ask(ctx context.Context, q *kdsv1.Query) <-chan answered {
	out := make(chan answered, 1)
	go func() {
		body, err := f.server.Ask(ctx, "east", q)
		out <- answered{body, err}
	}()
	return out
}

func TestAnswerInParts(t *testing.T) {
	f := start(t, "good")
	f.welcome(t)
	asked := &kdsv1.Query{Query: &kdsv1.Query_ListDataplanes_{ListDataplanes: &kdsv1.Query_ListDataplanes{Mesh: "m"}}}
	before := proto.CloneOf(asked)
	got := f.ask(t.Context(), asked)
	q := f.query()
	if q.GetListDataplanes().GetMesh() != "m" || q.GetMaxBytes() != DefaultAnswer || q.GetTimeoutMillis() == 0 {
		t.Fatalf("query %v", q)
	}
	f.do(t, func(z *kds.Zone) {
		z.Answer(&kdsv1.Answer{Id: q.GetId() + 7, Body: []byte("of nobody"), Last: true})
		z.Answer(&kdsv1.Answer{Id: q.GetId(), Body: []byte(`{"a":`)})
		z.Answer(&kdsv1.Answer{Id: q.GetId(), Body: []byte(`1}`), Last: true})
		z.Answer(&kdsv1.Answer{Id: q.GetId(), Body: []byte("late"), Last: true})
	})
	if a := <-got; a.err != nil || string(a.body) != `{"a":1}` {
		t.Fatalf("answer %q, %v", a.body, a.err)
	}
	if !proto.Equal(asked, before) {
		t.Fatalf("the caller's query became %v", asked)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	f := start(t, "good")
	f.welcome(t)
	got := f.ask(t.Context(), &kdsv1.Query{MaxBytes: 10})
	q := f.query()
	f.do(t, func(z *kds.Zone) { z.Answer(&kdsv1.Answer{Id: q.GetId(), Body: bytes.Repeat([]byte("x"), 11)}) })
	if a := <-got; !errors.Is(a.err, ErrTooLarge) {
		t.Fatalf("an answer that is too large gave %v", a.err)
	}

	got = f.ask(t.Context(), &kdsv1.Query{})
	q = f.query()
	f.do(t, func(z *kds.Zone) { z.Answer(&kdsv1.Answer{Id: q.GetId(), Error: "no such proxy"}) })
	if a := <-got; !errors.Is(a.err, ErrAnswer) || !strings.Contains(a.err.Error(), "no such proxy") {
		t.Fatalf("an answer with an error gave %v", a.err)
	}

	got = f.ask(t.Context(), &kdsv1.Query{TimeoutMillis: 1, Query: &kdsv1.Query_ListDataplanes_{ListDataplanes: &kdsv1.Query_ListDataplanes{Mesh: late}}})
	if a := <-got; !errors.Is(a.err, context.DeadlineExceeded) {
		t.Fatalf("no answer gave %v", a.err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var waiting []<-chan answered
	for range maxQuestions {
		waiting = append(waiting, f.ask(ctx, &kdsv1.Query{}))
		f.query()
	}
	if a := <-f.ask(t.Context(), &kdsv1.Query{}); !errors.Is(a.err, ErrBusy) {
		t.Fatalf("one question too many gave %v", a.err)
	}
	cancel()
	for _, w := range waiting {
		if a := <-w; !errors.Is(a.err, context.Canceled) {
			t.Fatalf("a canceled question gave %v", a.err)
		}
	}
	// What was given up makes room again.
	got = f.ask(t.Context(), &kdsv1.Query{})
	q = f.query()
	f.do(t, func(z *kds.Zone) { z.Answer(&kdsv1.Answer{Id: q.GetId(), Last: true}) })
	if a := <-got; a.err != nil {
		t.Fatalf("after the others gave up: %v", a.err)
	}
}

func TestAskWithoutStream(t *testing.T) {
	f := start(t, "good")
	if _, err := f.server.Ask(t.Context(), "west", &kdsv1.Query{}); !errors.Is(err, ErrNotConnected) {
		t.Fatalf("a zone that never came gave %v", err)
	}
	f.welcome(t)
	got := f.ask(t.Context(), &kdsv1.Query{})
	f.query()
	f.cut()
	if a := <-got; !errors.Is(a.err, ErrNotConnected) {
		t.Fatalf("a stream that ended gave %v", a.err)
	}
	if r := <-f.closed; r != "0" {
		t.Fatalf("session of replica %q was closed", r)
	}
}

func TestReportAndStatusOverTheWire(t *testing.T) {
	f := start(t, "good")
	f.welcome(t)
	offer := kds.NewSet()
	for _, name := range []string{"east.a", "west.x"} {
		if err := offer.Put(kds.NewRecord(resource.Key{Kind: "ZoneIngress", Name: name}, []byte(name))); err != nil {
			t.Fatal(err)
		}
	}
	f.do(t, func(z *kds.Zone) { z.Offer(offer); z.SetStatus(&kdsv1.Status{Revision: 1, Proxies: 2, Acked: 1}) })
	if r := <-f.reports; !r.GetSnapshot() || len(r.GetUpserts()) != 2 {
		t.Fatalf("report %v", r)
	}
	if s := <-f.statuses; s.GetProxies() != 2 || s.GetAcked() != 1 {
		t.Fatalf("status %v", s)
	}
	for e := range f.events {
		if a := e.ReportAck; a != nil {
			if len(a.GetRejected()) != 1 || a.GetRejected()[0].GetReason() != "not yours" {
				t.Fatalf("acknowledged with %v", a)
			}
			break
		}
	}
	// A change of the offer travels as a difference, and the status comes again with the next stream.
	offer.Delete(resource.Key{Kind: "ZoneIngress", Name: "east.a"})
	f.do(t, func(z *kds.Zone) { z.Offer(offer) })
	if r := <-f.reports; r.GetSnapshot() || len(r.GetUpserts()) != 0 || len(r.GetDeletes()) != 1 {
		t.Fatalf("second report %v", r)
	}
	f.cut()
	if s := <-f.statuses; s.GetProxies() != 2 {
		t.Fatalf("status after reconnecting %v", s)
	}
	if r := <-f.reports; !r.GetSnapshot() || len(r.GetUpserts()) != 1 {
		t.Fatalf("report after reconnecting %v", r)
	}
}

func TestRejectionNackAndRecovery(t *testing.T) {
	f := start(t, "good")
	f.welcome(t)
	if r := <-f.rejected; len(r) != 0 {
		t.Fatalf("rejected at first: %v", r)
	}
	f.set(newView(2, "a", "bad"))
	if r := <-f.rejected; len(r) != 1 || r[0].GetKey().GetName() != "bad" || r[0].GetReason() != "can't use it" {
		t.Fatalf("rejected %v", r)
	}
	f.set(newView(3, "a", "huge"))
	if n := <-f.nacks; n.Revision != 3 || n.Reason != errDisk.Error() || n.Retry.IsZero() {
		t.Fatalf("nack %+v", n)
	}
	f.set(newView(4, "a", "b"))
	if r := <-f.rejected; len(r) != 0 {
		t.Fatalf("still rejected after the record went: %v", r)
	}
	for p := range f.confirmed {
		if p.Revision == 4 {
			return
		}
	}
}

// hiding is a view whose log has lost an event.
type hiding struct {
	view
	changed []resource.Key
}

func (h hiding) Since(string, uint64) ([]resource.Key, bool) { return h.changed, true }

func TestLostEventIsRepaired(t *testing.T) {
	f := start(t, "good")
	f.welcome(t)
	<-f.applies
	<-f.confirmed
	v := newView(2, "a", "b", "c")
	f.setAny(hiding{v, []resource.Key{{Kind: "Mesh", Name: "b"}}})
	if a := <-f.applies; len(a.Upserts) != 1 {
		t.Fatalf("delta of the log %+v", a)
	}
	if kinds := <-f.repairs; len(kinds) != 1 || kinds[0] != "Mesh" {
		t.Fatalf("repaired %v", kinds)
	}
	if a := <-f.applies; len(a.Upserts) != 1 || a.Upserts[0].GetKey().GetName() != "c" {
		t.Fatalf("repair %+v", a)
	}
}

func TestRefuseAndComeBack(t *testing.T) {
	f := start(t, "good")
	f.welcome(t)
	const wait = 40 * time.Millisecond
	f.mu.Lock()
	f.verdict = kds.Verdict{Code: kdsv1.Refusal_CODE_DISABLED, Reason: "disabled", RetryAfter: wait}
	f.mu.Unlock()
	f.server.Refuse("east", f.verdict)
	var first time.Time
	for n := 0; n < 2; {
		e := <-f.events
		if e.Refusal == nil {
			continue
		}
		if e.Refusal.GetCode() != kdsv1.Refusal_CODE_DISABLED || e.Refusal.GetRetryAfterMillis() != uint32(wait.Milliseconds()) {
			t.Fatalf("refusal %v", e.Refusal)
		}
		if n++; n == 1 {
			first = e.at
		} else if d := e.at.Sub(first); d < wait/2 {
			t.Fatalf("came back after %s, asked for was %s", d, wait)
		}
	}
	f.mu.Lock()
	f.verdict = kds.Verdict{}
	f.mu.Unlock()
	f.welcome(t)
}

func TestShutdownRefusesWithUnavailable(t *testing.T) {
	f := start(t, "good")
	f.welcome(t)
	if err := f.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := f.server.Replicas("east"); len(r) != 0 {
		t.Fatalf("still connected: %v", r)
	}
	// New streams, too, are refused.
	for n := 0; n < 2; {
		e := <-f.events
		if e.Welcome != nil {
			t.Fatal("welcomed during shutdown")
		}
		if e.Refusal != nil {
			if n++; e.Refusal.GetCode() != kdsv1.Refusal_CODE_UNAVAILABLE {
				t.Fatalf("refusal %v", e.Refusal)
			}
		}
	}
}
