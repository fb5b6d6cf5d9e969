package global

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/global/zones"
	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// fakeZone is a zone's end of KDS: it takes what it is given, and is one proxy that acknowledges when a test lets it.
type fakeZone struct {
	t       *testing.T
	client  *stream.Client
	applied chan *kds.Apply
	events  chan kds.ZoneEvent
}

// Apply is stream.Applier's.
func (z *fakeZone) Apply(ctx context.Context, a *kds.Apply) ([]*kdsv1.Rejection, error) {
	select {
	case z.applied <- a:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// connect starts a zone with a token; it ends with the test.
func (r *running) connect(zone, token string) *fakeZone {
	r.Helper()
	return r.connectWithRoom(64, zone, token)
}

// connectWithRoom starts one that takes so many deltas without being asked for them, and acknowledges no other.
func (r *running) connectWithRoom(deltas int, zone, token string) *fakeZone {
	r.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.file(filepath.Join("tls", "server-ca.crt")))
	z := &fakeZone{t: r.T, applied: make(chan *kds.Apply, deltas), events: make(chan kds.ZoneEvent, 64)}
	ctx, cancel := context.WithCancel(context.Background())
	machine := kds.NewZone(kds.ZoneConfig{Zone: zone, Replica: zone + "-1", Identity: "id-" + zone, Version: "1"}, kds.NewSet(), kds.Position{})
	var err error
	z.client, err = stream.NewClient(stream.ClientConfig{
		Targets: []string{r.Addresses().KDS}, TLS: &tls.Config{RootCAs: roots}, Token: func() (string, error) { return token, nil },
		Applier: z, MinBackoff: 10 * time.Millisecond,
		Event: func(e kds.ZoneEvent) {
			select {
			case z.events <- e:
			case <-ctx.Done():
			}
		},
	}, machine)
	if err != nil {
		cancel()
		r.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- z.client.Run(ctx) }()
	r.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.Error(err)
		}
	})
	return z
}

// event waits for one that pick takes.
func (z *fakeZone) event(what string, pick func(kds.ZoneEvent) bool) kds.ZoneEvent {
	z.t.Helper()
	end := time.After(patience)
	for {
		select {
		case e := <-z.events:
			if pick(e) {
				return e
			}
		case <-end:
			z.t.Fatalf("no %s came", what)
		}
	}
}

// refused waits for a refusal and gives its reason.
func (z *fakeZone) refused(code kdsv1.Refusal_Code) string {
	z.t.Helper()
	e := z.event("refusal", func(e kds.ZoneEvent) bool { return e.Refusal != nil })
	if e.Refusal.GetCode() != code {
		z.t.Errorf("refused by %s, want %s: %s", e.Refusal.GetCode(), code, e.Refusal.GetReason())
	}
	return e.Refusal.GetReason()
}

// take waits for the delta that brings a key.
func (z *fakeZone) take(key resource.Key) *kds.Apply {
	z.t.Helper()
	end := time.After(patience)
	for {
		select {
		case a := <-z.applied:
			for _, u := range a.Upserts {
				if k, err := kds.KeyFrom(u.GetKey()); err == nil && k == key {
					return a
				}
			}
		case <-end:
			z.t.Fatalf("%s did not come", key)
		}
	}
}

func (z *fakeZone) status(s *kdsv1.Status) {
	z.t.Helper()
	if err := z.client.Do(z.t.Context(), func(m *kds.Zone) { m.SetStatus(s) }); err != nil {
		z.t.Error(err)
	}
}

func TestZones(t *testing.T) {
	r := start(t, config(t.TempDir()))
	admin := r.admin()
	token := r.token(admin, "zone", `{"zone":"east"}`)
	z := r.connect("east", token)
	welcome := z.event("welcome", func(e kds.ZoneEvent) bool { return e.Welcome != nil }).Welcome
	if welcome.GetDomain() != "zoneforge" || welcome.GetReplica() != "one" || welcome.GetVersion() != "1.2.3" {
		t.Errorf("welcome %v", welcome)
	}
	z.take(resource.Key{Kind: "Mesh", Name: "default"})
	r.eventually(200, admin, "/v1/status/zones/east", `"connected":true`)
	r.want(404, admin, "GET", "/v1/status/zones/west", "")
	r.want(404, admin, "GET", "/v1/zones/west/dataplanes", "", "not known")
	r.want(200, admin, "POST", "/v1/changes", `{"resources":[{"type":"Zone","name":"west"}]}`)
	r.want(503, admin, "GET", "/v1/zones/west/dataplanes", "", "zone_not_connected")
}

func TestReceiptOfAChange(t *testing.T) {
	r := start(t, config(t.TempDir()))
	admin := r.admin()
	z := r.connect("east", r.token(admin, "zone", `{"zone":"east"}`))
	z.take(resource.Key{Kind: "Mesh", Name: "default"})

	var done struct{ Change, Revision int64 }
	text := r.want(200, admin, "POST", "/v1/changes", `{"message":"x","resources":[{"type":"Timeout","mesh":"default","name":"t",`+
		`"sources":[{"match":{"kuma.io/service":"*"}}],"destinations":[{"match":{"kuma.io/service":"*"}}],"conf":{"connectTimeout":"1s"}}]}`)
	if err := json.Unmarshal([]byte(text), &done); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET",
		"https://"+r.Addresses().REST+"/v1/changes/"+jsonNumber(done.Change)+"/status?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	next := func() (out zones.Receipt, ok bool) {
		t.Helper()
		if !lines.Scan() {
			return out, false
		}
		if err := json.Unmarshal(lines.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		return out, true
	}
	if first, ok := next(); !ok || first.Live || first.Revision != done.Revision || first.ZonesTotal != 1 {
		t.Fatalf("%+v, %v", first, ok)
	}
	a := z.take(resource.Key{Kind: "Timeout", Mesh: "default", Name: "t"})
	z.status(&kdsv1.Status{Revision: a.Position.Revision, Proxies: 3, Acked: 1})
	taken := false
	for !taken {
		line, ok := next()
		if !ok {
			t.Fatal("the watch ended before the zone had taken the change")
		}
		taken = line.Zones[0].Taken && line.Acked == 1 && line.Proxies == 3 && !line.Live
	}
	z.status(&kdsv1.Status{Revision: a.Position.Revision, Proxies: 3, Acked: 3})
	live := false
	for {
		line, ok := next()
		if !ok {
			break
		}
		live = line.Live && line.ZonesLive == 1
	}
	if !live {
		t.Error("the last line is not that the change is live")
	}
	r.want(200, admin, "GET", "/metrics", "", `zoneforge_zones{connected="true"} 1`, `zoneforge_zone_proxies{zone="east"} 3`,
		`zoneforge_kds_repairs_total{zone="east"} 0`, `zoneforge_kds_lost_total 0`, `zoneforge_changes_total{outcome="committed"} 1`)
}

func jsonNumber(n int64) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func TestZoneTokens(t *testing.T) {
	r := start(t, config(t.TempDir()))
	admin := r.admin()
	token := r.token(admin, "zone", `{"zone":"east"}`)
	for name, wrong := range map[string]string{"none": "", "nonsense": "a.b.c", "of a user": admin,
		"of a dataplane": r.token(admin, "dataplane", `{"mesh":"default","zone":"east"}`)} {
		if reason := r.connect("east", wrong).refused(kdsv1.Refusal_CODE_UNAUTHENTICATED); !strings.Contains(reason, "zoneforge token zone") {
			t.Errorf("token %s: %s", name, reason)
		}
	}
	r.connect("west", token).refused(kdsv1.Refusal_CODE_WRONG_ZONE)
	r.want(200, admin, "POST", "/v1/changes", `{"resources":[{"type":"Zone","name":"east","enabled":false}]}`)
	r.connect("east", token).refused(kdsv1.Refusal_CODE_DISABLED)
	r.want(204, admin, "POST", "/v1/tokens/revocations", `{"token":"`+token+`"}`)
	if reason := r.connect("east", token).refused(kdsv1.Refusal_CODE_UNAUTHENTICATED); !strings.Contains(reason, "revoked") {
		t.Error(reason)
	}
}

func TestWithdrawnTokenEndsItsStream(t *testing.T) {
	r := start(t, config(t.TempDir()))
	admin := r.admin()
	welcomed := func(zone, token string) *fakeZone {
		z := r.connect(zone, token)
		z.event("welcome", func(e kds.ZoneEvent) bool { return e.Welcome != nil })
		return z
	}
	stolen := r.token(admin, "zone", `{"zone":"east"}`)
	east := welcomed("east", stolen)
	west := welcomed("west", r.token(admin, "zone", `{"zone":"west"}`))
	r.want(204, admin, "POST", "/v1/tokens/revocations", `{"token":"`+stolen+`"}`)
	if reason := east.refused(kdsv1.Refusal_CODE_UNAUTHENTICATED); !strings.Contains(reason, "revoked") {
		t.Error(reason)
	}
	welcomed("east", r.token(admin, "zone", `{"zone":"east"}`))
	// The stream of the other zone lives on: what is said over it is answered.
	if err := west.client.Do(t.Context(), func(m *kds.Zone) { m.RequestCertificate("default", nil) }); err != nil {
		t.Fatal(err)
	}
	west.event("answer", func(e kds.ZoneEvent) bool { return e.Certificate != nil })
}

func TestCertificatesOverKDS(t *testing.T) {
	r := start(t, config(t.TempDir()))
	z := r.connect("east", r.token(r.admin(), "zone", `{"zone":"east"}`))
	z.event("welcome", func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	td := pki.TrustDomain{Zone: "east", Mesh: "default", Domain: "zoneforge"}
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewRequest(rand.Reader, key, td)
	if err != nil {
		t.Fatal(err)
	}
	if err := z.client.Do(t.Context(), func(m *kds.Zone) { m.RequestCertificate("default", csr) }); err != nil {
		t.Fatal(err)
	}
	c := z.event("certificate", func(e kds.ZoneEvent) bool { return e.Certificate != nil }).Certificate
	if c.GetError() != "" || !strings.Contains(c.GetChain(), "BEGIN CERTIFICATE") {
		t.Errorf("%v", c)
	}
}

func TestShutdownTellsZones(t *testing.T) {
	r := start(t, config(t.TempDir()))
	z := r.connect("east", r.token(r.admin(), "zone", `{"zone":"east"}`))
	z.event("welcome", func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	z.refused(kdsv1.Refusal_CODE_UNAVAILABLE)
}
