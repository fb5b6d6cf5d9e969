package resource

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// normalizeHealthCheck lets a policy that names no sources hold for every client.
func normalizeHealthCheck(spec proto.Message) {
	if c := spec.(*meshv1.HealthCheck); len(c.GetSources()) == 0 {
		c.Sources = anyClient()
	}
}

func validateHealthCheck(s scope, r *Resource) {
	t := Spec[*meshv1.HealthCheck](r)
	checkSelectors(s, "sources", t.GetSources())
	checkSelectors(s, "destinations", t.GetDestinations())
	c, conf := t.GetConf(), s.at("conf")
	if c == nil {
		s.errorf("add conf: {interval: 10s, timeout: 2s}", "needs conf")
		return
	}
	// Proxies count in milliseconds.
	checkDuration(conf.at("interval"), c.GetInterval(), time.Millisecond, 0)
	checkDuration(conf.at("timeout"), c.GetTimeout(), time.Millisecond, 0)
	checkDuration(conf.at("noTrafficInterval"), c.GetNoTrafficInterval(), time.Millisecond, 0)
	checkDuration(conf.at("initialJitter"), c.GetInitialJitter(), 0, 0)
	checkDuration(conf.at("intervalJitter"), c.GetIntervalJitter(), 0, 0)
	checkPercent(conf.at("intervalJitterPercent"), float64(c.GetIntervalJitterPercent()))
	checkPercent(conf.at("healthyPanicThreshold"), c.GetHealthyPanicThreshold())
	if c.UnhealthyThreshold != nil && c.GetUnhealthyThreshold() == 0 {
		conf.at("unhealthyThreshold").errorf("", "must be above 0")
	}
	if c.HealthyThreshold != nil && c.GetHealthyThreshold() == 0 {
		conf.at("healthyThreshold").errorf("", "must be above 0")
	}
	if p := c.GetEventLogPath(); p != "" && !strings.HasPrefix(p, "/") {
		conf.at("eventLogPath").errorf("", "%q is no absolute path", p)
	}
	if c.GetAlwaysLogHealthCheckFailures() && c.GetEventLogPath() == "" {
		conf.at("alwaysLogHealthCheckFailures").errorf("add eventLogPath", "there is no file to log to")
	}
	for i, b := range c.GetTcp().GetReceive() {
		if len(b) == 0 {
			conf.at("tcp", "receive").index(i).errorf("", "no bytes to wait for")
		}
	}
	h, http := c.GetHttp(), conf.at("http")
	if p := h.GetPath(); p != "" && !strings.HasPrefix(p, "/") {
		http.at("path").errorf(fmt.Sprintf("write %q", "/"+p), "a path begins with /")
	}
	if strings.ContainsFunc(h.GetPath(), func(r rune) bool { return r <= ' ' || r >= '\x7f' || r == '#' }) {
		http.at("path").errorf("write other characters as %XX", "a path holds no space, no # and no control character")
	}
	for i, status := range h.GetExpectedStatuses() {
		if status < 100 || status > 599 {
			http.at("expectedStatuses").index(i).errorf("", "a status code is a number from 100 to 599")
		}
	}
	for i, add := range h.GetRequestHeadersToAdd() {
		at := http.at("requestHeadersToAdd").index(i).at("header")
		checkChangedHeader(at.at("key"), add.GetHeader().GetKey())
		checkHeaderValue(at.at("value"), add.GetHeader().GetValue())
	}
	if a := c.GetGrpc().GetAuthority(); strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r == '\x7f' }) {
		conf.at("grpc", "authority").errorf("", "%q is no authority", a)
	}
}
