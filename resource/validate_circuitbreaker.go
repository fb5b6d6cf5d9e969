package resource

import (
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// anyClient selects every client that has a service.
func anyClient() []*meshv1.Selector {
	return []*meshv1.Selector{{Match: map[string]string{TagService: AnyValue}}}
}

// normalizeCircuitBreaker lets a policy that names no sources hold for every client.
func normalizeCircuitBreaker(spec proto.Message) {
	if c := spec.(*meshv1.CircuitBreaker); len(c.GetSources()) == 0 {
		c.Sources = anyClient()
	}
}

// maxStandardDeviations bounds a factor that no endpoint could exceed.
const maxStandardDeviations = 1000

func validateCircuitBreaker(s scope, r *Resource) {
	t := Spec[*meshv1.CircuitBreaker](r)
	checkSelectors(s, "sources", t.GetSources())
	checkSelectors(s, "destinations", t.GetDestinations())
	c, conf := t.GetConf(), s.at("conf")
	if c.GetThresholds() == nil && c.GetDetectors() == nil {
		s.errorf("add thresholds: {maxRequests: 100}, or detectors: {totalErrors: {consecutive: 5}}", "needs conf with thresholds or detectors")
	}
	checkDuration(conf.at("interval"), c.GetInterval(), time.Millisecond, 0)
	checkDuration(conf.at("baseEjectionTime"), c.GetBaseEjectionTime(), time.Millisecond, 0)
	checkPercent(conf.at("maxEjectionPercent"), float64(c.GetMaxEjectionPercent()))
	d, detectors := c.GetDetectors(), conf.at("detectors")
	for _, x := range []struct {
		field string
		value *meshv1.CircuitBreaker_Consecutive
	}{{"totalErrors", d.GetTotalErrors()}, {"gatewayErrors", d.GetGatewayErrors()}, {"localErrors", d.GetLocalErrors()}} {
		if x.value != nil && x.value.Consecutive != nil && x.value.GetConsecutive() == 0 {
			detectors.at(x.field, "consecutive").errorf("leave the detector out to turn it off", "must be above 0")
		}
	}
	if f := d.GetStandardDeviation(); f != nil && f.Factor != nil && (f.GetFactor() < 0 || f.GetFactor() > maxStandardDeviations) {
		detectors.at("standardDeviation", "factor").errorf("", "a factor is from 0 to %d", maxStandardDeviations)
	}
	checkPercent(detectors.at("failure", "threshold"), float64(d.GetFailure().GetThreshold()))
}
