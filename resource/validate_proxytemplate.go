package resource

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// maxEmbedded bounds a document of Envoy within a ProxyTemplate, in bytes.
const maxEmbedded = 256 << 10

var (
	origins         = []string{"inbound", "outbound", "gateway", "other"}
	wholeOperations = []string{"add", "patch", "remove"}
	chainOperations = []string{"addFirst", "addLast", "addBefore", "addAfter", "patch", "remove"}
	jsonOperations  = []string{"add", "remove", "replace", "move", "copy", "test"}
	jsonPointer     = regexp.MustCompile(`^(/([^~/]|~[01])*)*$`)
)

// EnvoySchema holds documents against Envoy's schema, which this package doesn't know.
type EnvoySchema interface {
	// Check says what is wrong with a document of JSON: a resource with its @type, or a cluster, listener, networkFilter, httpFilter or
	// virtualHost. One that is not whole is merged into another.
	Check(what, document string, whole bool) error
}

// inSchema reports what Envoy's schema, where it is known, has against a document that is an object.
func (s scope) inSchema(what, text string, whole bool) {
	if s.w.schema == nil {
		return
	}
	raw, err := JSONOf(text)
	if err != nil {
		return // reported already
	}
	if err := s.w.schema.Check(what, string(raw), whole); err != nil {
		s.errorf("", "%s", err)
	}
}

// JSONOf reads a document that stands as text within a resource, YAML or JSON, as JSON with its members in order.
func JSONOf(text string) ([]byte, error) {
	if len(text) > maxEmbedded {
		return nil, fmt.Errorf("longer than %d bytes", maxEmbedded)
	}
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("bad YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("is no JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return out, nil
}

func validateProxyTemplate(s scope, r *Resource) {
	t := Spec[*meshv1.ProxyTemplate](r)
	checkSelectors(s, "selectors", t.GetSelectors())
	c, conf := t.GetConf(), s.at("conf")
	for i, name := range c.GetImports() {
		if name != "default-proxy" {
			conf.at("imports").index(i).errorf(didYouMean(name, []string{"default-proxy"}), "expected default-proxy, found %q", name)
		}
	}
	var names []string
	for i, v := range c.GetResources() {
		at := conf.at("resources").index(i)
		if v.GetName() == "" {
			at.errorf("", "needs a name")
		} else if slices.Contains(names, v.GetName()) {
			at.at("name").errorf("", "resource %q is there twice", v.GetName())
		}
		names = append(names, v.GetName())
		m := checkObject(at.at("resource"), v.GetResource())
		if url, _ := m["@type"].(string); m != nil && url == "" {
			at.at("resource").errorf("add '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster or another", "needs @type")
		} else if m != nil {
			at.at("resource").inSchema("resource", v.GetResource(), true)
		}
	}
	for i, v := range c.GetModifications() {
		at := conf.at("modifications").index(i)
		switch m := v.GetModification().(type) {
		case nil:
			at.errorf("", "needs one of cluster, listener, networkFilter, httpFilter and virtualHost")
		case *meshv1.ProxyTemplate_Modification_Cluster:
			checkModification(at.at("cluster"), "cluster", m.Cluster.GetOperation(), m.Cluster.GetValue(), wholeOperations)
			checkOrigin(at.at("cluster", "match", "origin"), m.Cluster.GetMatch().GetOrigin())
		case *meshv1.ProxyTemplate_Modification_Listener:
			checkModification(at.at("listener"), "listener", m.Listener.GetOperation(), m.Listener.GetValue(), wholeOperations)
			checkOrigin(at.at("listener", "match", "origin"), m.Listener.GetMatch().GetOrigin())
		case *meshv1.ProxyTemplate_Modification_NetworkFilter:
			checkFilterModification(at.at("networkFilter"), "networkFilter", m.NetworkFilter)
		case *meshv1.ProxyTemplate_Modification_HttpFilter:
			checkFilterModification(at.at("httpFilter"), "httpFilter", m.HttpFilter)
		case *meshv1.ProxyTemplate_Modification_VirtualHost:
			checkModification(at.at("virtualHost"), "virtualHost", m.VirtualHost.GetOperation(), m.VirtualHost.GetValue(), wholeOperations)
			checkOrigin(at.at("virtualHost", "match", "origin"), m.VirtualHost.GetMatch().GetOrigin())
		}
	}
	for i, p := range c.GetPatches() {
		checkEnvoyPatch(conf.at("patches").index(i), p)
	}
	if c != nil && len(c.GetResources())+len(c.GetModifications())+len(c.GetPatches()) == 0 && len(c.GetImports()) == 0 {
		conf.errorf("", "needs resources, modifications or patches")
	}
}

func checkOrigin(s scope, origin string) {
	if origin != "" && !slices.Contains(origins, origin) {
		s.errorf(didYouMean(origin, origins), "expected %s, found %q", strings.Join(origins, ", "), origin)
	}
}

func checkModification(s scope, what, operation, value string, known []string) {
	switch {
	case operation == "":
		s.errorf("", "needs operation: %s", strings.Join(known, ", "))
		return
	case !slices.Contains(known, operation):
		s.at("operation").errorf(didYouMean(operation, known), "expected %s, found %q", strings.Join(known, ", "), operation)
		return
	case operation == "remove" && value != "":
		s.at("value").errorf("remove it", "what is removed has no value")
	case operation != "remove":
		if checkObject(s.at("value"), value) != nil {
			s.at("value").inSchema(what, value, operation != "patch")
		}
	}
}

func checkFilterModification(s scope, what string, f *meshv1.ProxyTemplate_Filter) {
	checkModification(s, what, f.GetOperation(), f.GetValue(), chainOperations)
	checkOrigin(s.at("match", "origin"), f.GetMatch().GetOrigin())
	if (f.GetOperation() == "addBefore" || f.GetOperation() == "addAfter") && f.GetMatch().GetName() == "" {
		s.errorf("", "%s needs match with the name of a filter", f.GetOperation())
	}
	checkTags(s.at("match", "listenerTags"), f.GetMatch().GetListenerTags(), true)
}

// checkObject wants an object of YAML or JSON; nil where it is none.
func checkObject(s scope, text string) map[string]any {
	if strings.TrimSpace(text) == "" {
		s.errorf("", "needs an object of Envoy, as YAML or JSON")
		return nil
	}
	raw, err := JSONOf(text)
	if err != nil {
		s.errorf("", "%s", err)
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil || m == nil {
		s.errorf("", "expected an object of Envoy")
		return nil
	}
	return m
}

func checkEnvoyPatch(s scope, p *meshv1.ProxyTemplate_Patch) {
	if p.GetType() == meshv1.ProxyTemplate_TYPE_UNSPECIFIED {
		s.errorf("", "needs type: listener, route, cluster or extension")
	}
	match := s.at("match")
	checkOrigin(match.at("origin"), p.GetMatch().GetOrigin())
	if e := p.GetMatch().GetNameRegex(); e != "" {
		checkRegex(match.at("nameRegex"), e)
		if p.GetMatch().GetName() != "" {
			match.errorf("keep one of them", "name excludes nameRegex")
		}
	}
	switch {
	case p.GetMergePatch() != "" && len(p.GetJsonPatch()) > 0:
		s.errorf("keep one of them", "jsonPatch excludes mergePatch")
	case p.GetMergePatch() != "":
		checkObject(s.at("mergePatch"), p.GetMergePatch())
	case len(p.GetJsonPatch()) == 0:
		s.errorf("", "needs jsonPatch or mergePatch")
	}
	for i, o := range p.GetJsonPatch() {
		at := s.at("jsonPatch").index(i)
		if !slices.Contains(jsonOperations, o.GetOp()) {
			at.errorf(didYouMean(o.GetOp(), jsonOperations), "expected op to be %s, found %q", strings.Join(jsonOperations, ", "), o.GetOp())
			continue
		}
		if !jsonPointer.MatchString(o.GetPath()) {
			at.at("path").errorf("begin it with /, and write ~1 for / and ~0 for ~ within a name", "%q is no JSON pointer", o.GetPath())
		}
		if o.GetPath() == "/name" && o.GetOp() != "test" {
			at.at("path").errorf("", "the name of a resource can't be changed, as others refer to it")
		}
		needsFrom, needsValue := o.GetOp() == "move" || o.GetOp() == "copy", o.GetOp() == "add" || o.GetOp() == "replace" || o.GetOp() == "test"
		switch {
		case needsFrom && (o.GetFrom() == "" || !jsonPointer.MatchString(o.GetFrom())):
			at.errorf("", "%s needs from with a JSON pointer", o.GetOp())
		case !needsFrom && o.GetFrom() != "":
			at.at("from").errorf("remove it", "%s has no from", o.GetOp())
		}
		switch {
		case needsValue && o.Value == nil:
			at.errorf("to write null, use remove", "%s needs a value", o.GetOp())
		case !needsValue && o.Value != nil:
			at.at("value").errorf("remove it", "%s has no value", o.GetOp())
		case needsValue:
			if _, err := JSONOf(o.GetValue()); err != nil {
				at.at("value").errorf("", "%s", err)
			}
		}
	}
}
