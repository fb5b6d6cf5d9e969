package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// otelCollector is the OpenTelemetry Collector, which prints what it is sent.
type otelCollector struct {
	endpoint string
	output   string
}

// startCollector runs a real collector; a machine without it must not pass silently.
func (f *federation) startCollector(address int) *otelCollector {
	f.t.Helper()
	binary, err := filepath.Abs(filepath.Join("..", ".tools", "bin", "otelcol"))
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		f.t.Fatalf("no OpenTelemetry Collector: run `make tools-test`: %v", err)
	}
	c := &otelCollector{endpoint: f.at(address, 4317), output: f.path("logs", "collector.log")}
	config := f.write("collector.yaml", fmt.Sprintf(`receivers: {otlp: {protocols: {grpc: {endpoint: '%s'}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
    logs: {receivers: [otlp], exporters: [debug]}
`, c.endpoint))
	out, err := os.Create(c.output)
	if err != nil {
		f.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(binary, "--config", config)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	spawn <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	f.await("the collector", func() error {
		conn, err := net.DialTimeout("tcp", c.endpoint, answerTime)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	return c
}

// otlpSpan is a span as the collector prints it.
type otlpSpan struct{ service, trace, parent, id, kind, request string }

// wholeTrace tells whether a request left one trace, from the gateway's server span over its client span to the sidecar's, and a
// log record that names it.
func (c *otelCollector) wholeTrace(request string) error {
	text, err := os.ReadFile(c.output)
	if err != nil {
		return err
	}
	var spans []otlpSpan
	var bodies []string
	service := ""
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(line, "Span #"):
			spans = append(spans, otlpSpan{service: service})
		case key == "-> service.name":
			service = value
		case key == "Body":
			bodies = append(bodies, value)
		case len(spans) == 0:
		case key == "Trace ID":
			spans[len(spans)-1].trace = value
		case key == "Parent ID":
			spans[len(spans)-1].parent = value
		case key == "ID":
			spans[len(spans)-1].id = value
		case key == "Kind":
			spans[len(spans)-1].kind = value
		case key == "-> id":
			spans[len(spans)-1].request = value
		}
	}
	for _, in := range spans {
		if in.service != "Str(edge)" || in.kind != "Server" || in.request != "Str("+request+")" {
			continue
		}
		for _, out := range spans {
			for _, at := range spans {
				if out.service == "Str(edge)" && out.kind == "Client" && out.parent == in.id && out.trace == in.trace &&
					at.service == "Str(echo)" && at.kind == "Server" && at.parent == out.id && at.trace == in.trace {
					return anyHolds(bodies, "log of "+request+" "+in.trace)
				}
			}
		}
	}
	return fmt.Errorf("no whole trace of %s among %v", request, spans[max(0, len(spans)-9):])
}
