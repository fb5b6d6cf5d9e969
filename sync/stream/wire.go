package stream

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/zoneforge/zoneforge/sync/kds"
)

// MaxFrame is the size in bytes of the largest frame: a chunk with a single large record.
const MaxFrame = 16 << 20

const (
	// Windows are fixed: gRPC would measure the way's length by a ping for each frame, which costs as much as the frame. A zone
	// is sent up to a chunk at once, and may send a tenth of it unread.
	downWindow = 1 << 20
	upWindow   = 128 << 10
	// Buffers are small, as frames are, and there is one of each for each zone. Larger frames pass them by.
	readBuffer, writeBuffer = 4 << 10, 16 << 10
)

// ServerOptions are what a gRPC server of KDS must be made with, besides its credentials.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxFrame), grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.InitialWindowSize(upWindow), grpc.InitialConnWindowSize(upWindow),
		grpc.ReadBufferSize(readBuffer), grpc.WriteBufferSize(writeBuffer), grpc.SharedWriteBuffer(true),
	}
}

// DialOptions are what a client of KDS connects with, besides its credentials.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxFrame)),
		grpc.WithInitialWindowSize(downWindow), grpc.WithInitialConnWindowSize(downWindow),
	}
}

// encoded are a message's bytes, made once for many streams.
type encoded []byte

// message is a frame as the codec takes it.
func message(f kds.Frame) any {
	if f.Encoded != nil {
		return encoded(f.Encoded)
	}
	return f.GlobalFrame
}

// codec is gRPC's own, and takes bytes that are encoded already.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(encoded); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	out, err := c.CodecV2.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("KDS frame: %w", err)
	}
	return out, nil
}
