package zone

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math"
	"net"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/quiet"
	"github.com/zoneforge/zoneforge/zone/records"
)

// BenchmarkConnection is a proxy that connects and says who it is, and tells what the zone has of each that rests then: stacks and heap
// of its connection and stream, without any configuration. One is as Envoy 1.40, whose first request names its 516 extensions, with records
// of TLS as the bootstrap bounds them, and one as without that.
func BenchmarkConnection(b *testing.B) {
	for _, kind := range []struct {
		name       string
		extensions int
		record     int
	}{{"small", 0, ownRecord}, {"envoy", 516, ownRecord}, {"full", 516, fullRecord}} {
		b.Run(kind.name, func(b *testing.B) {
			p := newPort(b)
			first := firstRequest(kind.extensions)
			before := resting()
			for b.Loop() {
				p.connect(first, kind.record)
			}
			p.settle()
			after := resting()
			for i, name := range []string{"stack-KiB/conn", "heap-KiB/conn"} {
				b.ReportMetric((after[i]-before[i])/1024/float64(len(p.far)), name)
			}
		})
	}
}

// settle waits until all proxies have said who they are.
func (p *port) settle() {
	p.Helper()
	for until := time.Now().Add(2 * time.Minute); p.connected.Load() < int64(len(p.far)); runtime.Gosched() {
		if time.Now().After(until) {
			p.Fatalf("%d of %d proxies said who they are", p.connected.Load(), len(p.far))
		}
	}
}

// A first request as Envoy's is read through all that is below gRPC.
func TestAnEnvoysFirstRequestIsRead(t *testing.T) {
	p := newPort(t)
	for range 3 {
		p.connect(firstRequest(516), fullRecord)
		p.connect(firstRequest(516), ownRecord)
		p.connect(firstRequest(0), ownRecord)
	}
	p.settle()
}

// resting are the bytes of stacks and of the heap. A stack is halved by each collection.
func resting() [2]float64 {
	for range 5 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return [2]float64{float64(m.StackInuse), float64(m.HeapAlloc)}
}

// port is what proxies connect to in a zone. It lets everyone in.
type port struct {
	testing.TB
	address   string
	roots     *x509.CertPool
	connected atomic.Int64
	// far are the other ends.
	far []*os.File
}

// Connect is server.Authenticator's.
func (p *port) Connect(context.Context, *corev3.Node, string) (server.ProxyID, error) {
	return server.ProxyID(fmt.Sprint(p.connected.Add(1))), nil
}

// Disconnect is server.Authenticator's.
func (p *port) Disconnect(server.ProxyID) {}

func (p *port) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func newPort(t testing.TB) *port {
	// Its certificate is all that is wanted of it.
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	p := &port{TB: t, roots: x509.NewCertPool()}
	p.roots.AddCert(web.Certificate())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	p.address = l.Addr().String()
	x, err := server.New(server.Config{Authenticator: p})
	p.must(err)
	s := proxyServer(quiet.New().Credentials(&tls.Config{Certificates: web.TLS.Certificates}), func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return next(srv, stream)
	})
	x.Register(s)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(records.Listener{Listener: l}) }()
	t.Cleanup(func() {
		s.Stop()
		<-ended
		for _, f := range p.far {
			_ = f.Close()
		}
	})
	return p
}

// connect opens a stream, says the first, and leaves of the far end no more than its socket, so that what is measured is the near one.
func (p *port) connect(first []byte, record int) {
	raw, err := net.Dial("tcp", p.address)
	p.must(err)
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{RootCAs: p.roots, ServerName: "example.com", NextProtos: []string{"h2"}, DynamicRecordSizingDisabled: true})
	_, err = c.Write([]byte(http2.ClientPreface))
	p.must(err)
	f := http2.NewFramer(pieces{c, record}, c)
	p.must(f.WriteSettings())
	var head bytes.Buffer
	h := hpack.NewEncoder(&head)
	h.SetMaxDynamicTableSizeLimit(0) // the zone's settings say so, for which gRPC waits
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"},
		{":authority", "example.com"}, {"te", "trailers"}, {"content-type", "application/grpc"}, {"authorization", "Bearer " + strings.Repeat("t", 700)},
	} {
		p.must(h.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	p.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}))
	for len(first) > 0 {
		n := min(len(first), 16<<10)
		p.must(f.WriteData(1, false, first[:n]))
		first = first[n:]
	}
	p.must(f.WritePing(false, [8]byte{}))
	for {
		frame, err := f.ReadFrame()
		p.must(err)
		if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
			break // all before it was read
		}
	}
	file, err := raw.(*net.TCPConn).File()
	p.must(err)
	p.far = append(p.far, file)
}

const (
	// ownRecord is what dataplane.Bootstrap has an Envoy send at most in a record, fullRecord what it would send.
	ownRecord, fullRecord = 1 << 10, 16 << 10
)

// pieces writes no more than so many bytes at once, each of which is a record.
type pieces struct {
	io.Writer
	most int
}

func (w pieces) Write(p []byte) (written int, err error) {
	for piece := range slices.Chunk(p, w.most) {
		n, err := w.Writer.Write(piece)
		if written += n; err != nil {
			return written, err
		}
	}
	return written, nil
}

// firstRequest is a message of gRPC: a request for clusters, of a node with a document of its own and so many extensions. It fits in the
// window that every connection begins with.
func firstRequest(extensions int) []byte {
	text := func(b []byte, field protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
	}
	// Node: 1 id, 2 cluster, 9 extensions; Extension: 1 name, 2 category, 6 type URLs.
	node := text(text(nil, 1, "p"), 2, strings.Repeat("d", 2500))
	for i := range extensions {
		one := text(text(nil, 1, fmt.Sprintf("envoy.filters.http.extension_%03d", i)), 2, "envoy.filters.http")
		node = text(node, 9, string(text(one, 6, fmt.Sprintf("envoy.extensions.filters.http.extension.v3.Extension%03d", i))))
	}
	// DeltaDiscoveryRequest: 1 node, 2 type URL.
	request := text(text(nil, 1, string(node)), 2, xds.TypeCluster)
	n := uint32(min(len(request), math.MaxInt32))
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, request...)
}
