package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// EnvoyVersion is the series of Envoy that is tested: any 1.40.x.
const EnvoyVersion = "1.40"

// ErrEnvoy says that no Envoy of the tested version was found.
var ErrEnvoy = errors.New("no usable Envoy")

// "/path/envoy  version: 9e55809/1.40.0/Clean/RELEASE/BoringSSL"
var versionLine = regexp.MustCompile(`version: [^/\s]*/(\d+\.\d+)\.(\d+[^/\s]*)/`)

// Envoy is an Envoy that can be run.
type Envoy struct {
	// Path is absolute.
	Path string
	// Version is such as "1.40.0".
	Version string
}

// Locate finds an Envoy: the one at explicit, if set, and no other; else .tools/bin/envoy in the working directory, beside
// the program or in the folder above it; else the one on PATH. It runs the first that exists with --version. The error
// wraps ErrEnvoy.
func Locate(ctx context.Context, explicit string) (Envoy, error) {
	if explicit != "" {
		return check(ctx, explicit)
	}
	var folders []string
	if wd, err := os.Getwd(); err == nil {
		folders = append(folders, wd)
	}
	if program, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(program); err == nil {
			program = real
		}
		folders = append(folders, filepath.Dir(program), filepath.Dir(filepath.Dir(program)))
	}
	for _, folder := range folders {
		path := filepath.Join(folder, ".tools", "bin", "envoy")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return check(ctx, path)
		}
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		return Envoy{}, fmt.Errorf("%w: it is neither in .tools/bin of %s nor on PATH; install it with `make tools` or name it with --envoy",
			ErrEnvoy, strings.Join(folders, ", "))
	}
	return check(ctx, path)
}

func check(ctx context.Context, path string) (Envoy, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Envoy{}, fmt.Errorf("%w: %s: %w", ErrEnvoy, path, err)
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return Envoy{}, fmt.Errorf("%w: %s --version: %w; install Envoy with `make tools` or name it with --envoy", ErrEnvoy, path, err)
	}
	found := versionLine.FindSubmatch(out)
	if found == nil {
		return Envoy{}, fmt.Errorf("%w: %s --version does not answer like Envoy; install it with `make tools` or name it with --envoy", ErrEnvoy, path)
	}
	version := string(found[1]) + "." + string(found[2])
	if string(found[1]) != EnvoyVersion {
		return Envoy{}, fmt.Errorf("%w: %s is %s, but %s.x is what is tested; install it with `make tools` or name it with --envoy",
			ErrEnvoy, path, version, EnvoyVersion)
	}
	return Envoy{Path: path, Version: version}, nil
}
