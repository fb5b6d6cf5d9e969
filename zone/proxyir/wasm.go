package proxyir

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

const (
	// wasmFolder holds modules, in the directory in which a proxy runs.
	wasmFolder = "wasm"
	// defaultFetchTimeout is for the answer with a module.
	defaultFetchTimeout = 10 * time.Second
)

func (b *builder) wasm(f *ir.Filters, w *meshv1.Wasm) error {
	var sum string
	out := &ir.Wasm{Configuration: w.GetConfiguration(), FailOpen: w.GetFailOpen()}
	switch v := w.GetCode().(type) {
	case *meshv1.Wasm_File:
		i := slices.IndexFunc(b.Modules, func(m string) bool { name, _, _ := strings.Cut(m, " "); return name == v.File })
		if i < 0 {
			return fmt.Errorf("wasm: no module %s was in the folder wasm of this proxy when it was started: put it there and start the proxy again", v.File)
		}
		if _, sum, _ = strings.Cut(b.Modules[i], " "); w.GetSha256() != "" && !strings.EqualFold(sum, w.GetSha256()) {
			return fmt.Errorf("wasm: module %s in the folder wasm of this proxy had the SHA-256 %s when it was started, not the one that the policy says: put the right one there and start the proxy again", v.File, sum)
		}
		out.File = wasmFolder + "/" + v.File
	case *meshv1.Wasm_Module:
		code, err := b.data(v.Module)
		if err != nil {
			return fmt.Errorf("wasm: module: %w", err)
		}
		// That of a Secret was never looked at.
		if err := resource.CheckModule(code); err != nil {
			return fmt.Errorf("wasm: module: %w", err)
		}
		if err := resource.CheckSum(code, w.GetSha256()); err != nil {
			return fmt.Errorf("wasm: module: %w", err)
		}
		out.Module = code
	case *meshv1.Wasm_Remote_:
		u, err := url.Parse(v.Remote.GetUrl())
		if err != nil {
			return fmt.Errorf("wasm: remote: %w", err)
		}
		cluster, err := b.urlCluster(u.Scheme+"://"+u.Host, v.Remote.GetCaCert(), ir.HTTP1)
		if err != nil {
			return fmt.Errorf("wasm: remote: %w", err)
		}
		out.Remote = &ir.RemoteModule{Cluster: cluster, URL: u.String(), SHA256: strings.ToLower(v.Remote.GetSha256()), Timeout: defaultFetchTimeout}
		if v.Remote.GetTimeout() != nil {
			out.Remote.Timeout = v.Remote.GetTimeout().AsDuration()
		}
	}
	out.Name = moduleName(out, sum)
	if slices.Contains(b.Refused, out.Name) {
		return errors.New("wasm: Unable to create Wasm plugin, says the proxy's Envoy: the module does not start with this configuration; its log may say why")
	}
	f.Wasm = out
	return nil
}

// moduleName tells modules apart by what they are and by their configuration; sum is that of a file.
func moduleName(w *ir.Wasm, sum string) string {
	text, err := json.Marshal([]any{sum, w})
	if err != nil {
		panic(err) // plain structs
	}
	hash := sha256.Sum256(text)
	return modulePrefix + hex.EncodeToString(hash[:8])
}

const modulePrefix = "zoneforge-"

var refusedModule = regexp.MustCompile("Unable to create Wasm plugin (" + modulePrefix + "[0-9a-f]+)")

// RefusedModules are the names of modules that an Envoy says it can't run, in what it says of the configuration that it refuses. As
// it refuses all routes of a table for one, the proxy is to be built without them.
func RefusedModules(message string) []string {
	var out []string
	for _, m := range refusedModule.FindAllStringSubmatch(message, -1) {
		out = append(out, m[1])
	}
	return out
}
