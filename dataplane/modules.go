package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/resource"
)

// ModuleFolder holds WebAssembly modules, in the directory in which Envoy runs.
const ModuleFolder = "wasm"

// maxModules bounds how many of them the zone is told of.
const maxModules = 100

// modules lists the modules that are there, by name. The zone is told of no other, as an Envoy that is told to load what isn't there, or
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
		if err == nil {
			err = resource.CheckModule(code)
		}
		switch {
		case err != nil:
			log.Warn("file is no module that Envoy could load", zap.String("file", path), zap.Error(err))
		case len(out) == maxModules:
			log.Warn("there are too many modules; this one can't be used", zap.String("file", path), zap.Int("most", maxModules))
		default:
			out = append(out, e.Name())
		}
	}
	return out, nil
}
