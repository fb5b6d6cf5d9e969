package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
)

// identityOf is an identity of the mesh in the hands of a test, which a proxy would get for its workload.
type identityOf struct {
	t           *testing.T
	certificate tls.Certificate
	roots       *x509.CertPool
}

// identity connects to a zone as the sidecar of a service does, and keeps the certificate that it is given.
func (f *federation) identity(zone string, n int, mesh, service string, address int) *identityOf {
	f.t.Helper()
	f.rotated("") // what is given while a root is replaced would be refused a moment later
	token, err := os.ReadFile(f.token(service, "dataplane", "--mesh", mesh, "--service", service))
	if err != nil {
		f.t.Fatal(err)
	}
	roots, err := credentials.NewClientTLSFromFile(f.path(zone, "tls", "server-ca.crt"), "")
	if err != nil {
		f.t.Fatal(err)
	}
	conn, err := grpc.NewClient(f.at(n, xdsPort), grpc.WithTransportCredentials(roots))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(f.t.Context(), awaitTime)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(
		metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token))))
	if err != nil {
		f.t.Fatal(err)
	}
	document := fmt.Sprintf(`{"type":"Dataplane","mesh":%q,"name":%q,"networking":{"address":%q,"inbound":[{"port":15006,"servicePort":8080,"tags":{"kuma.io/service":%q}}]}}`,
		mesh, service, f.host(address), service)
	fields := map[string]*structpb.Value{}
	for k, v := range map[string]string{"kind": "Dataplane", "mesh": mesh, "name": service, "document": document} {
		fields["zoneforge."+k] = structpb.NewStringValue(v)
	}
	if err := stream.Send(&discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: "Dataplane/" + mesh + "/" + service, Metadata: &structpb.Struct{Fields: fields}}, TypeUrl: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
		ResourceNames: []string{"svid:" + service, "bundle"},
	}); err != nil {
		f.t.Fatal(err)
	}
	out := &identityOf{t: f.t, roots: x509.NewCertPool()}
	for have := map[string]bool{}; len(have) < 2; {
		r, err := stream.Recv()
		if err != nil {
			f.t.Fatal(err)
		}
		for _, packed := range r.GetResources() {
			var s tlsv3.Secret
			if err := packed.UnmarshalTo(&s); err != nil {
				f.t.Fatal(err)
			}
			have[s.GetName()] = true
			if c := s.GetTlsCertificate(); c != nil {
				out.certificate, err = tls.X509KeyPair(c.GetCertificateChain().GetInlineBytes(), c.GetPrivateKey().GetInlineBytes())
				if err != nil {
					f.t.Fatal(err)
				}
			} else {
				out.roots.AppendCertsFromPEM(s.GetValidationContext().GetTrustedCa().GetInlineBytes())
			}
		}
	}
	return out
}

// config proves the test by its certificate, and the server by the roots of the mesh. Certificates of the mesh name no host.
func (s *identityOf) config() *tls.Config {
	c := s.withoutCertificate()
	c.Certificates = []tls.Certificate{s.certificate}
	return c
}

func (s *identityOf) withoutCertificate() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(state tls.ConnectionState) error {
		others := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			others.AddCert(c)
		}
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: s.roots, Intermediates: others, CurrentTime: time.Now()})
		return err
	}}
}
