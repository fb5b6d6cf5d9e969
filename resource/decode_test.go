package resource

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What the samples, written as people write them, mean in the canonical spelling.
func TestSamples(t *testing.T) {
	selectors := "selectors:\n  - match:\n      kuma.io/gateway: enabled\n"
	route := func(name, http string) string {
		return "type: MeshGatewayRoute\nmesh: my-gateway-mesh\nname: " + name + "\nlabels:\n  k8s.kuma.io/namespace: kuma-system\n" +
			selectors + "conf:\n  http:\n    rules:\n" + http
	}
	rule := func(path, service string) string {
		return "      - matches:\n          - path:\n              match: PREFIX\n              value: " + path + "\n" +
			"        backends:\n          - weight: 100\n            destination:\n              kuma.io/service: " + service + "\n"
	}
	cases := []struct {
		file  string
		notes []string
		want  string
	}{
		{file: "mesh.yaml", want: "type: Mesh\nname: my-gateway-mesh\nmtls:\n  enabledBackend: ca-builtin\n  backends:\n    - name: ca-builtin\n      type: builtin\n"},
		{
			file:  "gateway.yaml",
			notes: []string{"gateway.yaml:24: skipped Deployment my-api-gateway", "gateway.yaml:60: skipped Service my-api-gateway"},
			want: `type: MeshGateway
mesh: my-gateway-mesh
name: my-api-gateway
labels:
  k8s.kuma.io/namespace: kuma-system
selectors:
  - match:
      app: my-api-gateway
conf:
  listeners:
    - port: 8080
      protocol: HTTP
      hostname: '*'
    - port: 8443
      protocol: HTTPS
      hostname: '*'
      tls:
        mode: TERMINATE
        certificates:
          - secret: my-gateway-tls-secret
`,
		},
		{file: "gateway-route.yaml", want: route("echo-service-route", rule("/techblog/en/echo", "echo-service_echo-ns_svc_80"))},
		{file: "jwt-route.yaml", want: route("echo-service-jwt-route", rule("/techblog/en/secure-echo", "echo-service_echo-ns_svc_80"))},
		{file: "versions-route.yaml", want: route("echo-v2-route", rule("/techblog/en/v2/echo", "echo-service-v2_echo-ns_svc_80")+
			rule("/techblog/en/v1/echo", "echo-service_echo-ns_svc_80"))},
		{file: "permission.yaml", want: `type: TrafficPermission
mesh: my-gateway-mesh
name: allow-gateway-to-echo
labels:
  k8s.kuma.io/namespace: kuma-system
sources:
  - match:
      kuma.io/service: my-api-gateway_kuma-system_svc
destinations:
  - match:
      kuma.io/service: echo-service_echo-ns_svc_80
conf:
  action: ALLOW
`},
		{file: "cors-route.yaml", want: route("echo-service-cors-route", rule("/techblog/en/echo", "echo-service_echo-ns_svc_80")+
			`        cors:
          allowOrigins:
            - regex: https?://(www\.)?example\.com
          allowMethods:
            - GET
            - POST
            - PUT
            - DELETE
            - OPTIONS
          allowHeaders:
            - X-Custom-Header
            - Content-Type
            - Authorization
          exposeHeaders:
            - X-Foo
            - X-Bar
          maxAge: 86400
          allowCredentials: true
`)},
	}
	for _, c := range cases {
		t.Run(c.file, func(t *testing.T) {
			b := Decode(c.file, read(t, c.file), Options{})
			if err := b.Err(); err != nil {
				t.Fatal(err)
			}
			var notes []string
			for _, n := range b.Notes {
				notes = append(notes, n.String())
			}
			if !slices.Equal(notes, c.notes) {
				t.Errorf("notes: got %q, want %q", notes, c.notes)
			}
			if len(b.Resources) != 1 {
				t.Fatalf("got %d resources, want 1", len(b.Resources))
			}
			got, err := EncodeYAML(b.Resources[0])
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
			roundTrip(t, b.Resources[0])
		})
	}
}

func TestBadEscape(t *testing.T) {
	b := Decode("cors.yaml", read(t, "cors-bad-escape.yaml"), Options{})
	want := `cors.yaml:19:36: bad YAML: \. is no escape in a double-quoted text (use single quotes, or double the backslash: \\)`
	if b.Err() == nil || b.Err().Error() != want {
		t.Errorf("got  %v\nwant %s", b.Err(), want)
	}
}

// roundTrip checks that both encodings of r decode to r.
func roundTrip(t testing.TB, r *Resource) {
	t.Helper()
	for _, f := range []func(*Resource, ...EncodeOption) ([]byte, error){EncodeYAML, EncodeJSON} {
		data, err := f(r, WithSecrets())
		if err != nil {
			t.Fatal(err)
		}
		b := Decode("again", data, Options{System: true})
		if b.Err() != nil || len(b.Resources) != 1 {
			t.Fatalf("%v, %d resources, of:\n%s", b.Err(), len(b.Resources), data)
		}
		got := b.Resources[0]
		if got.Key != r.Key || !proto.Equal(got.Spec, r.Spec) {
			t.Fatalf("got %s %s\nwant %s %s", got.Key, prototext.Format(got.Spec), r.Key, prototext.Format(r.Spec))
		}
		again, err := Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		first, err := Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, first) {
			t.Fatalf("the canonical bytes differ: labels %v and %v", got.Labels, r.Labels)
		}
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	b := Decode("s.yaml", []byte("{type: Secret, name: s, data: c2VjcmV0}"), Options{})
	if b.Err() != nil {
		t.Fatal(b.Err())
	}
	out, err := EncodeJSON(b.Resources[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"type":"Secret","mesh":"default","name":"s","data":"[redacted]"}`; string(out) != want {
		t.Errorf("got %s, want %s", out, want)
	}
	if Decode("s.json", out, Options{}).Err() == nil {
		t.Error("what was redacted decodes")
	}
	roundTrip(t, b.Resources[0])
}

func TestHostileDocuments(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		p, c := string(rune('0'+i-1)), string(rune('0'+i))
		bomb += "a" + c + ": &a" + c + " [" + strings.Repeat("*a"+p+", ", 9) + "*a" + p + "]\n"
	}
	merges := "m0: &m0 {x: y}\n"
	for i := 1; i < 10; i++ {
		p, c := string(rune('0'+i-1)), string(rune('0'+i))
		merges += "m" + c + ": &m" + c + " {<<: [" + strings.Repeat("*m"+p+", ", 9) + "*m" + p + "]}\n"
	}
	for name, doc := range map[string]string{
		"aliases": bomb + "type: Retry\nname: r\nconf: {http: {retryOn: *a9}}\n",
		"merges":  merges + "type: Retry\nname: r\nlabels: *m9\n",
		"list":    merges + "apiVersion: v1\nkind: List\nitems: [" + strings.Repeat("*m9, ", 5000) + "]\n",
		"wrong":   "type: Retry\nname: r\nconf:\n" + manyFields(50000),
		"self":    "type: Retry\nname: r\nlabels: &l {<<: *l}\n",
		"deep":    "type: Retry\nname: r\nconf: " + strings.Repeat("[", 20000),
		"nested":  strings.Repeat("{a: ", 5000) + strings.Repeat("}", 5000),
	} {
		if Decode(name, []byte(doc), Options{}).Err() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  field%d: x\n", i)
	}
	return b.String()
}

func TestErrorsAreBounded(t *testing.T) {
	b := Decode("f", []byte("type: Retry\nname: r\nconf:\n"+manyFields(5000)), Options{})
	if n := len(b.Violations); n != maxViolations+1 {
		t.Fatalf("got %d errors, want %d", n, maxViolations+1)
	}
	want := "f:1004:3: conf.field1000: more than 1000 errors; the others are not shown (mend those first)"
	if got := b.Violations[maxViolations].String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func FuzzDecode(f *testing.F) {
	names, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		f.Add(read(f, filepath.Base(n)))
	}
	for _, c := range messages {
		f.Add([]byte(c.doc))
	}
	f.Add([]byte("a: &a [*a]\n---\n<<: *a\n...\n%YAML 1.1\n---\n{\"type\": \"Mesh\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := Decode("f", data, Options{System: true})
		if b.Err() != nil {
			return
		}
		for _, r := range b.Resources {
			if vs := Validate(r); len(vs) > 0 {
				t.Fatalf("%s: Decode accepts what Validate refuses: %v", r.Key, vs)
			}
			roundTrip(t, r)
		}
	})
}
