// Package dataplane owns the launcher of Envoy beside a workload: the bootstrap, finding the right Envoy, and keeping it
// running until told to stop.
//
// It never decides what a proxy does: all configuration beyond the bootstrap comes from the zone control plane. Envoy reads
// the token from a file, so that it is in no bootstrap, command line, log or config dump.
package dataplane

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	credentialv3 "github.com/envoyproxy/go-control-plane/envoy/config/grpc_credential/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// Keys of the node's metadata by which the zone control plane knows a proxy. Their values are texts.
const (
	MetadataKind     = "zoneforge.kind"
	MetadataMesh     = "zoneforge.mesh"
	MetadataName     = "zoneforge.name"
	MetadataDocument = "zoneforge.document"
	// MetadataLogs is the file to which the zone may have Envoy write access logs for its launcher.
	MetadataLogs = "zoneforge.logs"
	// MetadataModules are the WebAssembly modules that are there, a line each with the name, a space and the SHA-256.
	MetadataModules = "zoneforge.modules"
	// MetadataVersion is the version of the launcher.
	MetadataVersion = "zoneforge.version"
)

const (
	fileCredentials    = "envoy.grpc_credentials.file_based_metadata"
	connectionsMonitor = "envoy.resource_monitors.global_downstream_max_connections"
	// A zone that vanished or stands still is noticed within keepaliveTime + keepaliveTimeout, and within keepaliveTimeout by who waits for it
	// to acknowledge something. One that lives speaks before it is asked, see package quiet, so the longer the silence, the less it has to.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 5 * time.Second
	maxSocketPath    = 107 // sun_path of Linux without its NUL
)

// MaxRecord is how long a record of TLS from a proxy to the zone may be, in bytes; gRPC allows no less. Hardly anything but the first request is
// longer, and for each connection the zone keeps a buffer of its longest record.
const MaxRecord = 1024

// systemRoots is the name by which the zone's configuration refers to the secret with SystemRoots.
const systemRoots = "system-roots"

// maxRegexProgram is how many steps a regular expression may compile to.
const maxRegexProgram = 65536

// Bootstrap is what an Envoy needs to know before it meets its zone control plane.
type Bootstrap struct {
	// Kind is "Dataplane" or "ZoneIngress".
	Kind string
	// Mesh is empty for a zone ingress.
	Mesh string
	Name string
	// Service names the cluster of Envoy's node.
	Service string
	// Document is the resource of that kind, as JSON.
	Document []byte

	// ControlPlanes are host:port of the zone's xDS: one, whose host may be a name that leads to several replicas, or several of IP
	// addresses of one family, one a replica.
	ControlPlanes []string
	// CAFile holds PEM of the roots that prove the control plane.
	CAFile string
	// ServerName is the name in the control plane's certificate where it isn't the host of the only one of ControlPlanes. With several it
	// is the name that those of zones have in common, unless it is given.
	ServerName string
	// TokenFile is read by Envoy for each stream, so a renewed token needs no restart.
	TokenFile string
	// SystemRoots is a file with PEM of the roots that prove servers outside the mesh; empty where the machine has none.
	SystemRoots string
	// Modules are the WebAssembly modules in the folder ModuleFolder beside the bootstrap: name, a space, SHA-256.
	Modules []string
	// AdminSocket is where Envoy's admin interface listens, a path of at most 107 bytes; only the owner may open it.
	AdminSocket string
	// Logs is the file that a launcher reads access logs from; empty where none does.
	Logs string
	// Version of the launcher; may be empty.
	Version string
	// MaxConnections bounds the connections of clients to all listeners; 0 sets no bound.
	MaxConnections uint32
}

// NodeID is the identifier of the proxy's node: kind/mesh/name, or kind/name without a mesh.
func (b Bootstrap) NodeID() string {
	if b.Mesh == "" {
		return b.Kind + "/" + b.Name
	}
	return b.Kind + "/" + b.Mesh + "/" + b.Name
}

// JSON is the bootstrap as Envoy reads it. Equal bootstraps give equal bytes. The error holds all that is wrong.
func (b Bootstrap) JSON() ([]byte, error) {
	if err := b.validate(); err != nil {
		return nil, err
	}
	var document bytes.Buffer
	if err := json.Compact(&document, b.Document); err != nil {
		return nil, fmt.Errorf("bootstrap of %s: document: %w", b.NodeID(), err)
	}
	ads, err := b.ads()
	if err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", b.NodeID(), err)
	}
	// Without a timeout Envoy is ready only when it has been configured, not when it has given up waiting.
	source := &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		InitialFetchTimeout:   durationpb.New(0),
	}
	message := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{
			Id:      b.NodeID(),
			Cluster: b.Service,
			Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
				MetadataKind:     structpb.NewStringValue(b.Kind),
				MetadataMesh:     structpb.NewStringValue(b.Mesh),
				MetadataName:     structpb.NewStringValue(b.Name),
				MetadataDocument: structpb.NewStringValue(document.String()),
			}},
		},
		Admin: &bootstrapv3.Admin{Address: &corev3.Address{Address: &corev3.Address_Pipe{
			Pipe: &corev3.Pipe{Path: b.AdminSocket, Mode: 0o600},
		}}, IgnoreGlobalConnLimit: true},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: ads,
			LdsConfig: source,
			CdsConfig: source,
		},
		// A gateway holds clusters for services that it may never be asked for; their counters are made at first use.
		DeferredStatOptions: &bootstrapv3.Bootstrap_DeferredStatOptions{EnableDeferredCreationStats: true},
		// Envoy's own bound of a regular expression, a program of 100 steps, is too small for the names of some services, let alone
		// for routes; package resource has a bound far below this one. An empty admin layer lets an operator change runtime keys through the admin socket.
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "static",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				"re2.max_program_size.error_level": structpb.NewNumberValue(maxRegexProgram),
				"re2.max_program_size.warn_level":  structpb.NewNumberValue(maxRegexProgram),
			}}},
		}, {
			Name:           "admin",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}},
		}}},
	}
	if b.SystemRoots != "" {
		message.StaticResources = &bootstrapv3.Bootstrap_StaticResources{Secrets: []*tlsv3.Secret{{
			Name: systemRoots,
			Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: b.SystemRoots}},
			}},
		}}}
	}
	if b.MaxConnections > 0 {
		limit, err := anypb.New(&connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: int64(b.MaxConnections)})
		if err != nil {
			return nil, fmt.Errorf("bootstrap of %s: %w", b.NodeID(), err)
		}
		message.OverloadManager = &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{{
			Name: connectionsMonitor, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: limit},
		}}}
	}
	if len(b.Modules) > 0 {
		message.Node.Metadata.Fields[MetadataModules] = structpb.NewStringValue(strings.Join(b.Modules, "\n"))
	}
	if b.Version != "" {
		message.Node.Metadata.Fields[MetadataVersion] = structpb.NewStringValue(b.Version)
	}
	if b.Logs != "" {
		message.Node.Metadata.Fields[MetadataLogs] = structpb.NewStringValue(b.Logs)
	}
	if err := message.ValidateAll(); err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", b.NodeID(), err)
	}
	raw, err := protojson.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", b.NodeID(), err)
	}
	// protojson varies its spacing on purpose; indenting sets it.
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", b.NodeID(), err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func (b Bootstrap) ads() (*corev3.ApiConfigSource, error) {
	token, err := anypb.New(&credentialv3.FileBasedMetadataConfig{
		SecretData:   &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: b.TokenFile}},
		HeaderKey:    "authorization",
		HeaderPrefix: "Bearer ",
	})
	if err != nil {
		return nil, fmt.Errorf("token credentials: %w", err)
	}
	args := map[string]*corev3.GrpcService_GoogleGrpc_ChannelArgs_Value{
		"grpc.keepalive_time_ms":              integer(keepaliveTime.Milliseconds()),
		"grpc.keepalive_timeout_ms":           integer(keepaliveTimeout.Milliseconds()),
		"grpc.http2.ping_timeout_ms":          integer(keepaliveTimeout.Milliseconds()), // without it a zone that stands still, whose kernel answers, is noticed after a minute
		"grpc.http2.max_pings_without_data":   integer(0),
		"grpc.max_receive_message_length":     integer(-1),
		"grpc.tsi.max_frame_size":             integer(MaxRecord),
		"grpc.initial_reconnect_backoff_ms":   integer(200),
		"grpc.min_reconnect_backoff_ms":       integer(1000),
		"grpc.max_reconnect_backoff_ms":       integer(5000),
		"grpc.keepalive_permit_without_calls": integer(0),
	}
	target, name := b.target()
	if target.shuffled {
		args["grpc.service_config"] = text(shuffled)
	}
	if name != "" {
		args["grpc.ssl_target_name_override"] = text(name)
	}
	// Google's client, not a cluster, carries the stream: no listener can be routed to a cluster that isn't there, and its
	// credentials take the token from a file.
	grpc := &corev3.GrpcService_GoogleGrpc{
		TargetUri:  target.uri,
		StatPrefix: "zone",
		ChannelCredentials: &corev3.GrpcService_GoogleGrpc_ChannelCredentials{
			CredentialSpecifier: &corev3.GrpcService_GoogleGrpc_ChannelCredentials_SslCredentials{
				SslCredentials: &corev3.GrpcService_GoogleGrpc_SslCredentials{
					RootCerts: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: b.CAFile}},
				},
			},
		},
		CallCredentials: []*corev3.GrpcService_GoogleGrpc_CallCredentials{{
			CredentialSpecifier: &corev3.GrpcService_GoogleGrpc_CallCredentials_FromPlugin{
				FromPlugin: &corev3.GrpcService_GoogleGrpc_CallCredentials_MetadataCredentialsFromPlugin{
					Name: fileCredentials,
					ConfigType: &corev3.GrpcService_GoogleGrpc_CallCredentials_MetadataCredentialsFromPlugin_TypedConfig{
						TypedConfig: token,
					},
				},
			},
		}},
		CredentialsFactoryName: fileCredentials,
		ChannelArgs:            &corev3.GrpcService_GoogleGrpc_ChannelArgs{Args: args},
	}
	return &corev3.ApiConfigSource{
		ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
		TransportApiVersion:       corev3.ApiVersion_V3,
		SetNodeOnFirstMessageOnly: true,
		GrpcServices: []*corev3.GrpcService{{
			TargetSpecifier: &corev3.GrpcService_GoogleGrpc_{GoogleGrpc: grpc},
		}},
	}, nil
}

func (b Bootstrap) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case b.Kind == "Dataplane" && b.Mesh == "":
		bad("mesh is empty; a Dataplane belongs to a mesh")
	case b.Kind == "ZoneIngress" && b.Mesh != "":
		bad("mesh is %q; a ZoneIngress serves all meshes, leave it empty", b.Mesh)
	case b.Kind != "Dataplane" && b.Kind != "ZoneIngress":
		bad("kind is %q; it must be Dataplane or ZoneIngress", b.Kind)
	}
	if b.Name == "" {
		bad("name is empty; name the proxy")
	}
	if b.Service == "" {
		bad("service is empty; set it to the first service of the proxy")
	}
	if !json.Valid(b.Document) {
		bad("document is not JSON")
	}
	if err := checkControlPlanes(b.ControlPlanes); err != nil {
		bad("%w", err)
	}
	// Envoy resolves paths against its own working directory, so all must be absolute.
	for _, f := range []struct{ what, path string }{
		{"CA file", b.CAFile}, {"token file", b.TokenFile}, {"admin socket", b.AdminSocket},
	} {
		if !filepath.IsAbs(f.path) {
			bad("%s %q is not an absolute path", f.what, f.path)
		}
	}
	if len(b.AdminSocket) > maxSocketPath {
		bad("admin socket %q is longer than %d bytes; use a shorter directory", b.AdminSocket, maxSocketPath)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("bootstrap of %s: %w", b.NodeID(), err)
	}
	return nil
}

func integer(n int64) *corev3.GrpcService_GoogleGrpc_ChannelArgs_Value {
	return &corev3.GrpcService_GoogleGrpc_ChannelArgs_Value{
		ValueSpecifier: &corev3.GrpcService_GoogleGrpc_ChannelArgs_Value_IntValue{IntValue: n},
	}
}
