package xds

import (
	"fmt"

	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
)

const faultName = "envoy.filters.http.fault"

// routeFaults is one filter for each fault of a route, since each has its own dice.
func routeFaults(r *ir.Route) (validated, error) {
	var list []namedFilter
	for i, f := range r.Filters.Faults {
		if err := notNegative(namedDuration{"fault: delay", f.Delay}); err != nil {
			return nil, err
		}
		out := &faultv3.HTTPFault{
			// The node that a client claims to be would make statistics without bound.
			DisableDownstreamClusterStats: true,
		}
		if f.AbortStatus != 0 {
			out.Abort = &faultv3.FaultAbort{ErrorType: &faultv3.FaultAbort_HttpStatus{HttpStatus: f.AbortStatus}, Percentage: millionths(f.AbortShare)}
		}
		if f.Delay != 0 {
			out.Delay = &commonfaultv3.FaultDelay{
				FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(f.Delay)}, Percentage: millionths(f.DelayShare),
			}
		}
		if f.ResponseKiB != 0 {
			out.ResponseRateLimit = &commonfaultv3.FaultRateLimit{
				LimitType:  &commonfaultv3.FaultRateLimit_FixedLimit_{FixedLimit: &commonfaultv3.FaultRateLimit_FixedLimit{LimitKbps: f.ResponseKiB}},
				Percentage: millionths(f.ResponseShare),
			}
		}
		list = append(list, namedFilter{fmt.Sprintf("%s/%d", faultName, i), out})
	}
	return ownChain(list)
}

func millionths(n uint32) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: n, Denominator: typev3.FractionalPercent_MILLION}
}
