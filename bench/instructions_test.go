package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMostCounted(t *testing.T) {
	at := filepath.Join(t.TempDir(), "counted")
	for name, text := range map[string]string{
		"1-01": "# callgrind format\nfn=(1)\n0 5\ntotals: 12\n",
		"1-05": "# callgrind format\ntotals: 3400\n",
		"2-01": "totals: 99999\n",
		"3-01": "summary: 1\n",
		"4-01": "totals: many\n",
	} {
		if err := os.WriteFile(at+"."+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := mostCounted(at + ".1-*"); n != 3400 || err != nil {
		t.Errorf("%d %v, want 3400 of the thread that did the most", n, err)
	}
	for files, want := range map[string]string{at + ".3-*": "no instructions are counted", at + ".4-*": "invalid syntax"} {
		if _, err := mostCounted(files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", files, err, want)
		}
	}
}
