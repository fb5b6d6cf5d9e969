package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	admissionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/admission_control/v3"
	bandwidthv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/bandwidth_limit/v3"
	bodysizev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/body_size_limit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

const (
	admissionName = "envoy.filters.http.admission_control"
	bandwidthName = "envoy.filters.http.bandwidth_limit"
	bodySizeName  = "envoy.filters.http.body_size_limit"
)

// routeBodySize bounds requests as they stream by; nothing is held back.
func routeBodySize(r *ir.Route) (validated, error) {
	if r.Filters.MaxBody == 0 {
		return nil, nil
	}
	return ownChain([]namedFilter{{bodySizeName, &bodysizev3.BodySizeLimit{MaxRequestBytes: wrapperspb.UInt64(r.Filters.MaxBody)}}})
}

// bandwidths are the bounds of a proxy, which all routes of the same bound share.
func bandwidths(p *ir.Proxy) (validated, error) {
	return namedChains(p, func(r *ir.Route) (string, func() ([]namedFilter, error)) {
		b := r.Filters.Bandwidth
		if b == nil {
			return "", nil
		}
		return b.Name, func() ([]namedFilter, error) {
			var list []namedFilter
			add := func(mode bandwidthv3.BandwidthLimit_EnableMode, way string, limit uint64) {
				if limit > 0 {
					list = append(list, namedFilter{bandwidthName + "/" + way, &bandwidthv3.BandwidthLimit{
						StatPrefix: "bandwidth_" + way, EnableMode: mode, LimitKbps: wrapperspb.UInt64(limit),
					}})
				}
			}
			add(bandwidthv3.BandwidthLimit_REQUEST, "request", b.RequestKiB)
			add(bandwidthv3.BandwidthLimit_RESPONSE, "response", b.ResponseKiB)
			return list, nil
		}
	})
}

func routeBandwidth(r *ir.Route) (validated, error) {
	if r.Filters.Bandwidth == nil {
		return nil, nil
	}
	return chooseChain(r.Filters.Bandwidth.Name)
}

// admissions are the success rates that a proxy watches, each for all routes of the same control.
func admissions(p *ir.Proxy) (validated, error) {
	return namedChains(p, func(r *ir.Route) (string, func() ([]namedFilter, error)) {
		a := r.Filters.Admission
		if a == nil {
			return "", nil
		}
		return a.Name, func() ([]namedFilter, error) {
			return []namedFilter{{admissionName, &admissionv3.AdmissionControl{
				EvaluationCriteria: &admissionv3.AdmissionControl_SuccessCriteria_{SuccessCriteria: &admissionv3.AdmissionControl_SuccessCriteria{
					HttpCriteria: &admissionv3.AdmissionControl_SuccessCriteria_HttpCriteria{HttpSuccessStatus: []*typev3.Int32Range{{Start: 100, End: 500}}},
					// As Envoy's own default, which it takes only where nothing is said at all.
					GrpcCriteria: &admissionv3.AdmissionControl_SuccessCriteria_GrpcCriteria{GrpcSuccessStatus: []uint32{0, 1, 2, 3, 5, 6, 16, 9, 11, 7, 12}},
				}},
				SamplingWindow:          durationpb.New(a.Window),
				Aggression:              &corev3.RuntimeDouble{DefaultValue: a.Aggression, RuntimeKey: "zoneforge.admission.aggression"},
				SrThreshold:             &corev3.RuntimePercent{DefaultValue: &typev3.Percent{Value: a.SuccessRate}, RuntimeKey: "zoneforge.admission.success_rate"},
				RpsThreshold:            &corev3.RuntimeUInt32{DefaultValue: a.MinRequestRate, RuntimeKey: "zoneforge.admission.min_requests_per_second"},
				MaxRejectionProbability: &corev3.RuntimePercent{DefaultValue: &typev3.Percent{Value: a.MaxRejection}, RuntimeKey: "zoneforge.admission.max_rejection"},
			}}}, nil
		}
	})
}

func routeAdmission(r *ir.Route) (validated, error) {
	if r.Filters.Admission == nil {
		return nil, nil
	}
	return chooseChain(r.Filters.Admission.Name)
}
