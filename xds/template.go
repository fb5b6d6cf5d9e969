package xds

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zoneforge/zoneforge/ir"
)

// editor holds the resources of one proxy, unpacked while a Template changes them.
type editor struct {
	listeners  []*edited[*listenerv3.Listener]
	routes     []*edited[*routev3.RouteConfiguration]
	clusters   []*edited[*clusterv3.Cluster]
	extensions []*edited[*corev3.TypedExtensionConfig]
}

// edited is one resource of an editor. The resource is that which it was, until a change was made.
type edited[M validated] struct {
	name    string
	origin  ir.Origin
	tags    map[string]string
	message M
	was     *Resource
	changed bool
}

// applyTemplate changes what was built as a proxy's Template says: resources, then modifications, then patches. Names stay, and
// what results obeys Envoy's rules, within packed messages too.
func applyTemplate(p *ir.Proxy, names *known, built *Resources) error {
	e, err := edit(p, built)
	if err != nil {
		return err
	}
	t := p.Template
	var errs []error
	for _, r := range t.Resources {
		errs = append(errs, inEach(e.add(r), fmt.Sprintf("%s: resource %q", t.From, r.Name)))
	}
	for i := range t.Modifications {
		errs = append(errs, inEach(e.modify(&t.Modifications[i]), fmt.Sprintf("%s: modification %d", t.From, i)))
	}
	for i := range t.Patches {
		errs = append(errs, inEach(e.patch(&t.Patches[i]), fmt.Sprintf("%s: patch %d", t.From, i)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	errs = make([]error, 4)
	built.Listeners, errs[0] = finish(TypeListener, names.own, e.listeners)
	built.Routes, errs[1] = finish(TypeRoute, names.own, e.routes)
	built.Clusters, errs[2] = finish(TypeCluster, names.own, e.clusters)
	built.Extensions, errs[3] = finish(TypeExtension, names.own, e.extensions)
	return inEach(errors.Join(errs...), t.From)
}

func edit(p *ir.Proxy, built *Resources) (*editor, error) {
	e := &editor{}
	listeners, routes := map[string]*edited[*listenerv3.Listener]{}, map[string]ir.Origin{}
	origin := ir.OriginOther
	if p.Kind == ir.Gateway {
		origin = ir.OriginGateway
	}
	var err [4]error
	e.listeners, err[0] = unpackAll[*listenerv3.Listener](built.Listeners)
	e.routes, err[1] = unpackAll[*routev3.RouteConfiguration](built.Routes)
	e.clusters, err[2] = unpackAll[*clusterv3.Cluster](built.Clusters)
	e.extensions, err[3] = unpackAll[*corev3.TypedExtensionConfig](built.Extensions)
	if err := errors.Join(err[:]...); err != nil {
		return nil, err
	}
	for _, l := range e.listeners {
		listeners[l.name] = l
	}
	for _, l := range p.Listeners {
		known := listeners[l.Name]
		switch l.Direction {
		case ir.Inbound:
			known.origin = ir.OriginInbound
		case ir.Outbound:
			known.origin = ir.OriginOutbound
		case ir.Edge:
			known.origin = origin
		}
		known.tags = l.Tags
		for _, c := range l.Chains {
			if c.HTTP != nil {
				routes[c.HTTP.RouteConfig] = known.origin
			}
			if c.TCP != nil && c.TCP.Authorization != "" {
				routes[c.TCP.Authorization] = known.origin
			}
		}
	}
	for _, r := range e.routes {
		r.origin = cmp.Or(routes[r.name], ir.OriginOther)
	}
	for _, x := range e.extensions {
		x.origin = cmp.Or(routes[x.name], ir.OriginOther)
	}
	clusters := map[string]ir.Origin{}
	for _, c := range p.Clusters {
		switch {
		case p.Kind == ir.Gateway:
			clusters[c.Name] = ir.OriginGateway
		case c.EndpointsName != "":
			clusters[c.Name] = ir.OriginOutbound
		case c.Static != nil:
			clusters[c.Name] = ir.OriginInbound
		}
	}
	for _, c := range e.clusters {
		c.origin = cmp.Or(clusters[c.name], ir.OriginOther)
	}
	return e, nil
}

func unpackAll[M validated](list []*Resource) ([]*edited[M], error) {
	var out []*edited[M]
	for _, r := range list {
		m, err := r.Any().UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		one, ok := m.(M)
		if !ok {
			return nil, fmt.Errorf("%s is a %T", r, m)
		}
		out = append(out, &edited[M]{name: r.Name, origin: ir.OriginOther, message: one, was: r})
	}
	return out, nil
}

// finish packs what was changed, and sorts by name.
func finish[M validated](typeURL string, own *[]string, list []*edited[M]) ([]*Resource, error) {
	var out []*Resource
	var errs []error
	for _, one := range list {
		if !one.changed {
			out = append(out, one.was)
			continue
		}
		where := fmt.Sprintf("what becomes of %s %q", shortType(typeURL), one.name)
		if got := nameOf(one.message); got != one.name {
			errs = append(errs, fmt.Errorf("%s: it is called %q then, but a name can't be changed", where, got))
			continue
		}
		if err := validateDeep(one.message.ProtoReflect()); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
			continue
		}
		r, err := NewResource(typeURL, one.name, one.message)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.personalize(own)
		r.Behind = one.was != nil && one.was.Behind
		out = append(out, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b *Resource) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func shortType(typeURL string) string {
	return map[string]string{TypeListener: "listener", TypeRoute: "routes", TypeCluster: "cluster", TypeExtension: "extension"}[typeURL]
}

func nameOf(m proto.Message) string {
	named, ok := m.(interface{ GetName() string })
	if !ok {
		return ""
	}
	return named.GetName()
}

// add adds a resource, or replaces that of its name.
func (e *editor) add(r ir.TemplateResource) error {
	var packed anypb.Any
	if err := parse(r.JSON, &packed); err != nil {
		return err
	}
	if err := addable(&packed); err != nil {
		return err
	}
	m, err := packed.UnmarshalNew()
	if err != nil {
		return err
	}
	if got := nameOf(m); got != r.Name {
		return fmt.Errorf("the resource calls itself %q: give both the same name", got)
	}
	switch v := m.(type) {
	case *listenerv3.Listener:
		e.listeners = put(e.listeners, v)
	case *routev3.RouteConfiguration:
		e.routes = put(e.routes, v)
	case *clusterv3.Cluster:
		e.clusters = put(e.clusters, v)
	case *corev3.TypedExtensionConfig:
		e.extensions = put(e.extensions, v)
	}
	return nil
}

func put[M validated](list []*edited[M], m M) []*edited[M] {
	for _, one := range list {
		if one.name == nameOf(m) {
			one.message, one.changed = m, true
			return list
		}
	}
	return append(list, &edited[M]{name: nameOf(m), origin: ir.OriginOther, message: m, changed: true})
}

// parse reads a message, strictly.
func parse(document string, m proto.Message) error {
	if err := protojson.Unmarshal([]byte(document), m); err != nil {
		return fmt.Errorf("not as Envoy's schema has it: %w", tidy(err))
	}
	return nil
}
