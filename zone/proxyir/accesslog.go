package proxyir

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Formats of lines where nobody gives one. They hold no header that may carry a secret, and no query.
const (
	defaultHTTPLog = `[%START_TIME%] %KUMA_MESH% "%REQ(:METHOD)% %PATH(NQ)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% ` +
		`%BYTES_SENT% %DURATION% "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%KUMA_SOURCE_SERVICE%" ` +
		`"%KUMA_DESTINATION_SERVICE%" "%KUMA_SOURCE_ADDRESS_WITHOUT_PORT%" "%UPSTREAM_HOST%"`
	defaultTCPLog = `[%START_TIME%] %RESPONSE_FLAGS% %KUMA_MESH% %KUMA_SOURCE_ADDRESS_WITHOUT_PORT%(%KUMA_SOURCE_SERVICE%)->` +
		`%UPSTREAM_HOST%(%KUMA_DESTINATION_SERVICE%) took %DURATION%ms, sent %BYTES_SENT% bytes, received: %BYTES_RECEIVED% bytes`
)

// anyDestination stands for the destination of what the proxy answers itself.
var anyDestination = map[string]string{resource.TagService: resource.AnyValue}

// accessLogs writes what TrafficLogs ask for: at the outbounds of a sidecar and the listeners of a gateway. The connections of HTTP
// carry each log that their routes may ever ask for, so that what is logged changes with routes alone.
func (b *builder) accessLogs() {
	if b.Policies["TrafficLog"].Len() == 0 {
		return
	}
	logs, failed := b.possibleLogs()
	b.personal = b.personal || len(logs)+len(failed) > 0
	tables := map[string]*ir.RouteConfig{}
	for i := range b.proxy.Routes {
		tables[b.proxy.Routes[i].Name] = &b.proxy.Routes[i]
	}
	for i := range b.proxy.Listeners {
		l := &b.proxy.Listeners[i]
		if l.Direction != ir.Outbound && l.Direction != ir.Edge {
			continue
		}
		for n := range l.Chains {
			c := &l.Chains[n]
			switch {
			case c.HTTP != nil:
				c.HTTP.Logs = b.formatted(logs, defaultHTTPLog, "%METADATA(ROUTE:"+ir.LogMetadata+":"+ir.LogDestination+")%")
				if table := tables[c.HTTP.RouteConfig]; table != nil {
					b.logRoutes(table, logs, failed)
				}
			case c.TCP != nil:
				to := l.Tags
				if l.Direction == ir.Edge {
					to = b.tagsOf(c.TCP.Clusters)
				}
				if name := b.logFor(to, failed); name != "" {
					c.TCP.Logs = b.formatted(logs[slices.IndexFunc(logs, func(l namedLog) bool { return l.Name == name }):][:1], defaultTCPLog,
						escapeLog(to[resource.TagService]))
				}
			}
		}
	}
}

func (b *builder) logRoutes(table *ir.RouteConfig, logs []namedLog, failed map[string]error) {
	for h := range table.VirtualHosts {
		for r := range table.VirtualHosts[h].Routes {
			route := &table.VirtualHosts[h].Routes[r]
			to := anyDestination
			if route.Forward != nil {
				to = b.tagsOf(route.Forward.Clusters)
			}
			if name := b.logFor(to, failed); name != "" {
				destination := to[resource.TagService]
				if destination == resource.AnyValue {
					destination = ""
				}
				route.Log = &ir.RouteLog{Names: []string{name}, Destination: cmp.Or(destination, "-")}
			}
		}
	}
}

// tagsOf are the tags of the first of clusters that is a service.
func (b *builder) tagsOf(clusters []ir.WeightedCluster) map[string]string {
	for _, c := range clusters {
		if tags, ok := b.external[c.Cluster]; ok {
			return tags
		}
		if d, ok := b.destinations[c.Cluster]; ok {
			tags := map[string]string{}
			maps.Copy(tags, d.Subset)
			tags[resource.TagService] = d.Service
			return tags
		}
	}
	return anyDestination
}

// logFor is the name of the log for a destination; empty for none, or where it can't be used, which is reported.
func (b *builder) logFor(to map[string]string, failed map[string]error) string {
	r := b.connection("TrafficLog", to)
	if r == nil {
		return ""
	}
	spec, ok := r.Spec.(*meshv1.TrafficLog)
	if !ok {
		return ""
	}
	name := b.logName(r.Name, spec)
	if err := failed[name]; err != nil {
		b.reject(r.Key, len(b.order), err)
		return ""
	}
	b.use(r, "access logs of requests to %s", tagsText(to))
	return name
}

func (b *builder) logName(policy string, spec *meshv1.TrafficLog) string {
	c := spec.GetConf()
	if c.GetFile() != nil || c.GetTcp() != nil || c.GetOpenTelemetry() != nil {
		return "policy/" + policy
	}
	return "backend/" + cmp.Or(c.GetBackend(), b.Mesh.GetLogging().GetDefaultBackend())
}

// namedLog is a log before its format is that of a listener.
type namedLog struct {
	ir.AccessLog
	format *meshv1.LogFormat
}

// possibleLogs are those that the policies for this client may name: the backends of the mesh, of those that need a cluster only
// the ones that a policy names, and what policies describe themselves. failed says why others can't be used.
func (b *builder) possibleLogs() (logs []namedLog, failed map[string]error) {
	failed = map[string]error{}
	add := func(name string, format *meshv1.LogFormat, file, tcp, otlp string) {
		l := namedLog{AccessLog: ir.AccessLog{Name: name}, format: format}
		switch {
		case otlp != "":
			to, err := b.grpcCollector(otlp)
			if err != nil {
				failed[name] = err
				return
			}
			l.Cluster, l.Authority = to.Cluster, to.Host
			l.Resource = []ir.Header{{Name: "service.name", Value: b.source[resource.TagService]}, {Name: "service.namespace", Value: b.MeshName},
				{Name: "service.instance.id", Value: b.Name}, {Name: "zone", Value: b.Zone}}
		case b.LogPipe == "":
			failed[name] = fmt.Errorf("the launcher of proxy %s forwards no logs: start it with zoneforge dataplane run of this version", b.Name)
			return
		case file != "":
			l.Pipe, l.To = b.LogPipe, "file;"+file
		default:
			l.Pipe, l.To = b.LogPipe, "tcp;"+tcp
		}
		logs = append(logs, l)
	}
	named := map[string]bool{}
	for _, r := range b.Policies["TrafficLog"].From(b.source) {
		spec, ok := r.Spec.(*meshv1.TrafficLog)
		if !ok || r.Mesh != b.MeshName {
			continue
		}
		if _, ok := policy.Best(spec.GetSources(), b.source); !ok {
			continue
		}
		name := b.logName(r.Name, spec)
		if named[name] {
			continue
		}
		named[name] = true
		if c := spec.GetConf(); strings.HasPrefix(name, "policy/") {
			add(name, c.GetFormat(), c.GetFile().GetPath(), c.GetTcp().GetAddress(), c.GetOpenTelemetry().GetEndpoint())
		} else {
			failed[name] = fmt.Errorf("the Mesh has no backend %q for logs: add it to logging.backends, or name another", strings.TrimPrefix(name, "backend/"))
			if name == "backend/" {
				failed[name] = fmt.Errorf("names no backend, and the Mesh has no logging.defaultBackend: set one of them")
			}
		}
	}
	for _, backend := range b.Mesh.GetLogging().GetBackends() {
		name := "backend/" + backend.GetName()
		delete(failed, name)
		if c := backend.GetConf(); named[name] || c.GetEndpoint() == "" {
			add(name, backend.GetFormat(), c.GetPath(), c.GetAddress(), c.GetEndpoint())
		}
	}
	slices.SortFunc(logs, func(x, y namedLog) int { return cmp.Compare(x.Name, y.Name) })
	return logs, failed
}

// formatted gives logs the formats that they have at a listener, where the mesh's own commands are replaced.
func (b *builder) formatted(logs []namedLog, standard, destination string) []ir.AccessLog {
	var out []ir.AccessLog
	for _, l := range logs {
		one := l.AccessLog
		if len(l.format.GetJson()) > 0 {
			for _, name := range slices.Sorted(maps.Keys(l.format.GetJson())) {
				one.JSON = append(one.JSON, ir.Header{Name: name, Value: b.logText(l.format.GetJson()[name], destination)})
			}
		} else {
			one.Text = b.logText(strings.TrimSuffix(cmp.Or(l.format.GetText(), standard), "\n"), destination)
		}
		out = append(out, one)
	}
	return out
}

func (b *builder) logText(format, destination string) string {
	pieces, err := resource.LogPieces(format)
	if err != nil {
		return escapeLog(format) // validation refused it
	}
	// The port of a sidecar's client is nobody's who could be found by it; Kuma writes 0.
	own, _ := netip.ParseAddr(b.Dataplane.GetNetworking().GetAddress())
	address, withPort := own.String(), netip.AddrPortFrom(own, 0).String()
	if b.proxy.Kind == ir.Gateway {
		address, withPort = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_REMOTE_ADDRESS%"
	}
	values := map[string]string{
		resource.LogMesh: escapeLog(b.MeshName), resource.LogZone: escapeLog(b.Zone), resource.LogTrafficDirection: "OUTBOUND",
		resource.LogSourceService: escapeLog(b.source[resource.TagService]), resource.LogDestinationService: destination,
		resource.LogSourceAddress: withPort, resource.LogSourceAddressWithoutPort: address,
	}
	var out strings.Builder
	for _, p := range pieces {
		if value, ok := values[p.Command]; ok && p.Command != "" {
			out.WriteString(value)
		} else {
			out.WriteString(p.Text)
		}
	}
	return out.String()
}

// escapeLog makes a text that stands for itself in a format.
func escapeLog(text string) string { return strings.ReplaceAll(text, "%", "%%") }
