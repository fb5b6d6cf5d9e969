package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/e2e/history"
)

// tenant is the mesh beside default in the ordeal: with the same names, and nothing in common but zones and ingresses. Its routes stay of
// one generation.
const (
	tenant           = "tenant"
	tenantGeneration = 1_000_000
	// So many proxies are in each zone in calm.
	inEast, inWest = 4, 4
)

// proxiesOf are those whose configuration is looked at, with their meshes.
var proxiesOf = []struct{ name, mesh string }{
	{"edge", "default"}, {"near-east", "default"}, {"near-west", "default"}, {"far", "default"},
	{"tenant-edge", tenant}, {"tenant-near", tenant}, {"tenant-far", tenant},
}

// tenantPaths are those of its routes.
var tenantPaths = []string{"/near", "/far"}

// populateTenant gives the tenant a gateway and the service near in east, and the service far in west.
func (o *ordeal) populateTenant() {
	o.t.Helper()
	moved := func(document string) string {
		return strings.Replace(strings.Replace(document, "mesh: default", "mesh: "+tenant, 1), "type: Mesh\nname: default", "type: Mesh\nname: "+tenant, 1)
	}
	o.apply(moved(strictMesh), moved(edgeGateway), permit(tenant, "all", "*", "*", "ALLOW"), moved(route("near", "near", tenantGeneration)),
		moved(route("far", "far", tenantGeneration)))
	for host, name := range map[int]string{51: "tenant-near", 52: "tenant-far"} {
		o.workload(o.at(host, 8080), name, nil)
	}
	token := func(service string) string {
		return o.token("tenant-"+service, "dataplane", "--mesh", tenant, "--service", service)
	}
	o.startProxy("east", 2, "tenant-near", sidecarDocument(tenant, "near-east", o.host(51), inboundOf("near", "http", o.host(51), 8080, "")), token("near"))
	o.startProxy("west", 3, "tenant-far", sidecarDocument(tenant, "far", o.host(52), inboundOf("far", "http", o.host(52), 8080, "")), token("far"))
	o.startProxy("east", 2, "tenant-edge", gatewayDocument(tenant, "edge", o.host(11)), token("edge"))
	client := newClient(o.t)
	for _, path := range tenantPaths {
		o.answers(client, http.StatusOK, "GET", "http://"+o.at(11, 8080)+path)
	}
}

// requestTenant sends requests through the gateway of the tenant, of which no backend is ever killed.
func (o *ordeal) requestTenant() {
	client := &http.Client{Timeout: answerTime, Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	const name = "sender of the tenant"
	answered := 0
	defer func() { o.h.Asked(history.Request{By: name, Count: answered}) }()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for n := 0; ; n++ {
		select {
		case <-o.stop:
			return
		case <-pace.C:
		}
		path := tenantPaths[n%len(tenantPaths)]
		r, a, err := ask(client, http.MethodGet, "http://"+o.at(11, 8080)+path)
		if err != nil || r.StatusCode != http.StatusOK {
			lost := fmt.Sprintf("%s: %v", path, err)
			if err == nil {
				lost = fmt.Sprintf("%s: %d %q %v", path, r.StatusCode, a.Text, r.Header)
			}
			o.h.Asked(history.Request{By: name, Count: 1, Lost: lost})
			continue
		}
		answered++
		generation, _ := strconv.Atoi(a.Header.Get("X-Generation")) // none is 0
		o.ownsAnswer(tenant, generation, a.Workload)
	}
}

func (o *ordeal) owns(by, mesh string, what ...string) {
	for _, w := range what {
		o.h.Owns(history.Owned{By: by, Mesh: mesh, What: w})
	}
}

// ownsAnswer records which route and which workload a request to a mesh's gateway met.
func (o *ordeal) ownsAnswer(mesh string, generation int, workload string) {
	o.owns("a request", mesh, fmt.Sprint("generation ", generation), "workload "+workload)
}

// ownsQueries records what a zone's answers about each mesh speak of. A zone that doesn't answer tells nothing.
func (o *ordeal) ownsQueries(replica int, zone string) {
	for _, mesh := range []string{"default", tenant} {
		code, text, err := o.restAt(replicaHost(replica), http.MethodGet, "/v1/zones/"+zone+"/dataplanes?mesh="+mesh, nil)
		if err == nil && code == http.StatusOK {
			o.owns("an answer of "+zone, mesh, o.mentioned(string(text))...)
		}
	}
}

// ownsDump records what the configuration of an Envoy, and its certificates, hold.
func (o *ordeal) ownsDump(proxy, mesh string) error {
	for _, path := range []string{"/config_dump?include_eds", "/certs"} {
		text, err := adminGet(o.path("run", proxy, "admin.sock"), path)
		if err != nil {
			return err
		}
		found := append(o.mentioned(text), certificatesIn(text)...)
		if len(found) == 0 {
			return fmt.Errorf("%s of %s mentions nothing", path, proxy)
		}
		o.owns(proxy, mesh, found...)
	}
	return nil
}

// looked says that something of each kind was seen of each mesh, so that NoForeignMesh was judged over it.
func (o *ordeal) looked() {
	for _, mesh := range []string{"default", tenant} {
		for _, kind := range []string{"address ", "identity of ", "certificate ", "generation ", "workload "} {
			if !slices.ContainsFunc(o.h.Owned, func(one history.Owned) bool { return one.Mesh == mesh && strings.HasPrefix(one.What, kind) }) {
				o.t.Errorf("NoForeignMesh: no %sof mesh %s was seen", kind, mesh)
			}
		}
	}
}

var (
	addressPattern = regexp.MustCompile(`\b127\.\d+\.\d+\.\d+\b`)
	domainPattern  = regexp.MustCompile(`spiffe://[a-z0-9-][a-z0-9.-]*`)
	generationIn   = regexp.MustCompile(`"x-generation",\s*"value": "(\d+)"`)
	inlineBytes    = regexp.MustCompile(`"inline_bytes": "([A-Za-z0-9+/=]+)"`)
	hostsOfAll     = []int{1, 2, 3, 20, 201}
)

// mentioned are the addresses, trust domains and generations in a text; those of control planes and of the ingress belong to all meshes.
func (o *ordeal) mentioned(text string) (out []string) {
	for _, a := range addressPattern.FindAllString(text, -1) {
		shared := func(n int) bool { return a == o.host(n) }
		if strings.HasPrefix(a, o.network+".") && !slices.ContainsFunc(hostsOfAll, shared) {
			out = append(out, "address "+a)
		}
	}
	for _, d := range domainPattern.FindAllString(text, -1) {
		out = append(out, "identity of "+d)
	}
	for _, g := range generationIn.FindAllStringSubmatch(text, -1) {
		out = append(out, "generation "+g[1])
	}
	return out
}

// certificatesIn are those in a dump: chains and trust roots.
func certificatesIn(dump string) (out []string) {
	for _, found := range inlineBytes.FindAllStringSubmatch(dump, -1) {
		text, err := base64.StdEncoding.DecodeString(found[1])
		if err != nil {
			continue
		}
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			out = append(out, fmt.Sprintf("certificate %x", sha256.Sum256(block.Bytes)))
		}
	}
	return out
}
