package server

import corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

// Node is what a proxy says of itself in a stream's first request. The name lets an Authenticator be written without
// importing Envoy's API.
type Node = corev3.Node
