package proxyir_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// dice make specs of values at and beyond the bounds.
type dice struct{ *rand.Rand }

func one[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

func (d dice) number() *uint32 {
	return one(d, nil, proto.Uint32(0), proto.Uint32(1), proto.Uint32(100), proto.Uint32(101), proto.Uint32(1<<32-1))
}

func (d dice) float() *float64 {
	return one(d, nil, proto.Float64(-1), proto.Float64(0), proto.Float64(0.0001), proto.Float64(50), proto.Float64(100), proto.Float64(1e9))
}

func (d dice) duration() *durationpb.Duration {
	return one(d, nil, durationpb.New(-1), durationpb.New(0), durationpb.New(1), durationpb.New(time.Millisecond), durationpb.New(time.Hour), durationpb.New(10*365*24*time.Hour), durationpb.New(1<<63-1))
}

func (d dice) name() string {
	return one(d, "", "a", "x-user", "a b", ":path", "host", "a\n", "é")
}

func (d dice) breaker() *meshv1.CircuitBreaker_Conf {
	consecutive := func() *meshv1.CircuitBreaker_Consecutive {
		return one(d, nil, &meshv1.CircuitBreaker_Consecutive{Consecutive: d.number()})
	}
	return &meshv1.CircuitBreaker_Conf{
		Interval: d.duration(), BaseEjectionTime: d.duration(), MaxEjectionPercent: d.number(), SplitExternalAndLocalErrors: d.IntN(2) == 0,
		Thresholds: one(d, nil, &meshv1.CircuitBreaker_Thresholds{MaxConnections: d.number(), MaxPendingRequests: d.number(), MaxRetries: d.number(), MaxRequests: d.number()}),
		Detectors: one(d, nil, &meshv1.CircuitBreaker_Detectors{TotalErrors: consecutive(), GatewayErrors: consecutive(), LocalErrors: consecutive(),
			StandardDeviation: &meshv1.CircuitBreaker_StandardDeviation{RequestVolume: d.number(), MinimumHosts: d.number(), Factor: d.float()},
			Failure:           &meshv1.CircuitBreaker_Failure{RequestVolume: d.number(), MinimumHosts: d.number(), Threshold: d.number()}}),
	}
}

func (d dice) check() *meshv1.HealthCheck_Conf {
	return &meshv1.HealthCheck_Conf{
		Interval: d.duration(), Timeout: d.duration(), UnhealthyThreshold: d.number(), HealthyThreshold: d.number(), InitialJitter: d.duration(),
		IntervalJitter: d.duration(), HealthyPanicThreshold: d.float(), NoTrafficInterval: d.duration(), FailTrafficOnPanic: d.IntN(2) == 0,
		Tcp: one(d, nil, &meshv1.HealthCheck_Tcp{Send: []byte(d.name()), Receive: [][]byte{[]byte(d.name())}}),
		Http: one(d, nil, &meshv1.HealthCheck_Http{Path: "/" + d.name(), ExpectedStatuses: []uint32{one[uint32](d, 99, 100, 200, 599, 600)},
			RequestHeadersToAdd: []*meshv1.HealthCheck_HeaderToAdd{{Header: &meshv1.HealthCheck_HeaderValue{Key: d.name(), Value: d.name()}}}}),
		Grpc: one(d, nil, &meshv1.HealthCheck_Grpc{ServiceName: d.name(), Authority: d.name()}),
	}
}

func (d dice) balancer() *meshv1.LoadBalancer {
	size := func() uint64 { return one[uint64](d, 0, 1, 2, 1024, 65537, 5_000_011, 8<<20, 1<<63) }
	out := &meshv1.LoadBalancer{SlowStart: one(d, nil, &meshv1.LoadBalancer_SlowStart{Window: d.duration(), Aggression: d.float(), MinWeightPercent: d.float()})}
	switch d.IntN(5) {
	case 0:
		out.Algorithm = &meshv1.LoadBalancer_LeastRequest_{LeastRequest: &meshv1.LoadBalancer_LeastRequest{ChoiceCount: one[uint32](d, 0, 1, 2, 1<<32-1)}}
	case 1:
		out.Algorithm = &meshv1.LoadBalancer_RingHash_{RingHash: &meshv1.LoadBalancer_RingHash{MinRingSize: size(), MaxRingSize: size()}}
	case 2:
		out.Algorithm = &meshv1.LoadBalancer_Maglev_{Maglev: &meshv1.LoadBalancer_Maglev{TableSize: size()}}
	case 3:
		out.Algorithm = &meshv1.LoadBalancer_Random_{Random: &meshv1.LoadBalancer_Random{}}
	}
	for range d.IntN(3) {
		out.HashPolicies = append(out.HashPolicies, one(d,
			&meshv1.LoadBalancer_HashPolicy{Policy: &meshv1.LoadBalancer_HashPolicy_Header{Header: &meshv1.LoadBalancer_Header{Name: d.name()}}},
			&meshv1.LoadBalancer_HashPolicy{Policy: &meshv1.LoadBalancer_HashPolicy_Cookie{Cookie: &meshv1.LoadBalancer_Cookie{Name: d.name(), Path: one(d, "", "/"), Ttl: d.duration()}}},
			&meshv1.LoadBalancer_HashPolicy{Policy: &meshv1.LoadBalancer_HashPolicy_QueryParameter{QueryParameter: &meshv1.LoadBalancer_QueryParameter{Name: d.name()}}},
			&meshv1.LoadBalancer_HashPolicy{}))
	}
	return out
}

func (d dice) retry() *meshv1.Retry_Conf {
	limited := one(d, nil, &meshv1.Retry_RateLimitedBackOff{ResetHeaders: []*meshv1.Retry_ResetHeader{{Name: d.name()}}, MaxInterval: d.duration()})
	return &meshv1.Retry_Conf{Budget: one(d, nil, &meshv1.Retry_Budget{Percent: d.float(), MinConcurrency: d.number()}), Http: &meshv1.Retry_Http{
		NumRetries: d.number(), PerTryTimeout: d.duration(), BackOff: &meshv1.Retry_BackOff{BaseInterval: d.duration(), MaxInterval: d.duration()},
		RetriableHeaders:   map[string]*meshv1.StringMatcher{d.name(): {Matcher: &meshv1.StringMatcher_Prefix{Prefix: d.name()}}},
		RateLimitedBackOff: limited, AvoidPreviousHosts: d.IntN(2) == 0}}
}

// What passes its checks is built, at a sidecar and at a gateway: nothing of it is left for Envoy's own rules to refuse.
func TestEndpointPoliciesThatPassAreBuilt(t *testing.T) {
	seed := rand.Uint64()
	d := dice{rand.New(rand.NewPCG(seed, 0))}
	every := sel(tags{resource.TagService: "*"})
	passed := map[string]int{}
	for range 20_000 {
		var spec proto.Message
		kind := one(d, "CircuitBreaker", "HealthCheck", "TrafficRoute", "Retry")
		switch kind {
		case "CircuitBreaker":
			spec = &meshv1.CircuitBreaker{Sources: every, Destinations: every, Conf: d.breaker()}
		case "HealthCheck":
			spec = &meshv1.HealthCheck{Sources: every, Destinations: every, Conf: d.check()}
		case "TrafficRoute":
			spec = &meshv1.TrafficRoute{Sources: every, Destinations: every, Conf: &meshv1.TrafficRoute_Conf{LoadBalancer: d.balancer()}}
		case "Retry":
			spec = &meshv1.Retry{Sources: every, Destinations: every, Conf: d.retry()}
		}
		r := res(kind, "p", spec)
		if len(resource.Validate(r)) > 0 {
			continue
		}
		passed[kind]++
		result, err := proxyir.Sidecar(input(nil, sidecar(), map[string][]*resource.Resource{kind: {r}}))
		if err == nil {
			_, err = xds.Build(result.Proxy)
		}
		if err != nil || len(result.Rejected) > 0 {
			t.Fatalf("seed %d: %v: %v: %v", seed, spec, err, result)
		}
	}
	for _, kind := range []string{"CircuitBreaker", "HealthCheck", "TrafficRoute", "Retry"} {
		if passed[kind] == 0 {
			t.Errorf("seed %d: no %s passes its checks", seed, kind)
		}
	}
}
