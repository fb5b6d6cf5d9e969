package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

func routeWasm(r *ir.Route) (validated, error) {
	w := r.Filters.Wasm
	if w == nil {
		return nil, nil
	}
	code := &corev3.AsyncDataSource{}
	switch {
	case w.Remote != nil:
		code.Specifier = &corev3.AsyncDataSource_Remote{Remote: &corev3.RemoteDataSource{
			HttpUri: &corev3.HttpUri{
				Uri: w.Remote.URL, HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: w.Remote.Cluster}, Timeout: durationpb.New(w.Remote.Timeout),
			},
			Sha256:      w.Remote.SHA256,
			RetryPolicy: &corev3.RetryPolicy{NumRetries: wrapperspb.UInt32(remoteRetries)},
		}}
	case w.File != "":
		code.Specifier = &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: w.File}}}
	case len(w.Module) > 0:
		code.Specifier = &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: w.Module}}}
	default:
		return nil, errors.New("wasm: has no module: set file, module or remote")
	}
	// A machine that breaks does so for all that share it, so only equal modules with equal configurations do.
	sum := sha256.Sum256(fmt.Appendf(nil, "%t %s", w.FailOpen, w.Configuration))
	plugin := &wasmv3.PluginConfig{
		Name: w.Name,
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			VmId: "zoneforge:" + hex.EncodeToString(sum[:8]), Runtime: "envoy.wasm.runtime.v8", Code: code,
		}},
		// It refuses requests as FAIL_CLOSED does, but not for ever: a machine that broke at a request is replaced.
		FailurePolicy: wasmv3.FailurePolicy_FAIL_RELOAD,
	}
	if w.FailOpen {
		plugin.FailurePolicy = wasmv3.FailurePolicy_FAIL_OPEN
	}
	if w.Configuration != "" {
		configuration, err := anypb.New(wrapperspb.String(w.Configuration))
		if err != nil {
			return nil, err
		}
		plugin.Configuration = configuration
	}
	return ownChain([]namedFilter{{"envoy.filters.http.wasm", &wasmfilterv3.Wasm{Config: plugin}}})
}

// remoteRetries is how often the proxy asks again for a module; each wait is twice as long as the one before, from 1 s to 10 s.
const remoteRetries = 5
