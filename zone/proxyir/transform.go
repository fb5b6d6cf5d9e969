package proxyir

import (
	"cmp"
	"fmt"
	"net/url"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func transform(f *ir.Filters, t *meshv1.Transform) error {
	request, err := transformation(t.GetRequest())
	if err != nil {
		return err
	}
	response, err := transformation(t.GetResponse())
	if err != nil {
		return err
	}
	f.Transform = &ir.Transform{Request: request, Response: response}
	return nil
}

func transformation(m *meshv1.Transform_Message) (*ir.Transformation, error) {
	if m == nil {
		return nil, nil
	}
	out := &ir.Transformation{}
	if m.GetHeaders() != nil {
		headerChange(&out.Headers, m.GetHeaders())
	}
	if b := m.GetBody(); b != nil {
		out.Body = &ir.BodyTemplate{Merge: b.GetMerge() != "", Text: b.GetText(), ContentType: b.GetContentType()}
		if object := cmp.Or(b.GetMerge(), b.GetReplace()); object != "" {
			raw, err := resource.JSONOf(object)
			if err != nil {
				return nil, fmt.Errorf("transform: %w", err)
			}
			out.Body.JSON = string(raw)
		}
	}
	return out, nil
}

func lua(l *meshv1.Lua) *ir.Lua { return &ir.Lua{Script: l.GetScript(), FailOpen: l.GetFailOpen()} }

// defaultTransformTimeout is for answers of a transformation service.
const defaultTransformTimeout = 5 * time.Second

func (b *builder) transformService(f *ir.Filters, t *meshv1.TransformService) error {
	cluster, err := b.target(t.GetTarget(), ir.HTTP1)
	if err != nil {
		return err
	}
	host := t.GetTarget().GetDestination()[resource.TagService]
	if u, err := url.Parse(t.GetTarget().GetUrl()); err == nil && u.Host != "" {
		host = u.Host
	}
	f.TransformService = &ir.TransformService{
		Cluster: cluster, Host: host, Path: cmp.Or(t.GetPath(), "/"), Request: t.GetRequest(), Response: t.GetResponse(),
		Timeout: defaultTransformTimeout, FailOpen: t.GetFailOpen(),
	}
	if t.GetTimeout() != nil {
		f.TransformService.Timeout = t.GetTimeout().AsDuration()
	}
	return nil
}
