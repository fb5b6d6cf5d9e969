package global

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/e2e/loopback"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
)

func free(t *testing.T) string {
	t.Helper()
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// twoReplicas are the settings of two replicas on one etcd, which gossip.
func twoReplicas(t *testing.T) (one, two Config) {
	t.Helper()
	endpoint, roots, _ := etcd(t)
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	gossip := []string{free(t), free(t)}
	cfg := func(i int, name string) Config {
		c := config(filepath.Join(t.TempDir(), name))
		c.EtcdEndpoints, c.EtcdTLS, c.Replica = []string{endpoint}, EtcdTLS{CA: roots}, name
		c.Gossip, c.PeerAddress = Gossip{Address: gossip[i], Join: []string{gossip[1-i]}, KeyFile: keys}, "127.0.0.1:0"
		return c
	}
	return cfg(0, "one"), cfg(1, "two")
}

// A zone is connected to one of two replicas, and the other knows of it whatever that one knows.
func TestReplicasKnowEachOthersZones(t *testing.T) {
	first, second := twoReplicas(t)
	one := start(t, first)
	if err := os.MkdirAll(second.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(second.DataDir, "kek"), one.file("kek"), 0o600); err != nil {
		t.Fatal(err)
	}
	two := start(t, second)
	admin := one.admin()
	two.eventually(200, admin, "/v1/status/replicas", `{"name":"one","address":"127.0.0.1:`)
	one.eventually(200, admin, "/metrics", "zoneforge_replicas 2")

	z := one.connect("east", one.token(admin, "zone", `{"zone":"east"}`))
	a := z.take(resource.Key{Kind: "Mesh", Name: "default"})
	two.eventually(200, admin, "/v1/status/zones/east", `"replica":"east-1","connected":true,"global":"one"`)
	two.eventually(200, admin, "/v1/status/replicas", `"zones":["east"]`)
	z.status(&kdsv1.Status{Revision: a.Position.Revision, Proxies: 7, Acked: 6, Nacks: []*kdsv1.Status_ProxyNack{{Mesh: "default", Proxy: "p", Error: "not so"}}})
	two.eventually(200, admin, "/v1/status/zones/east", `"proxies":7,"acked":6,"nacks":[{"mesh":"default","proxy":"p"`)

	// The zone answers what the other replica asks, with its errors and sizes.
	answers := make(chan error, 1)
	go func() {
		for range 2 {
			q := z.event("query", func(e kds.ZoneEvent) bool { return e.Query != nil }).Query
			if err := z.client.Do(t.Context(), func(m *kds.Zone) {
				if q.GetListDataplanes() != nil {
					m.Answer(&kdsv1.Answer{Id: q.GetId(), Body: []byte(`{"items":["of east"]}`), Last: true})
				} else {
					m.Answer(&kdsv1.Answer{Id: q.GetId(), Error: noProxy + " as that"})
				}
			}); err != nil {
				answers <- err
				return
			}
		}
		answers <- nil
	}()
	two.eventually(200, admin, "/v1/zones/east/dataplanes", "of east")
	two.eventually(404, admin, "/v1/zones/east/dataplanes/default/nobody", noProxy)
	if err := <-answers; err != nil {
		t.Fatal(err)
	}

	// Once the replica has gone, its streams have too.
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	two.eventually(200, admin, "/v1/status/zones/east", `"connected":false`)
	two.eventually(503, admin, "/v1/zones/east/dataplanes", "zone_not_connected")
	two.eventually(200, admin, "/metrics", "zoneforge_replicas 1")
}

func TestReplicasNeedAKeyAndAnEtcd(t *testing.T) {
	for words, change := range map[string]func(*Config){
		"gossip-key-file": func(c *Config) {
			c.Gossip = Gossip{Address: "127.0.0.1:0"}
			c.EtcdEndpoints = []string{"http://127.0.0.1:1"}
		},
		"etcd-endpoints":    func(c *Config) { c.Gossip = Gossip{Address: "127.0.0.1:0", KeyFile: "keys"} },
		"is not IP:port":    func(c *Config) { c.Gossip = Gossip{Address: "localhost", KeyFile: "keys"} },
		"set an address of": func(c *Config) { c.Gossip = Gossip{Address: "localhost:1", KeyFile: "keys"} },
		"peer-address \"x":  func(c *Config) { c.PeerAddress = "x" },
	} {
		cfg := config(t.TempDir())
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", words, err)
		}
	}
}
