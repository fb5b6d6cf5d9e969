package global

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// asItIs is a codec that sends bytes as they are.
type asItIs struct{}

func (asItIs) Name() string { return "proto" }

func (asItIs) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, errors.New("no bytes")
	}
	return b, nil
}

func (asItIs) Unmarshal(b []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return errors.New("no message")
	}
	return proto.Unmarshal(b, m)
}

// speak sends frames on a stream of KDS of its own, and gives what it was told, until global ends the stream. What comes after the first
// frame is sent once that one was answered: a stream that ends by its second frame may never have been looked at otherwise.
func (r *running) speak(token string, frames ...[]byte) (said []*kdsv1.GlobalFrame, end error) {
	r.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.file(filepath.Join("tls", "server-ca.crt")))
	conn, err := grpc.NewClient(r.Addresses().KDS, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})))
	if err != nil {
		r.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(r.Context(), "authorization", "Bearer "+token), patience)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, kdsv1.KDS_Stream_FullMethodName, grpc.ForceCodec(asItIs{}))
	if err != nil {
		r.Fatal(err)
	}
	send := func(frames [][]byte) {
		for _, f := range frames {
			if err := s.SendMsg(f); err != nil && !errors.Is(err, io.EOF) { // io.EOF says that the stream has ended, and RecvMsg why
				r.Fatal(err)
			}
		}
	}
	send(frames[:1])
	for {
		f := &kdsv1.GlobalFrame{}
		if err := s.RecvMsg(f); err != nil {
			if ctx.Err() != nil {
				r.Errorf("the stream goes on: %v", said)
			}
			return said, err
		}
		if said = append(said, f); len(said) == 1 {
			send(frames[1:])
		}
	}
}

func frameOf(t *testing.T, f *kdsv1.ZoneFrame) []byte {
	t.Helper()
	b, err := proto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostileFramesCostTheirSenderAlone sends what no zone sends: each ends the stream on which it came, and a zone beside it
// notices nothing.
func TestHostileFramesCostTheirSenderAlone(t *testing.T) {
	r := start(t, config(t.TempDir()))
	admin := r.admin()
	token := r.token(admin, "zone", `{"zone":"east"}`)
	west := r.connect("west", r.token(admin, "zone", `{"zone":"west"}`))
	west.take(resource.Key{Kind: "Mesh", Name: "default"})
	hello := func(zone string) []byte {
		return frameOf(t, &kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Hello{Hello: &kdsv1.Hello{Zone: zone, Replica: "r", Identity: "i", Version: "1", Protocols: []uint32{kds.Protocol}}}})
	}
	noise := make([]byte, 4096)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	noise[0] = 0xff // no tag begins so
	huge := frameOf(t, &kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Answer{Answer: &kdsv1.Answer{Id: 1, Body: make([]byte, stream.MaxFrame)}}})
	inventory := frameOf(t, &kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Inventory{Inventory: &kdsv1.Inventory{}}})
	for _, c := range []struct {
		name     string
		frames   [][]byte
		welcomed bool
	}{
		{"a frame that is too large", [][]byte{hello("east"), huge}, true},
		{"a frame that is too large, first", [][]byte{huge}, false},
		{"noise", [][]byte{noise}, false},
		{"noise after a hello", [][]byte{hello("east"), noise}, true},
		{"an empty frame", [][]byte{{}}, false},
		{"no hello", [][]byte{inventory}, false},
		{"a hello that is sent again", [][]byte{hello("east"), hello("east")}, true},
		{"the hello of another zone", [][]byte{hello("west")}, false},
		{"an inventory that nobody asked for", [][]byte{hello("east"), inventory}, true},
	} {
		said, err := r.speak(token, c.frames...)
		welcomed := false
		for _, f := range said {
			welcomed = welcomed || f.GetWelcome() != nil
		}
		if welcomed != c.welcomed || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: it is told %v, %v", c.name, said, err)
		}
	}
	r.want(200, admin, "POST", "/v1/changes", `{"resources":[{"type":"Mesh","name":"after"}]}`)
	west.take(resource.Key{Kind: "Mesh", Name: "after"})
	select {
	case e := <-west.events:
		if e.Welcome == nil {
			t.Errorf("the other zone saw %+v", e)
		}
	default:
		t.Error("the other zone was never welcomed")
	}
	for len(west.events) > 0 {
		if e := <-west.events; e.Welcome != nil || e.Refusal != nil {
			t.Errorf("the other zone's stream was broken: %+v", e)
		}
	}
}
