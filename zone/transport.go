package zone

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/zoneforge/zoneforge/xds/server"
)

// proxyServer makes the gRPC server that proxies connect to. guard sees each stream before any of its requests is read.
func proxyServer(c credentials.TransportCredentials, guard grpc.StreamServerInterceptor) *grpc.Server {
	return grpc.NewServer(server.Option(),
		grpc.Creds(c), grpc.MaxRecvMsgSize(maxRequest),
		grpc.ReadBufferSize(0), grpc.SharedWriteBuffer(true), grpc.WriteBufferSize(writeBuffer), grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.ConnectionTimeout(handshake), grpc.MaxConcurrentStreams(streamsPerConnection), grpc.MaxHeaderListSize(64<<10), grpc.HeaderTableSize(0),
		grpc.InTapHandle(server.Tap), grpc.StreamInterceptor(guard),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveLeast, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, MaxConnectionIdle: connectionIdle}),
	)
}
