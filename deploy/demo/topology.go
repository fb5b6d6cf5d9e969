package demo

import (
	"fmt"
	"strconv"
)

// The workloads' mesh and services; the policies beside this file say what goes where.
const (
	mesh     = "default"
	edge     = "edge"
	edgePort = 18080
)

// MaxZones is how many zones the demo has names for.
const MaxZones = 8

var zoneNames = [MaxZones]string{"east", "west", "north", "south", "alpha", "beta", "gamma", "delta"}

// workload is one process with a sidecar.
type workload struct {
	name    string
	service string
	version string
	// host is the address of the sidecar; workloads of one zone have one each, as if they were machines.
	host string
}

const (
	inboundPort  = 15006
	workloadPort = 8080
	ingressPort  = 10001
	xdsPort      = 5678
	zoneRESTPort = 5683
)

// site is one zone: its addresses and what runs there. Each zone has its own network below the demo's, on loopback, so
// that every process has the port that it has in production.
type site struct {
	name      string
	network   string // such as 127.0.1
	workloads []workload
}

func (s site) host(n int) string    { return s.network + "." + strconv.Itoa(n) }
func (s site) controlPlane() string { return s.host(1) }
func (s site) gateway() string      { return s.host(10) }
func (s site) ingress() string      { return s.host(20) }
func (s site) url(path string) string {
	return fmt.Sprintf("http://%s:%d%s", s.gateway(), edgePort, path)
}

// plan lays the zones out: echo in two versions everywhere, private in the first zone, backend in the second.
func plan(network string, zones int) []site {
	var sites []site
	for i := range zones {
		s := site{name: zoneNames[i], network: fmt.Sprintf("%s.%d", network, i+1)}
		add := func(service, version string) {
			name := service
			if version != "" {
				name += "-" + version
			}
			s.workloads = append(s.workloads, workload{name: name, service: service, version: version, host: s.host(30 + len(s.workloads))})
		}
		add("echo", "v1")
		add("echo", "v2")
		switch i {
		case 0:
			add("private", "")
		case 1:
			add("backend", "")
		}
		sites = append(sites, s)
	}
	return sites
}

// dataplane is the document of a workload's sidecar.
func (w workload) dataplane() string {
	version := ""
	if w.version != "" {
		version = "\n        version: " + w.version
	}
	return fmt.Sprintf(`type: Dataplane
mesh: %s
name: %s
networking:
  address: %s
  inbound:
    - port: %d
      servicePort: %d
      serviceAddress: %s
      tags:
        kuma.io/service: %s
        kuma.io/protocol: http%s
`, mesh, w.name, w.host, inboundPort, workloadPort, w.host, w.service, version)
}

func (s site) gatewayDataplane() string {
	return fmt.Sprintf(`type: Dataplane
mesh: %s
name: %s
networking:
  address: %s
  gateway:
    type: BUILTIN
    tags:
      kuma.io/service: %s
`, mesh, edge, s.gateway(), edge)
}

func (s site) zoneIngress() string {
	return fmt.Sprintf(`type: ZoneIngress
name: ingress
networking:
  address: %s
  port: %d
`, s.ingress(), ingressPort)
}
