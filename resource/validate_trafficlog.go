package resource

import (
	"maps"
	"path"
	"slices"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// maxLogFormat bounds a format in bytes.
const maxLogFormat = 16 << 10

func validateTrafficLog(s scope, r *Resource) {
	t := Spec[*meshv1.TrafficLog](r)
	checkSelectors(s, "sources", t.GetSources())
	checkSelectors(s, "destinations", t.GetDestinations())
	c, conf := t.GetConf(), s.at("conf")
	inline := 0
	if c.GetFile() != nil {
		inline++
		checkLogPath(conf.at("file", "path"), c.GetFile().GetPath())
	}
	if c.GetTcp() != nil {
		inline++
		checkHostPort(conf.at("tcp", "address"), c.GetTcp().GetAddress())
	}
	if c.GetOpenTelemetry() != nil {
		inline++
		checkGRPCEndpoint(conf.at("openTelemetry", "endpoint"), c.GetOpenTelemetry().GetEndpoint())
	}
	switch {
	case inline > 1:
		conf.errorf("keep one of them", "file, tcp and openTelemetry exclude each other")
	case inline == 1 && c.GetBackend() != "":
		conf.at("backend").errorf("keep one of them", "a backend of the Mesh excludes one that is described here")
	case inline == 0 && c.GetFormat() != nil:
		conf.at("format").errorf("set the format of the backend in the Mesh, or add file, tcp or openTelemetry", "there is nothing that it is the format of")
	}
	checkLogFormat(conf.at("format"), c.GetFormat())
}

func checkLogging(s scope, l *meshv1.Logging) {
	var names []string
	for i, b := range l.GetBackends() {
		at := s.at("backends").index(i)
		names = checkBackendName(at, b.GetName(), names)
		checkLogFormat(at.at("format"), b.GetFormat())
		conf := at.at("conf")
		used := ""
		switch b.GetType() {
		case meshv1.Logging_TYPE_FILE:
			used = "path"
			checkLogPath(conf.at("path"), b.GetConf().GetPath())
		case meshv1.Logging_TYPE_TCP:
			used = "address"
			checkHostPort(conf.at("address"), b.GetConf().GetAddress())
		case meshv1.Logging_TYPE_OPENTELEMETRY:
			used = "endpoint"
			checkGRPCEndpoint(conf.at("endpoint"), b.GetConf().GetEndpoint())
		default:
			at.errorf("", "needs type: file, tcp or openTelemetry")
			continue
		}
		for _, f := range []struct{ name, value string }{{"path", b.GetConf().GetPath()}, {"address", b.GetConf().GetAddress()}, {"endpoint", b.GetConf().GetEndpoint()}} {
			if f.name != used && f.value != "" {
				conf.at(f.name).errorf("remove it", "a backend of this type has no %s", f.name)
			}
		}
	}
	checkNamed(s.at("defaultBackend"), l.GetDefaultBackend(), names)
}

// checkBackendName returns the names with one more.
func checkBackendName(at scope, name string, names []string) []string {
	switch {
	case !isDNSLabel(name):
		at.at("name").errorf("use lower-case letters, digits and hyphens", "%q is no name for a backend", name)
	case slices.Contains(names, name):
		at.at("name").errorf("", "backend %q is there twice", name)
	}
	return append(names, name)
}

func checkNamed(at scope, name string, names []string) {
	if name != "" && !slices.Contains(names, name) {
		at.errorf(didYouMean(name, names), "no backend is called %q", name)
	}
}

func checkLogFormat(s scope, f *meshv1.LogFormat) {
	if f == nil {
		return
	}
	switch {
	case f.GetText() != "" && len(f.GetJson()) > 0:
		s.errorf("keep one of them", "text excludes json")
	case f.GetText() == "" && len(f.GetJson()) == 0:
		s.errorf("", "needs text or json")
	}
	check := func(at scope, text string) {
		if _, err := LogPieces(text); err != nil {
			at.errorf("", "%s", err)
		}
		if len(text) > maxLogFormat {
			at.errorf("", "longer than %d bytes", maxLogFormat)
		}
	}
	check(s.at("text"), f.GetText())
	if strings.ContainsAny(strings.TrimSuffix(f.GetText(), "\n"), "\n\x00") {
		s.at("text").errorf("", "a format is one line")
	}
	for _, k := range slices.Sorted(maps.Keys(f.GetJson())) {
		check(s.at("json").key(k), f.GetJson()[k])
		if k == "" {
			s.at("json").errorf("", "a member needs a name")
		}
	}
}

func checkLogPath(s scope, p string) {
	switch {
	case p == "":
		s.errorf("", "needs the path of a file")
	case !path.IsAbs(p) || path.Clean(p) != p || p == "/":
		s.errorf("", "%q is no absolute path of a file", p)
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r >= '\x7f' || strings.ContainsRune(`;%"\\`, r) }):
		s.errorf("", "a path for logs is printable ASCII without ; %% \" and \\")
	case p != "/dev/stdout" && p != "/dev/stderr" && (strings.HasPrefix(p, "/dev/") || strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/sys/")):
		s.errorf("write /dev/stdout, /dev/stderr or the path of a file", "%q is not a file to write logs to", p)
	}
}

// checkGRPCEndpoint takes host:port, or a URL of http or https without a path.
func checkGRPCEndpoint(s scope, endpoint string) {
	if !strings.Contains(endpoint, "://") {
		checkHostPort(s, endpoint)
		return
	}
	if u := checkURL(s, endpoint); u != nil && (u.Path != "" && u.Path != "/" || u.RawQuery != "") {
		s.errorf("", "a gRPC endpoint has no path and no query")
	}
}
