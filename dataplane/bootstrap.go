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
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
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
	typeCredentials    = "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig"
	connectionsMonitor = "envoy.resource_monitors.global_downstream_max_connections"
	typeConnections    = "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
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

// object is one of JSON. A message of Envoy's would make the descriptors of all that it may hold, a megabyte that stays for as long as the
// launcher does; that this says the same is for the tests.
type object map[string]any

// JSON is the bootstrap as Envoy reads it. Equal bootstraps give equal bytes. The error holds all that is wrong.
func (b Bootstrap) JSON() ([]byte, error) {
	if err := b.validate(); err != nil {
		return nil, err
	}
	var document bytes.Buffer
	if err := json.Compact(&document, b.Document); err != nil {
		return nil, fmt.Errorf("bootstrap of %s: document: %w", b.NodeID(), err)
	}
	metadata := object{MetadataKind: b.Kind, MetadataMesh: b.Mesh, MetadataName: b.Name, MetadataDocument: document.String()}
	if len(b.Modules) > 0 {
		metadata[MetadataModules] = strings.Join(b.Modules, "\n")
	}
	if b.Version != "" {
		metadata[MetadataVersion] = b.Version
	}
	if b.Logs != "" {
		metadata[MetadataLogs] = b.Logs
	}
	// Without a timeout Envoy is ready only when it has been configured, not when it has given up waiting.
	source := object{"ads": object{}, "initialFetchTimeout": "0s", "resourceApiVersion": "V3"}
	bootstrap := object{
		"node": object{"id": b.NodeID(), "cluster": b.Service, "metadata": metadata},
		"admin": object{
			"address":               object{"pipe": object{"path": b.AdminSocket, "mode": 0o600}},
			"ignoreGlobalConnLimit": true,
		},
		"dynamicResources": object{"adsConfig": b.ads(), "ldsConfig": source, "cdsConfig": source},
		// A gateway holds clusters for services that it may never be asked for; their counters are made at first use.
		"deferredStatOptions": object{"enableDeferredCreationStats": true},
		// Envoy's own bound of a regular expression, a program of 100 steps, is too small for the names of some services, let alone
		// for routes; package resource has a bound far below this one. An empty admin layer lets an operator change runtime keys through the admin socket.
		"layeredRuntime": object{"layers": []object{
			{"name": "static", "staticLayer": object{
				"re2.max_program_size.error_level": maxRegexProgram,
				"re2.max_program_size.warn_level":  maxRegexProgram,
			}},
			{"name": "admin", "adminLayer": object{}},
		}},
	}
	if b.SystemRoots != "" {
		bootstrap["staticResources"] = object{"secrets": []object{{
			"name": systemRoots, "validationContext": object{"trustedCa": object{"filename": b.SystemRoots}},
		}}}
	}
	if b.MaxConnections > 0 {
		bootstrap["overloadManager"] = object{"resourceMonitors": []object{{
			"name":        connectionsMonitor,
			"typedConfig": object{"@type": typeConnections, "maxActiveDownstreamConnections": integer(int64(b.MaxConnections))},
		}}}
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(bootstrap); err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", b.NodeID(), err)
	}
	return out.Bytes(), nil
}

// ads is an Envoy ApiConfigSource.
func (b Bootstrap) ads() object {
	number := func(n int64) object { return object{"intValue": integer(n)} }
	args := object{
		"grpc.keepalive_time_ms":              number(keepaliveTime.Milliseconds()),
		"grpc.keepalive_timeout_ms":           number(keepaliveTimeout.Milliseconds()),
		"grpc.http2.ping_timeout_ms":          number(keepaliveTimeout.Milliseconds()), // without it a zone that stands still, whose kernel answers, is noticed after a minute
		"grpc.http2.max_pings_without_data":   number(0),
		"grpc.max_receive_message_length":     number(-1),
		"grpc.tsi.max_frame_size":             number(MaxRecord),
		"grpc.initial_reconnect_backoff_ms":   number(200),
		"grpc.min_reconnect_backoff_ms":       number(1000),
		"grpc.max_reconnect_backoff_ms":       number(5000),
		"grpc.keepalive_permit_without_calls": number(0),
	}
	target, name := b.target()
	if target.shuffled {
		args["grpc.service_config"] = object{"stringValue": shuffled}
	}
	if name != "" {
		args["grpc.ssl_target_name_override"] = object{"stringValue": name}
	}
	// Google's client, not a cluster, carries the stream: no listener can be routed to a cluster that isn't there, and its
	// credentials take the token from a file.
	grpc := object{
		"targetUri":          target.uri,
		"statPrefix":         "zone",
		"channelCredentials": object{"sslCredentials": object{"rootCerts": object{"filename": b.CAFile}}},
		"callCredentials": []object{{"fromPlugin": object{
			"name": fileCredentials,
			"typedConfig": object{
				"@type":        typeCredentials,
				"secretData":   object{"filename": b.TokenFile},
				"headerKey":    "authorization",
				"headerPrefix": "Bearer ",
			},
		}}},
		"credentialsFactoryName": fileCredentials,
		"channelArgs":            object{"args": args},
	}
	return object{
		"apiType":                   "DELTA_GRPC",
		"transportApiVersion":       "V3",
		"setNodeOnFirstMessageOnly": true,
		"grpcServices":              []object{{"googleGrpc": grpc}},
	}
}

// integer is one of 64 bits, for which the JSON of Protobuf has a text.
func integer(n int64) string { return strconv.FormatInt(n, 10) }

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
	texts := slices.Concat(b.ControlPlanes, b.Modules, []string{
		b.Mesh, b.Name, b.Service, b.CAFile, b.ServerName, b.TokenFile, b.SystemRoots, b.AdminSocket, b.Logs, b.Version,
	})
	for _, text := range texts {
		if !utf8.ValidString(text) {
			bad("%q is not UTF-8, which a bootstrap is", text)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("bootstrap of %s: %w", b.NodeID(), err)
	}
	return nil
}
