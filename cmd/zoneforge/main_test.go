package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/cli"
	"github.com/zoneforge/zoneforge/config"
)

func zoneforge(t *testing.T, args ...string) (code int, errs string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(cli.Streams{In: strings.NewReader(""), Out: &out, Err: &err}, args)
	return code, err.String()
}

func write(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// roots is a file of a certificate that nobody else has.
func roots(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	return write(t, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})), 0o600)
}

func TestDataplaneRunExitCodes(t *testing.T) {
	document := write(t, "dp.yaml", "type: ZoneIngress\nname: i\nnetworking: {address: 127.0.0.1, port: 10001}\n", 0o600)
	token := write(t, "token", "abc\n", 0o600)
	args := func(change ...string) []string {
		all := map[string]string{"--file": document, "--zone": "localhost:1", "--ca": token, "--token-file": token}
		var out []string
		for i := 0; i+1 < len(change); i += 2 {
			all[change[i]] = change[i+1]
		}
		for _, flag := range []string{"--file", "--zone", "--ca", "--token-file", "--envoy", "--config"} {
			if all[flag] != "" {
				out = append(out, flag, all[flag])
			}
		}
		return append([]string{"dataplane", "run"}, out...)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nothing said", []string{"dataplane", "run"}, 2, "zone is not set: set --zone, ZONEFORGE_ZONE, or zone in the file"},
		{"bad address", args("--zone", "localhost"), 2, `zone: "localhost" is not host:port`},
		{"bad file", args("--config", write(t, "c.yaml", "drian: 5s\n", 0o600)), 2, "c.yaml:1:1: unknown setting \"drian\"; did you mean drain?"},
		{"bad document", args("--file", write(t, "bad.yaml", "type: ZoneIngress\nnmae: i\n", 0o600)), 3, "bad.yaml:2:1: nmae: unknown field"},
		{"bad roots", args(), 3, "holds no certificate in PEM"},
		{"no Envoy", args("--ca", roots(t), "--envoy", "/nowhere/envoy"), 4, "make tools"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if code, errs := zoneforge(t, c.args...); code != c.code || !strings.Contains(errs, c.want) {
				t.Errorf("exit %d, want %d\n%s", code, c.code, errs)
			}
		})
	}
}

func TestLogger(t *testing.T) {
	for format, isJSON := range map[string]bool{"auto": true, "json": true, "console": false} {
		var out bytes.Buffer
		log, err := newLogger(&out, config.Log{LogLevel: "warn", LogFormat: format})
		if err != nil {
			t.Fatal(err)
		}
		log.Info("not shown")
		log.Warn("shown", zap.String("zone", "east"))
		if strings.Contains(out.String(), "not shown") || !strings.Contains(out.String(), "shown") || json.Valid(out.Bytes()) != isJSON {
			t.Errorf("%s: %s", format, out.String())
		}
	}
}
