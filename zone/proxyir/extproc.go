package proxyir

import (
	"fmt"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// defaultExtProcTimeout is for each answer of the service; Envoy's own 200ms are little for one in another zone.
const defaultExtProcTimeout = time.Second

func (b *builder) extProc(f *ir.Filters, e *meshv1.ExtProc) error {
	cluster, err := b.target(e.GetTarget(), ir.HTTP2)
	if err != nil {
		return fmt.Errorf("extProc: %w", err)
	}
	if b.clusters[cluster].Protocol != ir.HTTP2 {
		return fmt.Errorf("extProc: %s speaks no gRPC: give its inbounds kuma.io/protocol: grpc", tagsText(e.GetTarget().GetDestination()))
	}
	f.ExtProc = &ir.ExtProc{
		Cluster: cluster, Request: extProcPart(e.GetRequest()), Response: extProcPart(e.GetResponse()), Timeout: defaultExtProcTimeout,
		FailOpen: e.GetFailOpen(), AllowHeaders: e.GetMutations().GetAllow(), DenyHeaders: e.GetMutations().GetDeny(),
		RequestAttributes: e.GetRequestAttributes(), ResponseAttributes: e.GetResponseAttributes(),
	}
	if e.GetTimeout() != nil {
		f.ExtProc.Timeout = e.GetTimeout().AsDuration()
	}
	return nil
}

var bodyModes = map[meshv1.ExtProc_Body]ir.BodyMode{
	meshv1.ExtProc_BODY_UNSPECIFIED:      ir.BodyNone,
	meshv1.ExtProc_BODY_NONE:             ir.BodyNone,
	meshv1.ExtProc_BODY_BUFFERED:         ir.BodyBuffered,
	meshv1.ExtProc_BODY_BUFFERED_PARTIAL: ir.BodyBufferedPartial,
	meshv1.ExtProc_BODY_STREAMED:         ir.BodyStreamed,
}

// extProcPart is what of a message is sent: nothing of one that the policy doesn't name.
func extProcPart(p *meshv1.ExtProc_Part) ir.ExtProcPart {
	if p == nil {
		return ir.ExtProcPart{Body: ir.BodyNone}
	}
	return ir.ExtProcPart{Headers: p.GetHeaders() != meshv1.ExtProc_HEADERS_SKIP, Body: bodyModes[p.GetBody()]}
}
