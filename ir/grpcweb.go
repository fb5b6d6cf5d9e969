package ir

// GRPCWeb takes the gRPC-Web protocol of browsers for a gRPC service.
type GRPCWeb struct{}
