package server

import (
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/zoneforge/zoneforge/xds"
)

// parts are an encoded message. Those that several messages share must not be changed.
type parts mem.BufferSlice

const (
	// mostParts is how many parts go to gRPC as they are. It keeps, for as long as a connection lives, room to list as many as it ever wrote in
	// one frame.
	mostParts = 7
	// frame is how much gRPC writes at once.
	frame = 16 << 10
)

// joined is a message of a few parts for one of many, which are copied for that.
func (p parts) joined() parts {
	if len(p) <= mostParts {
		return p
	}
	out := p[:0]
	for len(p) > 0 {
		n, size := 1, p[0].Len()
		for ; n < len(p) && size+p[n].Len() <= frame; n++ {
			size += p[n].Len()
		}
		out = append(out, mem.BufferSlice(p[:n]).MaterializeToBuffer(mem.DefaultBufferPool()))
		p = p[n:]
	}
	return out
}

// incoming is where a stream of incremental ADS receives one request after the other.
type incoming struct{ request request }

// codec is gRPC's for protobuf, which takes parts as they are, too.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	if p, ok := message.(*parts); ok {
		return mem.BufferSlice(*p), nil
	}
	return c.CodecV2.Marshal(message)
}

// Unmarshal is encoding.CodecV2's. Nearly all requests acknowledge endpoints and say nothing else; a proxy that comes back says of each
// resource which version it has, and an Envoy which extensions.
func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	in, ok := message.(*incoming)
	if !ok {
		return c.CodecV2.Unmarshal(data, message)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	if nonce := readAcknowledgement(buffer.ReadOnlyData()); len(nonce) > 0 {
		in.request = acknowledgement(nonce)
		return nil
	}
	r := &discoveryv3.DeltaDiscoveryRequest{}
	in.request = deltaRequest{r}
	return readRequest(withoutExtensions(buffer.ReadOnlyData()), r)
}

// Option must be one of those of a gRPC server with which a Server is registered: endpoints are encoded once for all proxies.
func Option() grpc.ServerOption { return grpc.ForceServerCodecV2(newCodec()) }

// endpoints are those of one service.
type endpoints struct {
	resource *xds.Resource
	// encoded is the field of a message that holds them, and alone a message that holds nothing else.
	encoded mem.Buffer
	alone   *parts
}

func newEndpoints(revision uint64, r *xds.Resource) endpoints {
	encoded, alone := encode(r), &response{typeURL: xds.TypeEndpoint, nonce: r.Version, revision: revision}
	return endpoints{r, encoded, &parts{alone.head(), encoded}}
}

// Numbers of fields in the messages DeltaDiscoveryResponse, Resource and Any.
const (
	systemVersionField, resourcesField, typeField, nonceField, removedField = 1, 2, 4, 5, 6
	versionField, resourceField, nameField                                  = 1, 2, 3
	anyTypeField, anyValueField                                             = 1, 2
)

// encode gives the field of a response that holds a resource.
func encode(r *xds.Resource) mem.Buffer {
	content := r.Any()
	packed := bytesSize(len(content.GetTypeUrl())) + bytesSize(len(content.GetValue()))
	whole := bytesSize(len(r.Version)) + bytesSize(len(r.Name)) + bytesSize(packed)
	b := make([]byte, 0, bytesSize(whole))
	b = appendLength(b, resourcesField, whole)
	b = appendString(b, versionField, r.Version)
	b = appendLength(b, resourceField, packed)
	b = appendString(b, anyTypeField, content.GetTypeUrl())
	b = appendLength(b, anyValueField, len(content.GetValue()))
	b = append(b, content.GetValue()...)
	return mem.SliceBuffer(appendString(b, nameField, r.Name))
}

// bytesSize is that of a field with so many bytes in it; all numbers above take one byte.
func bytesSize(length int) int { return 1 + protowire.SizeBytes(length) }

func appendLength(b []byte, field protowire.Number, length int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(length))
}

func appendString(b []byte, field protowire.Number, value string) []byte {
	return append(appendLength(b, field, len(value)), value...)
}

// head is the encoded response but for its resources.
func (r *response) head() mem.Buffer {
	b := make([]byte, 0, len(r.typeURL)+len(r.nonce)+32)
	b = appendString(b, systemVersionField, strconv.FormatUint(r.revision, 10))
	b = appendString(b, typeField, r.typeURL)
	b = appendString(b, nonceField, r.nonce)
	for _, name := range r.removed {
		b = appendString(b, removedField, name)
	}
	return mem.SliceBuffer(b)
}

// alone says whether a response of incremental ADS is nothing but the endpoints of one service, as nearly all are that are sent while
// few endpoints come and go. Those are the same message for all proxies, and their nonce is the version: it is unique as long as one is on
// its way.
func (r *response) alone() bool {
	return r.typeURL == xds.TypeEndpoint && len(r.upserts) == 1 && len(r.removed) == 0 && r.nonce == r.upserts[0].Version
}

// message is what is sent for a response of incremental ADS. Of endpoints nothing is encoded again, nor copied where they are few.
func (s *Server) message(r *response) any {
	if r.typeURL != xds.TypeEndpoint {
		return r.delta()
	}
	if r.alone() {
		return s.encoded(r, r.upserts[0]).alone
	}
	out := make(parts, 0, 1+len(r.upserts))
	out = append(out, r.head())
	for _, u := range r.upserts {
		out = append(out, s.encoded(r, u).encoded)
	}
	out = out.joined()
	return &out
}

// encoded are endpoints that a response carries.
func (s *Server) encoded(r *response, u *xds.Resource) endpoints {
	s.endpointsMu.RLock()
	e := s.endpoints[u.Name]
	s.endpointsMu.RUnlock()
	if e.resource != u { // it has changed meanwhile
		e = newEndpoints(r.revision, u)
	}
	return e
}
