package federation_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/e2e/history"
)

// A generation is written into durations and counts of policies, so that a proxy's configuration tells which change it is of. Those of
// the meshes differ.
const (
	firstGeneration = 1001
	firstOfTenant   = 3001
	lastGeneration  = 4999
)

func generation(n int) int {
	if n >= firstGeneration && n <= lastGeneration {
		return n
	}
	return 0
}

func generationOf(d time.Duration) int { return generation(int(d / time.Millisecond)) }

// unbearable is a generation that a picky proxy rejects.
func unbearable(generation int) bool { return generation%5 == 3 }

// generations are those of the policies in a resource, 0 where it has none.
func generations(name string, m proto.Message) (found []history.Seen) {
	switch m := m.(type) {
	case *clusterv3.Cluster:
		found = append(found, history.Seen{Resource: name, Policy: "pair", Generation: generationOf(m.GetConnectTimeout().AsDuration())})
		connections := 0
		for _, t := range m.GetCircuitBreakers().GetThresholds() {
			connections = max(connections, int(t.GetMaxConnections().GetValue()))
		}
		found = append(found, history.Seen{Resource: name + " breaker", Policy: "breaker", Generation: generation(connections)})
	case *routev3.RouteConfiguration:
		for _, host := range m.GetVirtualHosts() {
			for i, route := range host.GetRoutes() {
				a := route.GetRoute()
				if a == nil {
					continue
				}
				place := fmt.Sprintf("%s/%s/%d", name, host.GetName(), i)
				found = append(found, history.Seen{Resource: place, Policy: "pair", Generation: generationOf(a.GetTimeout().AsDuration())},
					history.Seen{Resource: place + " retries", Policy: "pair", Generation: generation(int(a.GetRetryPolicy().GetNumRetries().GetValue()))})
			}
		}
	}
	return found
}

// sharedAddresses are those of ingresses, which belong to all meshes.
const sharedAddresses = "10.200."

var (
	addressPattern = regexp.MustCompile(`\b10\.\d+\.\d+\.\d+\b`)
	domainPattern  = regexp.MustCompile(`spiffe://[a-z0-9.-]+`)
)

// mentioned are the addresses and trust domains in a text.
func mentioned(text string) (out []string) {
	for _, a := range addressPattern.FindAllString(text, -1) {
		if !strings.HasPrefix(a, sharedAddresses) {
			out = append(out, "address "+a)
		}
	}
	for _, d := range domainPattern.FindAllString(text, -1) {
		out = append(out, "identity of "+d)
	}
	return out
}

// belongings are what in a resource can only be one mesh's: generations of its policies, addresses, identities, certificates, keys.
func belongings(m proto.Message) (out []string) {
	for _, s := range generations("", m) {
		if s.Generation != 0 {
			out = append(out, fmt.Sprintf("generation %d of %s", s.Generation, s.Policy))
		}
	}
	var proofs []byte
	switch m := m.(type) {
	case *endpointv3.ClusterLoadAssignment:
		return mentioned(strings.Join(addresses(m), " "))
	case *tlsv3.Secret:
		proofs = append(proofs, m.GetTlsCertificate().GetCertificateChain().GetInlineBytes()...)
		proofs = append(proofs, m.GetTlsCertificate().GetPrivateKey().GetInlineBytes()...)
		proofs = append(proofs, m.GetValidationContext().GetTrustedCa().GetInlineBytes()...)
	default:
		return append(out, mentioned(prototext.Format(m))...)
	}
	for len(proofs) > 0 {
		var block *pem.Block
		if block, proofs = pem.Decode(proofs); block == nil {
			break
		}
		out = append(out, fmt.Sprintf("%s %x", strings.ToLower(block.Type), sha256.Sum256(block.Bytes)))
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			for _, u := range c.URIs {
				out = append(out, "identity "+u.String())
			}
		}
	}
	return out
}
