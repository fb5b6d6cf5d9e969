// Package server serves xDS to Envoy: one delta ADS stream a proxy, each with a pure session that decides what to send and
// when, and a thin gRPC pump around it.
//
// It owns the protocol: subscriptions, nonces, confirmed and rejected versions, and the order across types that keeps a
// working request path working (make before break). It never builds a resource, never decides who a proxy is (an
// Authenticator does), never stores anything, and never changes the content of what it was handed.
//
// Protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol (incremental ADS).
package server
