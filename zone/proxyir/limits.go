package proxyir

import (
	"math"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Defaults of admission control.
const (
	defaultSamplingWindow = 30 * time.Second
	defaultSuccessRate    = 95
	defaultMinRequestRate = 5
	defaultAggression     = 1
	defaultMaxRejection   = 80
)

func (b *builder) admission(from string, a *meshv1.AdmissionControl) *ir.AdmissionControl {
	out := &ir.AdmissionControl{
		Name: b.MeshName + "/" + from, Window: defaultSamplingWindow, SuccessRate: or(a.SuccessRate, defaultSuccessRate),
		MinRequestRate: or(a.MinRequestsPerSecond, defaultMinRequestRate), Aggression: or(a.Aggression, defaultAggression),
		MaxRejection: or(a.MaxRejection, defaultMaxRejection),
	}
	if a.GetSamplingWindow() != nil {
		out.Window = a.GetSamplingWindow().AsDuration()
	}
	return out
}

func (b *builder) bandwidth(from string, v *meshv1.Bandwidth) (*ir.Bandwidth, error) {
	out := &ir.Bandwidth{Name: b.MeshName + "/" + from}
	var err error
	if v.GetRequest() != "" {
		if out.RequestKiB, err = resource.Bandwidth(v.GetRequest()); err != nil {
			return nil, err
		}
	}
	if v.GetResponse() != "" {
		if out.ResponseKiB, err = resource.Bandwidth(v.GetResponse()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// faults keeps an empty list where there are faults that do nothing, so that it still comes before that of others. What
// validation would have refused does nothing.
func faults(list ...*meshv1.Fault) []ir.Fault {
	out := []ir.Fault{}
	for _, f := range list {
		var one ir.Fault
		if a := f.GetAbort(); a != nil {
			one.AbortStatus, one.AbortShare = a.GetHttpStatus(), share(a.Percentage)
		}
		if d := f.GetDelay(); d != nil {
			one.Delay, one.DelayShare = d.GetValue().AsDuration(), share(d.Percentage)
		}
		if b := f.GetResponseBandwidth(); b != nil {
			if kib, err := resource.Bandwidth(b.GetLimit()); err == nil {
				one.ResponseKiB, one.ResponseShare = kib, share(b.Percentage)
			}
		}
		out = append(out, one)
	}
	return out
}

// share is a percentage in millionths.
func share(percentage *float64) uint32 { return uint32(math.Round(or(percentage, 100) * 10_000)) }

func or[T any](v *T, otherwise T) T {
	if v == nil {
		return otherwise
	}
	return *v
}
