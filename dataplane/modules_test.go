package dataplane

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"go.uber.org/zap"
)

func TestModules(t *testing.T) {
	dir := t.TempDir()
	if got, err := modules(dir, zap.NewNop()); got != nil || err != nil {
		t.Errorf("without a folder: %v %v", got, err)
	}
	// The smallest module that counts: one function, exported as the mark of the ABI's version.
	name := "proxy_abi_version_0_2_0"
	tiny := append([]byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07"), byte(len(name)+4), 1, byte(len(name)))
	tiny = append(append(tiny, name...), 0, 0)
	tiny = append(tiny, "\x0a\x04\x01\x02\x00\x0b"...)
	sum := fmt.Sprintf("%x", sha256.Sum256(tiny))
	for file, content := range map[string][]byte{"b.wasm": tiny, "a.wasm": tiny, "text": []byte("no module"), "cut.wasm": tiny[:20], "a space.wasm": tiny} {
		if err := os.MkdirAll(filepath.Join(dir, ModuleFolder), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ModuleFolder, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := modules(dir, zap.NewNop()); !reflect.DeepEqual(got, []string{"a.wasm " + sum, "b.wasm " + sum}) || err != nil {
		t.Errorf("modules %v %v", got, err)
	}
}
