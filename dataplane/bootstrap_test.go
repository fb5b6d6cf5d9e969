package dataplane

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/grpc_credential/v3" // its message is in an Any, as is the next one's
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

var update = flag.Bool("update", false, "rewrite the goldens")

func sidecar() Bootstrap {
	return Bootstrap{
		Kind:           "Dataplane",
		Mesh:           "default",
		Name:           "web-1",
		Service:        "web",
		Document:       []byte(`{"networking": {"address": "10.0.0.1"}}`),
		ControlPlanes:  []string{"zone.example.com:5678"},
		CAFile:         "/etc/zoneforge/ca.pem",
		TokenFile:      "/etc/zoneforge/token",
		AdminSocket:    "/run/zoneforge/admin.sock",
		MaxConnections: 1000,
	}
}

func zoneIngress() Bootstrap {
	b := sidecar()
	b.Kind, b.Mesh, b.Name, b.Service = "ZoneIngress", "", "ingress-1", "zone-ingress"
	b.ControlPlanes, b.ServerName, b.MaxConnections = []string{"[::1]:5678"}, "zone.example.com", 0
	return b
}

func TestBootstrapGolden(t *testing.T) {
	for name, b := range map[string]Bootstrap{"sidecar": sidecar(), "zone-ingress": zoneIngress(), "replicas": beforeReplicas("web-1")} {
		t.Run(name, func(t *testing.T) {
			got, err := b.JSON()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("differs from %s; see what changed with -update and git diff:\n%s", path, got)
			}
		})
	}
}

// TestBootstrapIsEnvoys reads a bootstrap with all that it can hold into Envoy's own message, which knows no other fields.
func TestBootstrapIsEnvoys(t *testing.T) {
	b := sidecar()
	b.SystemRoots, b.Modules, b.Logs, b.Version = "/etc/ssl/<roots>.pem", []string{"m 12"}, "/dev/fd/3", "1.2"
	text, err := b.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var message bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(text, &message); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := message.ValidateAll(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	fields := message.GetNode().GetMetadata().GetFields()
	for _, c := range []struct{ got, want string }{
		{message.GetStaticResources().GetSecrets()[0].GetValidationContext().GetTrustedCa().GetFilename(), b.SystemRoots},
		{fields[MetadataModules].GetStringValue(), "m 12"},
		{fields[MetadataLogs].GetStringValue(), b.Logs},
		{fields[MetadataVersion].GetStringValue(), b.Version},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// findEnvoy fails the test without an Envoy: what the real one refuses must not pass unseen.
func findEnvoy(t *testing.T) Envoy {
	t.Helper()
	explicit := os.Getenv("ZONEFORGE_ENVOY")
	if explicit == "" {
		if path := filepath.Join("..", ".tools", "bin", "envoy"); fileExists(path) {
			explicit = path
		}
	}
	envoy, err := Locate(t.Context(), explicit)
	if err != nil {
		t.Fatal(err)
	}
	return envoy
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestEnvoyAcceptsBootstrap(t *testing.T) {
	envoy := findEnvoy(t)
	for name, b := range map[string]Bootstrap{"sidecar": sidecar(), "zone-ingress": zoneIngress(), "replicas": beforeReplicas("web-1")} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b.CAFile, b.TokenFile = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
			for path, content := range map[string]string{b.CAFile: "roots", b.TokenFile: "very-secret"} {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			path, err := b.Write(dir)
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), envoy.Path, "--mode", "validate", "-c", path).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if text := strings.ToLower(string(out)); strings.Contains(text, "deprecat") || strings.Contains(text, "very-secret") {
				t.Errorf("Envoy complains of deprecation or shows the token:\n%s", out)
			}
		})
	}
}

func TestBootstrapRefuses(t *testing.T) {
	for want, change := range map[string]func(*Bootstrap){
		"mesh is empty":         func(b *Bootstrap) { b.Mesh = "" },
		"mesh is \"default\"":   func(b *Bootstrap) { b.Kind = "ZoneIngress" },
		"kind is":               func(b *Bootstrap) { b.Kind = "Zone" },
		"name is empty":         func(b *Bootstrap) { b.Name = "" },
		"service is empty":      func(b *Bootstrap) { b.Service = "" },
		"document is not JSON":  func(b *Bootstrap) { b.Document = []byte("{") },
		"not host:port":         func(b *Bootstrap) { b.ControlPlanes = []string{"zone"} },
		"from 1 to 65535":       func(b *Bootstrap) { b.ControlPlanes = []string{"zone:0"} },
		"token file":            func(b *Bootstrap) { b.TokenFile = "token" },
		"is not UTF-8":          func(b *Bootstrap) { b.CAFile = "/etc/\xff.pem" },
		"longer than 107 bytes": func(b *Bootstrap) { b.AdminSocket = "/" + strings.Repeat("a", 107) },
	} {
		b := sidecar()
		change(&b)
		if _, err := b.JSON(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
