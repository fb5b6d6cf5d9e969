package dataplane

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/resource"
)

// ModuleFolder holds WebAssembly modules, in the directory in which Envoy runs.
const ModuleFolder = "wasm"

// maxModules bounds how many of them the zone is told of.
const maxModules = 100

// modules lists the modules that are there, by name, each with its SHA-256 behind it. The zone is told of no other, as an Envoy that is told to load what isn't there, or
// is no module, refuses all routes of a listener. What can't be used is logged.
func modules(dir string, log *zap.Logger) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, ModuleFolder)) // sorted
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	var out []string
	for _, e := range entries {
		path := filepath.Join(dir, ModuleFolder, e.Name())
		code, err := os.ReadFile(path)
		if err == nil && strings.ContainsAny(e.Name(), " \n") {
			err = errors.New("no policy can say a name with a space or a line break")
		}
		if err == nil {
			err = resource.CheckModule(code)
		}
		switch {
		case err != nil:
			log.Warn("file is no module that Envoy could load", zap.String("file", path), zap.Error(err))
		case len(out) == maxModules:
			log.Warn("there are too many modules; this one can't be used", zap.String("file", path), zap.Int("most", maxModules))
		default:
			sum := sha256.Sum256(code)
			out = append(out, e.Name()+" "+hex.EncodeToString(sum[:]))
		}
	}
	return out, nil
}
