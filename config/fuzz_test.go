package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// FuzzFile holds that no file makes Load panic, that its errors name the file, and that what it takes lies in bounds.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"domain: x\nhosts: [a, b]\ntrust-loopback: true\nheartbeat-interval: 3s\n", "a: &a [*a]\n", "hosts: &h [x]\ndata-dir: *h\n", "domain: !!binary aGk=\n",
		"? [a]\n: b\n", "---\n---\n", "domain: \"\\x00\"\n", "heartbeat-interval: 9223372036854775807h\n", "\xff\xfe", "<<: {domain: x}\n",
	} {
		f.Add(seed)
	}
	path := filepath.Join(f.TempDir(), "settings.yaml")
	f.Fuzz(func(t *testing.T, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var g Global
		flags := pflag.NewFlagSet("fuzz", pflag.ContinueOnError)
		Flags(flags, &g)
		if err := flags.Parse([]string{"--config", path}); err != nil {
			t.Fatal(err)
		}
		if err := Load(&g, flags); err != nil {
			if !strings.Contains(err.Error(), path) && !strings.Contains(err.Error(), "set") && !strings.Contains(err.Error(), "address") {
				t.Errorf("%q: the error names no place: %v", content, err)
			}
			return
		}
		if g.HeartbeatInterval < 0 || g.DataDir == "" || g.LogLevel == "" {
			t.Errorf("%q gives %+v", content, g)
		}
	})
}
