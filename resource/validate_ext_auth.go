package resource

import (
	"strings"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// maxKeptBody bounds the body in bytes that a proxy keeps of each request while a service is asked.
const maxKeptBody = 16 << 20

func checkExtAuth(s scope, e *meshv1.ExtAuth) {
	switch v := e.GetService().(type) {
	case *meshv1.ExtAuth_Http_:
		at, h := s.at("http"), v.Http
		checkTarget(at.at("target"), h.GetTarget())
		if h.GetPathPrefix() != "" {
			checkPath(at.at("pathPrefix"), h.GetPathPrefix())
		}
		checkHeaderNames(at.at("requestHeaders"), h.GetRequestHeaders())
		checkHeaderNames(at.at("backendHeaders"), h.GetBackendHeaders())
		checkHeaderNames(at.at("clientHeaders"), h.GetClientHeaders())
		for i, name := range h.GetBackendHeaders() {
			if leads(name) {
				at.at("backendHeaders").index(i).errorf("", "the header %s leads the request and cannot be changed", name)
			}
		}
	case *meshv1.ExtAuth_Grpc_:
		at := s.at("grpc")
		checkTarget(at.at("target"), v.Grpc.GetTarget())
		checkHeaderNames(at.at("requestHeaders"), v.Grpc.GetRequestHeaders())
	default:
		s.errorf("", "needs http or grpc")
	}
	checkDuration(s.at("timeout"), e.GetTimeout(), time.Millisecond, time.Minute)
	if c := e.GetStatusOnError(); c != 0 && (c < 400 || c > 599) {
		s.at("statusOnError").errorf("", "%d is no status of a refusal; use 400 to 599", c)
	}
	if e.GetStatusOnError() != 0 && e.GetFailOpen() {
		s.at("statusOnError").errorf("remove it, or failOpen", "with failOpen no request is refused for an error")
	}
	if b := e.GetBody(); b != nil && (b.GetMaxBytes() < 1 || b.GetMaxBytes() > maxKeptBody) {
		s.at("body").at("maxBytes").errorf("", "is a number from 1 to %d", maxKeptBody)
	}
}

func checkHeaderNames(s scope, names []string) {
	for i, name := range names {
		checkHeaderName(s.index(i), name)
	}
}

// leads tells whether a header leads the request, so that what is decided by it must not change behind the decision.
func leads(name string) bool {
	return strings.HasPrefix(name, ":") || strings.EqualFold(name, "host")
}
