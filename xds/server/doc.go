// Package server serves xDS to Envoy: one ADS stream a proxy, incremental or state-of-the-world, each with a pure session
// that decides what to send and when, and a thin gRPC pump around it.
//
// It owns the protocol: subscriptions, nonces, confirmed and rejected versions, and the order across types that keeps a
// working request path working (make before break): what is referred to is there before what refers to it, and goes when
// nothing that the proxy holds refers to it any more, be it what it refused to give up or what still drains. It never
// builds a resource, never decides who a proxy is (an Authenticator does), never stores anything, and never changes the
// content of what it was handed.
//
// A stream has one goroutine, which receives. What it received and what others have for it waits in an inbox, where newer
// snapshots replace older ones and changes of endpoints gather, until one of a few workers brings it to the session; those
// never wait for a proxy. So neither a slow proxy nor ten thousand of them hold up the caller or each other.
//
// Protocol: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol.
package server
