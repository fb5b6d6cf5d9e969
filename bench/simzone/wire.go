package simzone

import (
	"context"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// wire counts the bytes of a zone's connections.
type wire struct{ down, up, tlsDown, tlsUp atomic.Int64 }

// options dial a connection whose bytes are counted below and above TLS. What travels doesn't depend on them.
func (w *wire) options(c credentials.TransportCredentials) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(counted{c, w}),
		// Less memory than a zone has, as there are a thousand in this process.
		grpc.WithReadBufferSize(4 << 10), grpc.WithWriteBufferSize(4 << 10), grpc.WithSharedWriteBuffer(true),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			socket, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			return &counter{socket, &w.tlsDown, &w.tlsUp}, nil
		}),
	}
}

type counter struct {
	net.Conn
	down, up *atomic.Int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.down.Add(int64(n))
	return n, err
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.up.Add(int64(n))
	return n, err
}

// counted are credentials whose connections count what is inside of TLS.
type counted struct {
	credentials.TransportCredentials
	wire *wire
}

func (c counted) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	return &counter{conn, &c.wire.down, &c.wire.up}, info, nil
}

func (c counted) Clone() credentials.TransportCredentials {
	return counted{c.TransportCredentials.Clone(), c.wire}
}
