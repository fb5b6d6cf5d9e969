package resource

import (
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/composition"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Plan is a Composition as the composer carries it out, with all defaults.
func Plan(name string, c *meshv1.Composition_Conf) composition.Plan {
	out := composition.Plan{Name: name, Path: c.GetPath(), Timeout: composition.DefaultTimeout, Status: 200, Body: c.GetResponse().GetBody()}
	if d := c.GetTimeout(); d != nil {
		out.Timeout = d.AsDuration()
	}
	if s := c.GetResponse().GetStatus(); s != 0 {
		out.Status = int(s)
	}
	for _, h := range c.GetForwardHeaders() {
		out.ForwardHeaders = append(out.ForwardHeaders, strings.ToLower(h))
	}
	for _, call := range c.GetCalls() {
		one := composition.Call{Name: call.GetName(), Method: strings.ToUpper(call.GetMethod()), Path: call.GetPath(), Body: call.GetBody(),
			Timeout: call.GetTimeout().AsDuration(), After: call.GetAfter(), Default: call.GetDefault()}
		if one.Method == "" {
			one.Method = "GET"
		}
		if one.Path == "" {
			one.Path = "/"
		}
		for _, h := range call.GetHeaders() {
			one.Headers = append(one.Headers, composition.Header{Name: h.GetName(), Value: h.GetValue()})
		}
		for _, s := range call.GetExpectedStatuses() {
			one.Expected = append(one.Expected, int(s))
		}
		one.OnFailure = map[meshv1.Composition_OnFailure]string{
			meshv1.Composition_ON_FAILURE_OMIT: composition.Omit, meshv1.Composition_ON_FAILURE_DEFAULT: composition.Default,
		}[call.GetOnFailure()]
		if one.OnFailure == "" {
			one.OnFailure = composition.Fail
		}
		out.Calls = append(out.Calls, one)
	}
	return out
}

// maxCalls bounds a composition.
const maxCalls = 32

func validateComposition(s scope, r *Resource) {
	c := Spec[*meshv1.Composition](r)
	checkSelectors(s, "selectors", c.GetSelectors())
	conf, at := c.GetConf(), s.at("conf")
	for i, h := range conf.GetHostnames() {
		checkHostname(at.at("hostnames").index(i), h)
	}
	if conf.GetMethod() != "" && !token.MatchString(conf.GetMethod()) {
		at.at("method").errorf("", "%q is no method", conf.GetMethod())
	}
	checkFilters(at.at("filters"), nil, conf.GetFilters())
	checkDuration(at.at("timeout"), conf.GetTimeout(), time.Nanosecond, time.Hour)
	for i, h := range conf.GetForwardHeaders() {
		checkHeaderName(at.at("forwardHeaders").index(i), h)
	}
	if s := conf.GetResponse().GetStatus(); s != 0 && (s < 200 || s > 599) {
		at.at("response", "status").errorf("", "%d is no status of an answer; use 200 to 599", s)
	}
	switch n := len(conf.GetCalls()); {
	case n == 0:
		at.errorf("", "needs calls")
	case n > maxCalls:
		at.at("calls").errorf("compose less at once", "there are %d calls, more than %d", n, maxCalls)
	}
	for i, call := range conf.GetCalls() {
		item := at.at("calls").index(i)
		if !composition.CallName.MatchString(call.GetName()) {
			item.at("name").errorf("use letters, digits and _, a letter first", "%q is no name for a call", call.GetName())
		}
		checkOwnTags(item.at("destination"), call.GetDestination())
		if call.GetMethod() != "" && !token.MatchString(call.GetMethod()) {
			item.at("method").errorf("", "%q is no method", call.GetMethod())
		}
		if p := call.GetPath(); p != "" && !strings.HasPrefix(p, "/") {
			item.at("path").errorf("write \"/"+p+"\"", "a path begins with /")
		}
		for j, h := range call.GetHeaders() {
			if checkHeaderName(item.at("headers").index(j).at("name"), h.GetName()); strings.EqualFold(h.GetName(), "host") {
				item.at("headers").index(j).at("name").errorf("", "the header %s leads the request and cannot be changed", h.GetName())
			}
		}
		checkDuration(item.at("timeout"), call.GetTimeout(), time.Nanosecond, time.Hour)
		for j, status := range call.GetExpectedStatuses() {
			if status < 200 || status > 599 {
				item.at("expectedStatuses").index(j).errorf("", "%d is no status of an answer; use 200 to 599", status)
			}
		}
		if d := call.GetDefault(); (d != "") != (call.GetOnFailure() == meshv1.Composition_ON_FAILURE_DEFAULT) {
			item.errorf("give both or none", "default and onFailure: DEFAULT belong together")
		}
	}
	plan := Plan(r.Name, conf)
	_, problems := composition.Compile(plan)
	for _, p := range problems {
		fieldScope(at, p.Field).errorf(p.Hint, "%s", p.Message)
	}
	if _, err := composition.Encode(plan); err != nil {
		at.errorf("", "%s", err)
	}
}

// fieldScope descends to a field such as calls[0].path.
func fieldScope(s scope, field string) scope {
	for _, part := range strings.Split(field, ".") {
		name, index, listed := strings.Cut(part, "[")
		s = s.at(name)
		if listed {
			s = s.at("[" + index)
		}
	}
	return s
}
