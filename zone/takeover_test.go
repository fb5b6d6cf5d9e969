package zone

import (
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
)

// What was made for a proxy, with the private keys of its services, waits under its ID for its next stream: so nobody may come
// under that ID with a token that isn't good for the same services, for as long as anything is kept.
func TestNobodyTakesAProxysName(t *testing.T) {
	signing, err := token.NewSigningKey(rand.Reader, token.Dataplane)
	if err != nil {
		t.Fatal(err)
	}
	known := &keys{}
	known.current.Store(&federationv1.VerificationKeys{
		Keys: []*federationv1.VerificationKey{{Id: signing.ID(), Ed25519: signing.Verification().Public}}})
	admitted, err := admission.New(admission.Config{Zone: "east", Keys: known})
	if err != nil {
		t.Fatal(err)
	}
	c := &core{inbox: newInbox(), metrics: newMetrics(), admitted: admitted, begins: Limits{}.begins(), refusals: newRefusals()}
	z, err := New(Config{Name: "east", DataDir: t.TempDir(), GlobalAddresses: []string{"g:1"}, GlobalCAFile: "c", TokenFile: "t"})
	if err != nil {
		t.Fatal(err)
	}
	c.log = z.log
	d := &door{core: c, admission: admitted}
	const id = "Dataplane/default/pay-1"
	connect := func(service string, services ...string) error {
		text, err := token.Sign(signing, token.Claims{Purpose: token.Dataplane, ID: "jti", Mesh: "default", Services: services,
			IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		metadata, err := structpb.NewStruct(map[string]any{"zoneforge.kind": "Dataplane", "zoneforge.mesh": "default", "zoneforge.name": "pay-1",
			"zoneforge.document": `{"type": "Dataplane", "mesh": "default", "name": "pay-1", "networking": {"address": "10.0.0.1",
				"inbound": [{"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "` + service + `"}}]}}`})
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Connect(t.Context(), &server.Node{Id: id, Metadata: metadata}, text.Reveal())
		return err
	}
	if err := connect("pay", "pay"); err != nil {
		t.Fatalf("the first one: %v", err)
	}
	if err := connect("web", "web"); !errors.Is(err, admission.ErrNotAllowed) || !strings.Contains(err.Error(), "name of its own") {
		t.Errorf("another service under the name of a live proxy: %v", err)
	}
	if err := connect("pay", "pay"); err != nil {
		t.Errorf("the same one again: %v", err)
	}
	if err := connect("pay-v2", "pay", "pay-v2"); err != nil {
		t.Errorf("restarted with another document, by a token that is good for both: %v", err)
	}
	// The owner of the state has not got to it yet: what was made for pay is still there.
	if err := connect("pay-v2", "pay-v2"); !errors.Is(err, admission.ErrNotAllowed) {
		t.Errorf("a token for the newest document only, while the first one's is kept: %v", err)
	}
	c.inbox.others(id, &admission.Proxy{ID: id, Mesh: "default", Name: "pay-1", Dataplane: &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{
		Address: "10.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{{Port: 80, Tags: map[string]string{"kuma.io/service": "pay-v3"}}}}}})
	if err := connect("pay-v2", "pay", "pay-v2"); !errors.Is(err, admission.ErrNotAllowed) {
		t.Errorf("while another replica has one of another service under its name: %v", err)
	}
	c.inbox.others(id, nil)
	c.inbox.unlessConnecting(id, func() { t.Error("forgotten while streams are announced") })
	if err := connect("web", "web"); !errors.Is(err, admission.ErrNotAllowed) {
		t.Errorf("while streams are announced: %v", err)
	}
	c.inbox.take()
	c.inbox.unlessConnecting(id, func() {})
	if err := connect("web", "web"); err != nil {
		t.Errorf("once the other is forgotten: %v", err)
	}
}
