package global

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// TestFloodsAreBounded floods each port of a replica. What the flood costs is bounded and counted, and whoever was there before, or comes
// with a good token, is served.
func TestFloodsAreBounded(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.Limits = Limits{RESTRate: 5, RESTConcurrency: 8, RESTConnections: 32, KDSConnections: 16, StreamRate: 1}
	r := start(t, cfg)
	admin := r.admin()
	other := r.token(admin, "user", `{"name":"olga","role":"viewer"}`)
	zone := r.connect("east", r.token(admin, "zone", `{"zone":"east"}`))
	zone.event("welcome", func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	figure := func(name string) (n float64) {
		t.Helper()
		for line := range strings.Lines(r.want(http.StatusOK, admin, "GET", "/metrics", "")) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
				if _, err := fmt.Sscan(rest, &n); err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
		t.Fatalf("no metric %s", name)
		return 0
	}

	t.Run("requests", func(t *testing.T) {
		codes, sent, late := map[int]int{}, 0, time.After(patience)
		for ; codes[429] < 10; sent++ {
			code, _ := r.do("wrong", "GET", "/v1/meshes", "")
			codes[code]++
			select {
			case <-late:
				t.Fatalf("strangers were answered %v", codes)
			default:
			}
		}
		// After a rest a client has the requests of five seconds.
		if codes[401] < 5*cfg.Limits.RESTRate || codes[401]+codes[429] != sent {
			t.Errorf("strangers were answered %v", codes)
		}
		r.want(http.StatusOK, other, "GET", "/v1/meshes", "")
		if n := figure(`zoneforge_rest_refused_total{reason="rate"}`); int(n) != codes[429] {
			t.Errorf("%v are counted, %d were refused", n, codes[429])
		}
	})

	t.Run("connections", func(t *testing.T) {
		late := time.After(patience)
		for port, address := range map[string]string{"rest": r.Addresses().REST, "kds": r.Addresses().KDS} {
			most := map[string]int{"rest": cfg.Limits.RESTConnections, "kds": cfg.Limits.KDSConnections}[port]
			// From another address than whoever was there before.
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
			var flood []net.Conn
			for range 10 * most {
				c, err := dialer.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				flood = append(flood, c)
			}
			r.want(http.StatusOK, other, "GET", "/v1/meshes", "")
			if open := figure(`zoneforge_connections{port="` + port + `"}`); int(open) > most {
				t.Errorf("%s has %v connections, at most %d are allowed", port, open, most)
			}
			// A connection is there for whoever opened it before the replica has looked at it.
			for figure(`zoneforge_connections_refused_total{port="`+port+`"}`) == 0 {
				select {
				case <-time.After(time.Second / 4): // whoever asks more often is refused
				case <-late:
					t.Fatalf("none of the flood of %s is counted", port)
				}
			}
			for _, c := range flood {
				_ = c.Close()
			}
		}
		if code, text := r.do(admin, "GET", "/v1/status/zones/east", ""); code != 200 || !strings.Contains(text, `"connected":true`) {
			t.Errorf("the zone lost its stream: %d %s", code, text)
		}
	})

	t.Run("streams", func(t *testing.T) {
		looping := r.token(admin, "zone", `{"zone":"west"}`)
		hello := frameOf(t, &kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Hello{Hello: &kdsv1.Hello{Zone: "west", Replica: "w", Protocols: []uint32{kds.Protocol}, Identity: "w"}}})
		var said []*kdsv1.GlobalFrame
		for n := 0; n < 5 && (n == 0 || len(said) > 0 && said[0].GetRefusal() == nil); n++ {
			said, _ = r.speak(looping, hello, []byte{0xff}) // which no zone sends, so that it ends
		}
		if len(said) == 0 || !strings.Contains(said[0].GetRefusal().GetReason(), "begins streams too often") || said[0].GetRefusal().GetRetryAfterMillis() == 0 {
			t.Errorf("the last stream was told %v", said)
		}
		if n := figure("zoneforge_kds_streams_held_off_total"); n != 1 {
			t.Errorf("%v streams were held off", n)
		}
	})
}
