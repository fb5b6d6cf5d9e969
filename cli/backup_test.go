package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/backup"
)

// A file is there when it is whole, and what stood there before stays when it isn't.
func TestBackupWritesWholeFilesOnly(t *testing.T) {
	var good bytes.Buffer
	w, err := backup.NewWriter(&good, backup.Head{Epoch: "e", Revision: 7})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	var failed bytes.Buffer
	if w, err = backup.NewWriter(&failed, backup.Head{Epoch: "e"}); err == nil {
		err = w.Fail("the store failed")
	}
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "global.backup")
	for _, test := range []struct {
		name   string
		serve  func(http.ResponseWriter)
		code   int
		says   string
		stands string
	}{
		{"whole", func(w http.ResponseWriter) { _, _ = w.Write(good.Bytes()) }, 0, "revision 7, 0 resources and 0 changes", good.String()},
		{"damaged", func(w http.ResponseWriter) { _, _ = w.Write(bytes.Replace(good.Bytes(), []byte("7"), []byte("8"), 1)) }, 1, "checksum differs", good.String()},
		{"cut off", func(w http.ResponseWriter) { _, _ = w.Write(good.Bytes()[:good.Len()-9]) }, 1, "cut off", good.String()},
		{"failed", func(w http.ResponseWriter) { _, _ = w.Write(failed.Bytes()) }, 1, "the store failed", good.String()},
		{"broken", func(w http.ResponseWriter) {
			_, _ = w.Write(good.Bytes())
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, 1, "broke off", good.String()},
		{"refused", func(w http.ResponseWriter) { refuse(w, 403, "forbidden", "only an admin", "use a token", "") }, 1, "only an admin", good.String()},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { test.serve(w) }))
			defer s.Close()
			code, out, errs := run(t, "", "backup", "--out", path, "--address", s.URL, "--ca", f.ca)
			if code != test.code || !strings.Contains(out+errs, test.says) {
				t.Errorf("exit %d: %s%s", code, out, errs)
			}
			text, err := os.ReadFile(path)
			if err != nil || string(text) != test.stands {
				t.Errorf("%v: %s", err, text)
			}
			if all, _ := os.ReadDir(dir); len(all) != 1 {
				t.Errorf("left behind: %v", all)
			}
		})
	}
	if code, _, errs := run(t, "", "backup"); code != ExitUsage || !strings.Contains(errs, "--out") {
		t.Errorf("without a file: exit %d: %s", code, errs)
	}
}
