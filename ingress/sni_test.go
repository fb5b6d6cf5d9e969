package ingress

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/resource"
)

var hostname = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

func mustSNI(t testing.TB, d Destination) string {
	t.Helper()
	sni, err := d.SNI()
	if err != nil {
		t.Fatal(err)
	}
	return sni
}

// Zones of different versions must agree on these bytes: changing one is a change of the protocol between zones.
func TestSNIWire(t *testing.T) {
	for _, c := range []struct {
		d    Destination
		want string
	}{
		{Destination{Mesh: "default", Service: "echo-service_echo-ns_svc_80"}, "echo-service.echo-ns.svc.80.all.default.mesh"},
		{Destination{Mesh: "default", Service: "web", Subset: map[string]string{resource.TagService: "web"}}, "web.all.default.mesh"},
		{Destination{Mesh: "a_b", Service: "api.example.com"}, "apizdexamplezdcom.all.azub.mesh"},
		{Destination{Mesh: "zoo", Service: "-a--b_"}, "zhazhzhbzu.all.zzoo.mesh"},
		{Destination{Mesh: "default", Service: "all"}, "all.all.default.mesh"},
		{Destination{Mesh: "default", Service: "web", Subset: map[string]string{"version": "v2", "env": "prod"}}, "web.f5p7jbzsvdmnfj3hfpnr.default.mesh"},
		{Destination{Mesh: "default", Service: "Web"}, "zxok5mdxyfrfohiij3xgitsfuexu2dbfnu.all.default.mesh"},
	} {
		got := mustSNI(t, c.d)
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.d, got, c.want)
		}
		n, err := parse(strings.ToUpper(got))
		if err != nil {
			t.Errorf("parse %s: %v", got, err)
		} else if !n.is(c.d) {
			t.Errorf("parse %s: %+v is not %s", got, n, c.d)
		}
	}
}

func TestSNINeedsMeshAndService(t *testing.T) {
	for _, d := range []Destination{{Mesh: "m"}, {Service: "s"}} {
		if sni, err := d.SNI(); err == nil {
			t.Errorf("%+v: got %q, want an error", d, sni)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for sni, part := range map[string]string{
		"":                         "does not end",
		"example.com":              "does not end",
		".mesh":                    "needs service",
		"web.default.mesh":         "needs service",
		"web..default.mesh":        "label",
		"web.v1.default.mesh":      "subset",
		"web.all.za.mesh":          "mesh",
		"web.all.zx1.mesh":         "mesh",
		"zxabc.all.default.mesh":   "service",
		"wz.all.default.mesh":      "escape",
		"w--b.all.default.mesh":    "service",
		"wzhb.all.default.mesh":    "service",
		"w_b.all.default.mesh":     "service",
		"w\u212a.all.default.mesh": "service",
		strings.Repeat("a.", 130):  "more than 253",
		strings.Repeat("a", 64) + ".all.default.mesh": "label",
	} {
		_, err := parse(sni)
		if !errors.Is(err, errSNI) || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: got %v, want errSNI about %q", sni, err, part)
		}
	}
}

func randomName(r *rand.Rand, limit int) string {
	const alphabet = "abz09z_.--_x"
	b := make([]byte, 1+r.IntN(limit))
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

func TestSNIRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	seen := map[string]Destination{}
	for range 20000 {
		d := Destination{Mesh: randomName(r, 1+r.IntN(70)), Service: randomName(r, 1+r.IntN(250))}
		if r.IntN(2) == 0 {
			d.Subset = map[string]string{randomName(r, 3): randomName(r, 3)}
		}
		checkRoundTrip(t, d)
		sni := mustSNI(t, d)
		if o, ok := seen[sni]; ok && o.String() != d.String() {
			t.Fatalf("%s and %s share %s", o, d, sni)
		}
		seen[sni] = d
	}
}

func checkRoundTrip(t *testing.T, d Destination) {
	t.Helper()
	sni := mustSNI(t, d)
	if len(sni) > maxName || !hostname.MatchString(sni) {
		t.Fatalf("%s: %q is not a valid hostname", d, sni)
	}
	n, err := parse(sni)
	if err != nil {
		t.Fatalf("%s: %v", d, err)
	}
	if n.String() != sni || !n.is(d) {
		t.Fatalf("%s: %q came back as %q", d, sni, n)
	}
	if n.ServiceHash == "" && n.Service != d.Service || n.MeshHash == "" && n.Mesh != d.Mesh {
		t.Fatalf("%s: came back as %+v", d, n)
	}
	if (n.ServiceHash == "") == (n.Service == "") || (n.MeshHash == "") == (n.Mesh == "") {
		t.Fatalf("%s: %+v holds not exactly one of name and hash", d, n)
	}
}

func FuzzSNI(f *testing.F) {
	f.Add("echo.ns.svc.80.all.default.mesh", "default", "echo_ns_svc_80", "version", "v1")
	f.Add("zxok5mdxyfrfohiij3xgitsfuexu2dbfnu.all.zzoo.mesh", "zoo", "-a--b_", "", "")
	f.Add("a\x00.all.m.mesh", "\xff", "K", "a", "*")
	f.Fuzz(func(t *testing.T, sni, mesh, service, tag, value string) {
		if n, err := parse(sni); err == nil && n.String() != lower(sni) {
			t.Fatalf("%q parsed as %+v, which is written %q", sni, n, n)
		}
		if mesh != "" && service != "" {
			checkRoundTrip(t, Destination{Mesh: mesh, Service: service, Subset: map[string]string{tag: value}})
		}
	})
}
