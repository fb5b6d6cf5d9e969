package resource

import (
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func validateFaultInjection(s scope, r *Resource) {
	f := Spec[*meshv1.FaultInjection](r)
	checkSelectors(s, "sources", f.GetSources())
	checkSelectors(s, "destinations", f.GetDestinations())
	if len(f.GetConf().GetHttp()) == 0 {
		s.at("conf").errorf("", "needs http with abort, delay or responseBandwidth")
	}
	for i, one := range f.GetConf().GetHttp() {
		checkFault(s.at("conf", "http").index(i), one)
	}
}

// maxFaultDelay bounds how long a request may be held back.
const maxFaultDelay = time.Hour

func checkFault(s scope, f *meshv1.Fault) {
	if f.GetAbort() == nil && f.GetDelay() == nil && f.GetResponseBandwidth() == nil {
		s.errorf("", "needs abort, delay or responseBandwidth")
	}
	if a := f.GetAbort(); a != nil {
		if a.GetHttpStatus() < 200 || a.GetHttpStatus() > 599 {
			s.at("abort", "httpStatus").errorf("", "%d is no status of an answer; use 200 to 599", a.GetHttpStatus())
		}
		checkPercentage(s.at("abort", "percentage"), a.Percentage)
	}
	if d := f.GetDelay(); d != nil {
		if d.GetValue() == nil {
			s.at("delay", "value").errorf("", "needs a duration, such as 5s")
		}
		// Proxies count milliseconds.
		checkDuration(s.at("delay", "value"), d.GetValue(), time.Millisecond, maxFaultDelay)
		checkPercentage(s.at("delay", "percentage"), d.Percentage)
	}
	if b := f.GetResponseBandwidth(); b != nil {
		checkBandwidth(s.at("responseBandwidth", "limit"), b.GetLimit())
		checkPercentage(s.at("responseBandwidth", "percentage"), b.Percentage)
	}
}

func checkPercentage(s scope, p *float64) {
	if p != nil && !(*p >= 0 && *p <= 100) {
		s.errorf("", "a share is from 0 to 100 percent")
	}
}
