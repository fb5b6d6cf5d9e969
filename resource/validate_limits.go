package resource

import (
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func checkBodySize(s scope, b *meshv1.BodySize) {
	if _, err := Bytes(b.GetMax()); err != nil {
		s.at("max").errorf("write bytes, such as 512Ki, 1Mi or 10MB", "%v", err)
	}
}

func checkBandwidth(s scope, text string) {
	if _, err := Bandwidth(text); err != nil {
		s.errorf("write bits a second, such as 50 mbps", "%v", err)
	}
}

func checkBandwidthFilter(s scope, b *meshv1.Bandwidth) {
	if b.GetRequest() == "" && b.GetResponse() == "" {
		s.errorf("", "needs request or response")
	}
	if b.GetRequest() != "" {
		checkBandwidth(s.at("request"), b.GetRequest())
	}
	if b.GetResponse() != "" {
		checkBandwidth(s.at("response"), b.GetResponse())
	}
}

// Bounds of admission control, outside of which its proxies would not do what was meant.
const (
	maxSamplingWindow = time.Hour
	maxAggression     = 100
)

func checkAdmission(s scope, a *meshv1.AdmissionControl) {
	if w := a.GetSamplingWindow(); w != nil {
		checkDuration(s.at("samplingWindow"), w, time.Second, maxSamplingWindow)
		if w.AsDuration()%time.Second != 0 {
			s.at("samplingWindow").errorf("", "proxies count whole seconds")
		}
	}
	if p := a.SuccessRate; p != nil && !(*p >= 1 && *p <= 100) {
		s.at("successRate").errorf("", "a success rate is from 1 to 100 percent")
	}
	if p := a.Aggression; p != nil && !(*p >= 1 && *p <= maxAggression) {
		s.at("aggression").errorf("", "from 1 to %d", maxAggression)
	}
	checkPercentage(s.at("maxRejection"), a.MaxRejection)
}
