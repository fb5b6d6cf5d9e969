package resource

import (
	"regexp"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// maxHeaderRules is how many expressions for headers a list may have.
const maxHeaderRules = 32

var attribute = regexp.MustCompile(`^[a-z_]+(\.[a-z_0-9]+)*$`)

func checkExtProc(s scope, e *meshv1.ExtProc) {
	checkTarget(s.at("target"), e.GetTarget())
	if !sends(e.GetRequest()) && !sends(e.GetResponse()) {
		s.errorf("give request or response its headers or body", "sends nothing to the service")
	}
	checkDuration(s.at("timeout"), e.GetTimeout(), time.Millisecond, time.Hour)
	expressions := func(at scope, list []string) {
		if len(list) > maxHeaderRules {
			at.errorf("", "has %d expressions, more than %d", len(list), maxHeaderRules)
			return
		}
		for i, expression := range list {
			if expression == "" {
				at.index(i).errorf("", "is empty")
				continue
			}
			checkRegex(at.index(i), expression)
		}
	}
	if m := e.GetMutations(); m != nil {
		at := s.at("mutations")
		if len(m.GetAllow())+len(m.GetDeny()) == 0 {
			at.errorf("", "needs allow or deny")
		}
		expressions(at.at("allow"), m.GetAllow())
		expressions(at.at("deny"), m.GetDeny())
	}
	for field, list := range map[string][]string{"requestAttributes": e.GetRequestAttributes(), "responseAttributes": e.GetResponseAttributes()} {
		for i, name := range list {
			if !attribute.MatchString(name) {
				s.at(field).index(i).errorf("write it as source.address", "%q is no name of an attribute", name)
			}
		}
	}
}

// sends tells whether the service gets something of a message. What is left out sends headers where the part is there at all.
func sends(p *meshv1.ExtProc_Part) bool {
	if p == nil {
		return false
	}
	return p.GetHeaders() != meshv1.ExtProc_HEADERS_SKIP || p.GetBody() > meshv1.ExtProc_BODY_NONE
}
