package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// parse loads target from a command line.
func parse(t *testing.T, target any, args ...string) error {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(flags, target)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(target, flags)
}

func TestDefaults(t *testing.T) {
	var g Global
	if err := parse(t, &g); err != nil {
		t.Fatal(err)
	}
	if g.RESTAddress != ":5682" || g.KDSAddress != ":5685" || g.Domain != "zoneforge" || g.HeartbeatInterval != 10*time.Second ||
		g.TrustLoopback || g.LogLevel != "info" || g.EtcdEndpoints != nil {
		t.Errorf("%+v", g)
	}
	var z Zone
	err := parse(t, &z)
	for _, name := range []string{"name", "global", "global-ca", "token-file"} {
		if err == nil || !strings.Contains(err.Error(), name+" is not set: set --"+name+", ZONEFORGE_") {
			t.Errorf("%s is not asked for in %v", name, err)
		}
	}
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("%v is no ErrInvalid", err)
	}
}

func TestFlagBeatsVariableBeatsFileBeatsDefault(t *testing.T) {
	file := write(t, "domain: file.example\nrest-address: file:1\nkds-address: file:2\ntrust-loopback: true\n"+
		"etcd-endpoints: [https://a:2379, https://b:2379]\nhosts: one, two\nheartbeat-interval: 3s\n")
	t.Setenv("ZONEFORGE_CONFIG", file)
	t.Setenv("ZONEFORGE_REST_ADDRESS", "env:1")
	t.Setenv("ZONEFORGE_KDS_ADDRESS", "env:2")
	t.Setenv("ZONEFORGE_HOSTS", "three,four")
	var g Global
	if err := parse(t, &g, "--kds-address", "flag:2"); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(g.Domain, g.RESTAddress, g.KDSAddress, g.TrustLoopback, g.EtcdEndpoints, len(g.EtcdEndpoints), g.Hosts, len(g.Hosts), g.HeartbeatInterval)
	want := fmt.Sprint("file.example", "env:1", "flag:2", true, []string{"https://a:2379", "https://b:2379"}, 2, []string{"three", "four"}, 2, 3*time.Second)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := parse(t, &g, "--trust-loopback=false"); err != nil || g.TrustLoopback {
		t.Errorf("a flag of false does not beat the file: %t, %v", g.TrustLoopback, err)
	}
}

func TestFilesAreReadStrictly(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"near miss", "domain: x\nrest-adress: :1\n", `:2:1: unknown setting "rest-adress"; did you mean rest-address?`},
		{"other spelling", "dataDir: /x\n", `:1:1: unknown setting "dataDir"; did you mean data-dir?`},
		{"stranger", "colour: blue\n", `:1:1: unknown setting "colour"`},
		{"nested", "etcd:\n  endpoints: []\n", `:1:1: unknown setting "etcd"`},
		{"twice", "domain: a\ndomain: b\n", ":2:1: domain is set in line 1 already"},
		{"number for text", "domain: 5\n", ":1:9: domain: expected a text, found the number 5"},
		{"text for bool", "trust-loopback: maybe\n", `:1:17: trust-loopback: expected true or false, found the text "maybe"`},
		{"quoted bool", "trust-loopback: \"true\"\n", `expected true or false, found the text "true"`},
		{"number for duration", "heartbeat-interval: 5\n", ":1:21: heartbeat-interval: expected a duration such as 30s, found the number 5"},
		{"bad duration", "heartbeat-interval: 5 parsecs\n", `:1:21: heartbeat-interval: "5 parsecs" is no duration`},
		{"mapping for list", "hosts: {a: b}\n", ":1:8: hosts: expected a list of texts, found a mapping"},
		{"number in list", "hosts: [1]\n", "found the number 1 in it"},
		{"nothing", "domain:\n", "domain: expected a text, found nothing"},
		{"choice", "log-level: warning\n", `"warning" is not one of debug, info, warn, error; did you mean warn?`},
		{"no mapping", "- a\n", ":1:1: expected settings as name: value, found a list"},
		{"two documents", "domain: a\n---\ndomain: b\n", "a second document; keep all settings in one"},
		{"no YAML", "a: b: c\n", "mapping values are not allowed"},
		{"negative bound", "rest-rate: -1\n", `:1:12: rest-rate: "-1" is no number from 0`},
		{"address", "kds-address: here\n", `kds-address: "here" is not host:port`},
		{"half a pair", "tls-cert-file: /x\n", "tls-cert-file is set without tls-key-file"},
		{"profiles for other machines", "debug-address: 0.0.0.0:6060\n", `debug-address: "0.0.0.0:6060" is not host:port of loopback`},
		{"etcd without endpoints", "etcd-ca-file: /x\n", "set etcd-endpoints"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var g Global
			err := parse(t, &g, "--config", write(t, c.content))
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrInvalid) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
	var g Global
	err := parse(t, &g, "--config", write(t, "wat: 1\ndomain: 5\nhosts: 1\n"))
	if err == nil || strings.Count(err.Error(), "settings.yaml:") != 3 {
		t.Errorf("not all errors at once: %v", err)
	}
	if err := parse(t, &g, "--config", "/nowhere/at/all"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := parse(t, &g, "--config", write(t, "# nothing set\n")); err != nil {
		t.Error(err)
	}
}

func TestErrorsNameFlagAndVariable(t *testing.T) {
	var g Global
	if err := parse(t, &g, "--heartbeat-interval", "soon"); err == nil || !strings.Contains(err.Error(), `--heartbeat-interval: "soon"`) {
		t.Errorf("got %v", err)
	}
	t.Setenv("ZONEFORGE_TRUST_LOOPBACK", "yes")
	if err := parse(t, &g); err == nil || !strings.Contains(err.Error(), `ZONEFORGE_TRUST_LOOPBACK: "yes" is neither`) {
		t.Errorf("got %v", err)
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	const secret = "hunter2"
	t.Setenv("ZONEFORGE_ETCD_PASSWORD", secret)
	t.Setenv("ZONEFORGE_ETCD_USERNAME", "root")
	var g Global
	if err := parse(t, &g, "--etcd-endpoints", "https://a:2379"); err != nil {
		t.Fatal(err)
	}
	if string(g.EtcdPassword) != secret {
		t.Fatalf("got %q", string(g.EtcdPassword))
	}
	asJSON, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"%v": fmt.Sprintf("%v", g), "%+v": fmt.Sprintf("%+v", g), "%#v": fmt.Sprintf("%#v", g), "%s": fmt.Sprintf("%s", g.EtcdPassword),
		"json": string(asJSON), "yaml": string(asYAML), "entries": fmt.Sprint(Entries(&g)),
	} {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows the secret: %s", what, text)
		}
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(flags, &g)
	if flags.Lookup("etcd-password") != nil {
		t.Error("a secret has a flag")
	}
	t.Setenv("ZONEFORGE_ETCD_PASSWORD", "")
	err = parse(t, &g, "--etcd-endpoints", "https://a:2379", "--config", write(t, "etcd-password: 123456\n"))
	if err == nil || strings.Contains(err.Error(), "123456") {
		t.Errorf("got %v, want an error without the value", err)
	}
}

func TestEverySettingIsDocumentedAndNamedOnce(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	for _, target := range []any{&Global{}, &Zone{}, &Dataplane{}, &Client{}} {
		seen := map[string]bool{}
		for _, s := range settings(target) {
			if !name.MatchString(s.name) || s.usage == "" || seen[s.name] {
				t.Errorf("%T: setting %q, usage %q, twice %t", target, s.name, s.usage, seen[s.name])
			}
			seen[s.name] = true
			if err := s.assign(s.standard); err != nil {
				t.Errorf("%T: default of %s: %v", target, s.name, err)
			}
		}
	}
}

func clientFlags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	ClientFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags
}

func TestClientSettings(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	for _, name := range []string{"ADDRESS", "CA", "TOKEN", "TOKEN_FILE", "CLIENT_CONFIG"} {
		t.Setenv("ZONEFORGE_"+name, "")
	}
	c, configured, err := LoadClient(clientFlags(t))
	if err != nil || configured || c.Address != "https://localhost:5682" {
		t.Errorf("nothing set: %+v, %t, %v", c, configured, err)
	}
	path, err := ClientFile(clientFlags(t))
	if want := filepath.Join(dir, "zoneforge", "client.yaml"); err != nil || path != want {
		t.Errorf("path %s, %v, want %s", path, err, want)
	}
	token := write(t, "from-a-file\n")
	saved := Client{Address: "https://global:5682", CA: "/ca.crt", TokenFile: token, Token: "hidden"}
	if err := WriteClient(path, saved); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got, err := ReadClient(path); err != nil || !reflect.DeepEqual(got, saved) {
		t.Errorf("read back %+v, %v", got, err)
	}
	c, configured, err = LoadClient(clientFlags(t))
	if got, tokenErr := c.ReadToken(); err != nil || tokenErr != nil || !configured || c.Address != saved.Address || got != "hidden" {
		t.Errorf("from the file: %+v, %t, %v, token %q, %v", c, configured, err, got, tokenErr)
	}
	t.Setenv("ZONEFORGE_TOKEN", "from-the-environment")
	if c, _, _ = LoadClient(clientFlags(t)); string(c.Token) != "from-the-environment" {
		t.Errorf("token %q", string(c.Token))
	}
	c, _, _ = LoadClient(clientFlags(t, "--token-file", token))
	if got, err := c.ReadToken(); err != nil || got != "from-a-file" {
		t.Errorf("token %q, %v: a flag must beat the environment", got, err)
	}
	for _, content := range []string{"", "two\nlines\n"} {
		if _, err := (Client{TokenFile: write(t, content)}).ReadToken(); err == nil {
			t.Errorf("%q is taken for a token", content)
		}
	}
	if _, _, err := LoadClient(clientFlags(t, "--client-config", "/nowhere/at/all")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
