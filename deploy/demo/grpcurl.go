package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// grpcurl is a call of one message for one answer, of a service that this program knows.
type grpcurl struct {
	target string
	method protoreflect.MethodDescriptor
	in     string
}

func parseGRPCurl(words []string) (command, error) {
	out := grpcurl{in: "{}"}
	var names []string
	plaintext := false
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		var err error
		switch {
		case w == "-plaintext":
			plaintext = true
		case w == "-d":
			out.in, err = option(&words, w)
		case strings.HasPrefix(w, "-"):
			err = fmt.Errorf("%q is not known to the tour", w)
		default:
			names = append(names, w)
		}
		if err != nil {
			return nil, err
		}
	}
	if !plaintext || len(names) != 2 {
		return nil, errors.New("a call is -plaintext HOST:PORT SERVICE/METHOD")
	}
	out.target = names[0]
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(names[1], "/", ".")))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", names[1], err)
	}
	method, ok := found.(protoreflect.MethodDescriptor)
	if !ok || method.IsStreamingClient() || method.IsStreamingServer() {
		return nil, fmt.Errorf("%s is no method with one answer", names[1])
	}
	out.method = method
	return out, nil
}

func (g grpcurl) send(ctx context.Context) reply {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	in, out := dynamicpb.NewMessage(g.method.Input()), dynamicpb.NewMessage(g.method.Output())
	if err := protojson.Unmarshal([]byte(g.in), in); err != nil {
		return reply{failed: err}
	}
	conn, err := grpc.NewClient("passthrough:///"+g.target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return reply{failed: err}
	}
	defer conn.Close()
	began := time.Now()
	err = conn.Invoke(ctx, fmt.Sprintf("/%s/%s", g.method.Parent().FullName(), g.method.Name()), in, out)
	took := time.Since(began)
	if s, ok := status.FromError(err); ok && err != nil {
		return reply{body: fmt.Sprintf("ERROR:\n  Code: %s\n  Message: %s\n", s.Code(), s.Message()), took: took}
	}
	if err != nil {
		return reply{failed: err}
	}
	text, err := protojson.Marshal(out)
	if err != nil {
		return reply{failed: err}
	}
	// protojson varies its white space on purpose.
	var indented bytes.Buffer
	err = json.Indent(&indented, text, "", "  ")
	return reply{body: indented.String(), took: took, failed: err}
}
