package dataplane

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// hello is what a proxy says of itself when its stream opens.
type hello struct {
	authorization []string
	fields        map[string]string
	id            string
}

type zone struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	hellos chan hello
	// end ends one stream for each value.
	end chan struct{}
	// longest is the length of the longest record of TLS that came, of those that carry data.
	longest atomic.Int64
}

// recorded looks at the records of TLS that come over a connection: a header of five bytes, of which the first is the type and the last two are the
// length of what follows.
type recorded struct {
	net.Conn
	z         *zone
	got, left int64
	length    int64
	data      bool
}

// applicationData is the type of a record that carries data (RFC 8446, section 5.1).
const applicationData = 23

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	for _, b := range p[:n] {
		if r.left > 0 {
			r.left--
			continue
		}
		if r.got == 0 {
			r.data = b == applicationData
		}
		r.length = r.length<<8&0xffff | int64(b)
		if r.got++; r.got == 5 {
			r.got, r.left = 0, r.length
			if r.data {
				r.z.longest.Store(max(r.z.longest.Load(), r.length))
			}
		}
	}
	return n, err
}

type recordedListener struct {
	net.Listener
	z *zone
}

func (l recordedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &recorded{Conn: c, z: l.z}, nil
}

func (z *zone) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	request, err := stream.Recv()
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	h := hello{authorization: md.Get("authorization"), fields: map[string]string{}, id: request.GetNode().GetId()}
	for key, value := range request.GetNode().GetMetadata().GetFields() {
		h.fields[key] = value.GetStringValue()
	}
	select {
	case z.hellos <- h:
	case <-stream.Context().Done():
	}
	select {
	case <-z.end:
	case <-stream.Context().Done():
	}
	return nil
}

// startZone serves TLS as zone.example.com and returns its address and its certificate as PEM.
func startZone(t *testing.T, z *zone) (string, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"zone.example.com"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, z)
	go server.Serve(recordedListener{listener, z})
	t.Cleanup(server.Stop)
	return listener.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestRealEnvoyPresentsItselfAndHidesItsToken(t *testing.T) {
	const secret = "a-token-nobody-may-see"
	envoy := findEnvoy(t)
	z := &zone{hellos: make(chan hello), end: make(chan struct{})}
	address, roots := startZone(t, z)
	dir, err := os.MkdirTemp("", "zf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })

	b := sidecar()
	b.ControlPlanes, b.ServerName = []string{address}, "zone.example.com"
	b.CAFile, b.TokenFile, b.AdminSocket = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token"), filepath.Join(dir, "admin.sock")
	for path, content := range map[string][]byte{b.CAFile: roots, b.TokenFile: []byte(secret)} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path, err := b.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := New(Config{
		Path: envoy.Path, Args: Arguments(path, time.Second, "warning"), AdminSocket: b.AdminSocket,
		Drain: 100 * time.Millisecond, Stderr: &log, Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.admin.Timeout = time.Minute // what is slow here is the machine
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	select {
	case h := <-z.hellos:
		if len(h.authorization) != 1 || h.authorization[0] != "Bearer "+secret {
			t.Errorf("authorization %q", h.authorization)
		}
		if h.id != b.NodeID() || h.fields[MetadataKind] != "Dataplane" || h.fields[MetadataMesh] != "default" ||
			h.fields[MetadataName] != "web-1" || h.fields[MetadataDocument] != `{"networking":{"address":"10.0.0.1"}}` {
			t.Errorf("node %q with %q", h.id, h.fields)
		}
		// Its first request is some 60 KiB, and the zone keeps a buffer of the longest record for as long as the connection lives.
		if longest := z.longest.Load(); longest < MaxRecord/2 || longest > MaxRecord {
			t.Errorf("the longest record has %d bytes, at most %d are wanted", longest, MaxRecord)
		}
		if info, err := os.Stat(b.AdminSocket); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("admin socket: %v, %v", info, err)
		}
		for _, page := range []string{"/config_dump", "/server_info"} {
			response, err := s.admin.Get("http://admin" + page)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK || bytes.Contains(body, []byte(secret)) {
				t.Errorf("%s: status %d, %v; shows the token: %t", page, response.StatusCode, err, bytes.Contains(body, []byte(secret)))
			}
		}
		// A renewed token is taken by the next stream, without a restart.
		if err := os.WriteFile(b.TokenFile, []byte("renewed"), 0o600); err != nil {
			t.Fatal(err)
		}
		z.end <- struct{}{}
		select {
		case h := <-z.hellos:
			if len(h.authorization) != 1 || h.authorization[0] != "Bearer renewed" {
				t.Errorf("authorization after renewal %q", h.authorization)
			}
		case <-ctx.Done():
			t.Error("Envoy opened no second stream")
		}
	case err := <-done:
		t.Fatalf("Envoy ended: %v\n%s", err, log.String())
	case <-ctx.Done():
		t.Error("Envoy opened no stream")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stop: %v", err)
	}
	if bytes.Contains(log.Bytes(), []byte(secret)) {
		t.Errorf("the log shows the token:\n%s", log.String())
	}
	if t.Failed() {
		t.Log(log.String())
	}
}
