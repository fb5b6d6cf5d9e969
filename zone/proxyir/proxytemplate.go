package proxyir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// template takes over the most specific ProxyTemplate. What Envoy's schema says of it shows when the proxy is built by package
// xds, and leaves it out.
func (b *builder) template() {
	r := policy.MostSpecificForAny(b.Policies["ProxyTemplate"].Of(b.known...), b.MeshName, b.known)
	if r == nil {
		return
	}
	spec, ok := r.Spec.(*meshv1.ProxyTemplate)
	if !ok {
		return
	}
	out, err := templateOf(r.Key, spec.GetConf())
	if err != nil {
		b.reject(r.Key, len(b.order), err)
		return
	}
	b.use(r, "changes of what Envoy is told")
	b.proxy.Template = out
}

func templateOf(key resource.Key, c *meshv1.ProxyTemplate_Conf) (*ir.Template, error) {
	out := &ir.Template{From: key.String()}
	var failed error
	document := func(text string) string {
		raw, err := resource.JSONOf(text)
		if err != nil && failed == nil {
			failed = err
		}
		return string(raw)
	}
	value := func(operation, text string) string {
		if operation == "remove" {
			return ""
		}
		return document(text)
	}
	for _, v := range c.GetResources() {
		out.Resources = append(out.Resources, ir.TemplateResource{Name: v.GetName(), JSON: document(v.GetResource())})
	}
	filter := func(target ir.Target, f *meshv1.ProxyTemplate_Filter) ir.Modification {
		return ir.Modification{Target: target, Operation: f.GetOperation(), Name: f.GetMatch().GetName(), Origin: ir.Origin(f.GetMatch().GetOrigin()),
			Listener: f.GetMatch().GetListenerName(), Tags: f.GetMatch().GetListenerTags(), JSON: value(f.GetOperation(), f.GetValue())}
	}
	for i, v := range c.GetModifications() {
		var m ir.Modification
		switch v := v.GetModification().(type) {
		case *meshv1.ProxyTemplate_Modification_Cluster:
			m = ir.Modification{Target: ir.TargetCluster, Operation: v.Cluster.GetOperation(), Name: v.Cluster.GetMatch().GetName(),
				Origin: ir.Origin(v.Cluster.GetMatch().GetOrigin()), JSON: value(v.Cluster.GetOperation(), v.Cluster.GetValue())}
		case *meshv1.ProxyTemplate_Modification_Listener:
			m = ir.Modification{Target: ir.TargetListener, Operation: v.Listener.GetOperation(), Name: v.Listener.GetMatch().GetName(),
				Origin: ir.Origin(v.Listener.GetMatch().GetOrigin()), Tags: v.Listener.GetMatch().GetTags(), JSON: value(v.Listener.GetOperation(), v.Listener.GetValue())}
		case *meshv1.ProxyTemplate_Modification_NetworkFilter:
			m = filter(ir.TargetNetworkFilter, v.NetworkFilter)
		case *meshv1.ProxyTemplate_Modification_HttpFilter:
			m = filter(ir.TargetHTTPFilter, v.HttpFilter)
		case *meshv1.ProxyTemplate_Modification_VirtualHost:
			m = ir.Modification{Target: ir.TargetVirtualHost, Operation: v.VirtualHost.GetOperation(), Name: v.VirtualHost.GetMatch().GetName(),
				Origin: ir.Origin(v.VirtualHost.GetMatch().GetOrigin()), Routes: v.VirtualHost.GetMatch().GetRouteConfigurationName(),
				JSON: value(v.VirtualHost.GetOperation(), v.VirtualHost.GetValue())}
		default:
			return nil, fmt.Errorf("modification %d says nothing", i)
		}
		out.Modifications = append(out.Modifications, m)
	}
	types := map[meshv1.ProxyTemplate_Type]ir.PatchType{meshv1.ProxyTemplate_TYPE_LISTENER: ir.PatchListener, meshv1.ProxyTemplate_TYPE_ROUTE: ir.PatchRoute,
		meshv1.ProxyTemplate_TYPE_CLUSTER: ir.PatchCluster, meshv1.ProxyTemplate_TYPE_EXTENSION: ir.PatchExtension}
	for _, v := range c.GetPatches() {
		p := ir.Patch{Type: types[v.GetType()], Name: v.GetMatch().GetName(), NameRegex: v.GetMatch().GetNameRegex(), Origin: ir.Origin(v.GetMatch().GetOrigin())}
		if v.GetMergePatch() != "" {
			p.Merge = document(v.GetMergePatch())
		} else {
			p.Operations = operations(v.GetJsonPatch(), document)
		}
		out.Patches = append(out.Patches, p)
	}
	return out, failed
}

// operations are those of RFC 6902 as an array of JSON.
func operations(list []*meshv1.ProxyTemplate_JsonOperation, document func(string) string) string {
	var all []string
	for _, o := range list {
		members := []string{`"op":` + quoted(o.GetOp()), `"path":` + quoted(o.GetPath())}
		if o.GetFrom() != "" {
			members = append(members, `"from":`+quoted(o.GetFrom()))
		}
		if o.Value != nil {
			members = append(members, `"value":`+document(o.GetValue()))
		}
		all = append(all, "{"+strings.Join(members, ",")+"}")
	}
	return "[" + strings.Join(all, ",") + "]"
}

// quoted is a text of JSON; writing to memory can't fail.
func quoted(s string) string {
	var b bytes.Buffer
	_ = json.NewEncoder(&b).Encode(s)
	return strings.TrimSpace(b.String())
}
