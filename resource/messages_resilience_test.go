package resource

import (
	"fmt"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func TestMessagesOfResilience(t *testing.T) {
	for _, c := range resilienceMessages {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := Decode("f", []byte(c.doc), Options{}).Err(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// The document's own sample selects destinations alone and writes its detectors in a way of its own.
func TestCircuitBreakerOfTheDocument(t *testing.T) {
	batch := Decode("f", []byte("apiVersion: kuma.io/v1alpha1\nkind: CircuitBreaker\nmetadata:\n  name: echo-circuit-breaker\n  namespace: kuma-system\nspec:\n  mesh: my-gateway-mesh\n"+
		"  selectors:\n    - match:\n        kuma.io/service: echo-service_echo-ns_svc_80 # Apply to the echo-service\n  conf:\n    outlierDetection:\n      interval: 5s\n      baseEjectionTime: 30s\n"+
		"      maxEjectionPercent: 50\n      consecutive5xxErrors: 5 # Eject after 5 consecutive 5xx errors\n      maxRequests: 100 # Max requests before checking health again\n"), Options{})
	if err := batch.Err(); err != nil {
		t.Fatal(err)
	}
	c := Spec[*meshv1.CircuitBreaker](batch.Resources[0])
	if got := c.GetSources(); len(got) != 1 || got[0].GetMatch()[TagService] != AnyValue {
		t.Errorf("sources are %v", got)
	}
	if got := c.GetDestinations(); len(got) != 1 || got[0].GetMatch()[TagService] != "echo-service_echo-ns_svc_80" {
		t.Errorf("destinations are %v", got)
	}
	conf := c.GetConf()
	if conf.GetInterval().AsDuration() != 5*time.Second || conf.GetBaseEjectionTime().AsDuration() != 30*time.Second || conf.GetMaxEjectionPercent() != 50 ||
		conf.GetDetectors().GetTotalErrors().GetConsecutive() != 5 || conf.GetThresholds().GetMaxRequests() != 100 {
		t.Errorf("conf is %v", conf)
	}
}

// resilienceMessages are documents with the errors they give, or none.
var resilienceMessages = []struct{ name, doc, want string }{
	{"circuit breaker of nothing", "type: CircuitBreaker\nname: c\n" + anyToAny,
		"f:1:1: needs conf with thresholds or detectors (add thresholds: {maxRequests: 100}, or detectors: {totalErrors: {consecutive: 5}})"},
	{"outliers in the author's words", "type: CircuitBreaker\nname: c\nselectors: [{match: {a: b}}]\nconf:\n  outlierDetection:\n    interval: 5\n    baseEjectionTime: 0s\n    consecutive5xxErrors: 0\n    maxEjectionPercent: 101\n    maxRequest: 1\n",
		"f:6:15: conf.outlierDetection.interval: expected a duration such as 5s, 100ms or 1h30m, found \"5\" (did you mean 5s?)\n" +
			"f:7:23: conf.outlierDetection.baseEjectionTime: must be at least 1ms\n" +
			"f:8:27: conf.outlierDetection.consecutive5xxErrors: must be above 0 (leave the detector out to turn it off)\n" +
			"f:9:25: conf.outlierDetection.maxEjectionPercent: a share is a percentage from 0 to 100\n" +
			"f:10:5: conf.outlierDetection.maxRequest: unknown field"},
	{"outliers twice", "type: CircuitBreaker\nname: c\nselectors: [{match: {a: b}}]\nconf: {interval: 1s, detectors: {}, outlierDetection: {interval: 2s}}\n",
		"f:4:56: conf.interval: the key is there twice (remove one of them)"},
	{"detectors", "type: CircuitBreaker\nname: c\n" + anyToAny + "conf: {detectors: {standardDeviation: {factor: -1}, failure: {threshold: 200}}}\n",
		"f:5:48: conf.detectors.standardDeviation.factor: a factor is from 0 to 1000\n" +
			"f:5:74: conf.detectors.failure.threshold: a share is a percentage from 0 to 100"},
	{"health check of nothing", "type: HealthCheck\nname: h\n" + anyToAny, "f:1:1: needs conf (add conf: {interval: 10s, timeout: 2s})"},
	{"health check", "type: HealthCheck\nname: h\n" + anyToAny + "conf:\n  interval: 0s\n  unhealthyThreshold: 0\n  healthyPanicThreshold: 120\n  eventLogPath: log\n" +
		"  http: {path: 'health check', expectedStatuses: [20], requestHeadersToAdd: [{header: {key: host, value: a}}, {header: {key: a, value: \"\\n\"}}]}\n  tcp: {receive: ['']}\n",
		"f:6:13: conf.interval: must be at least 1ms\n" +
			"f:7:23: conf.unhealthyThreshold: must be above 0\n" +
			"f:8:26: conf.healthyPanicThreshold: a share is a percentage from 0 to 100\n" +
			"f:9:17: conf.eventLogPath: \"log\" is no absolute path\n" +
			"f:10:16: conf.http.path: a path begins with / (write \"/health check\")\n" +
			"f:10:16: conf.http.path: a path holds no space, no # and no control character (write other characters as %XX)\n" +
			"f:10:51: conf.http.expectedStatuses[0]: a status code is a number from 100 to 599\n" +
			"f:10:93: conf.http.requestHeadersToAdd[0].header.key: the header host leads the request and cannot be changed\n" +
			"f:10:136: conf.http.requestHeadersToAdd[1].header.value: a header's value is one line without control characters\n" +
			"f:11:19: conf.tcp.receive[0]: no bytes to wait for"},
	{"longer than proxies know", "type: HealthCheck\nname: h\n" + anyToAny + "conf: {interval: 87601h}\n", "f:5:18: conf.interval: must be at most 87600h0m0s"},
	{"log of nothing", "type: HealthCheck\nname: h\n" + anyToAny + "conf: {alwaysLogHealthCheckFailures: true}\n",
		"f:5:38: conf.alwaysLogHealthCheckFailures: there is no file to log to (add eventLogPath)"},
	{"load balancer alone", "type: TrafficRoute\nname: t\n" + anyToAny + "conf: {loadBalancer: {random: {}}}\n", ""},
	{"the service that was asked for", "type: TrafficRoute\nname: route-all-default\n" + anyToAny + "conf: {loadBalancer: {roundRobin: {}}, destination: {kuma.io/service: '*'}}\n", ""},
	{"subsets of the service that was asked for", "type: TrafficRoute\nname: t\n" + anyToAny +
		"conf: {split: [{weight: 1, destination: {kuma.io/service: '*', version: v1}}, {weight: 1, destination: {kuma.io/service: '*', version: '*', a: b}}]}\n",
		"f:5:91: conf.split[1].destination: beside the service * there is at most one tag (name the service)\n" +
			"f:5:127: conf.split[1].destination[version]: a wildcard selects and cannot stand here"},
	{"hash without hashing", "type: TrafficRoute\nname: t\n" + anyToAny + "conf: {loadBalancer: {leastRequest: {choiceCount: 1}, hashPolicies: [{header: {name: a}}]}}\n",
		"f:5:51: conf.loadBalancer.leastRequest.choiceCount: must be at least 2 (use random for one)\n" +
			"f:5:55: conf.loadBalancer.hashPolicies: only ringHash and maglev hash requests (add ringHash: {} or maglev: {})"},
	{"two algorithms", "type: TrafficRoute\nname: t\n" + anyToAny + "conf: {loadBalancer: {random: {}, maglev: {}}}\n",
		"f:5:35: conf.loadBalancer.maglev: excludes random, which is there too (keep one of them)"},
	{"ring", "type: TrafficRoute\nname: t\n" + anyToAny + "conf: {loadBalancer: {ringHash: {hashFunction: SHA, minRingSize: 2000, maxRingSize: 1000}}}\n",
		"f:5:48: conf.loadBalancer.ringHash.hashFunction: expected XX_HASH, MURMUR_HASH_2, found \"SHA\"\n" +
			"f:5:85: conf.loadBalancer.ringHash.maxRingSize: must be at least minRingSize, which is 2000"},
	{"table", "type: TrafficRoute\nname: t\n" + anyToAny + "conf: {loadBalancer: {maglev: {tableSize: 65536}, hashPolicies: [{cookie: {name: 'a b', path: x}}, {}], slowStart: {window: 1s}}}\n",
		"f:5:43: conf.loadBalancer.maglev.tableSize: a table's size is a prime, at most 5000011 (leave it out for 65537)\n" +
			"f:5:82: conf.loadBalancer.hashPolicies[0].cookie.name: \"a b\" is no name for a cookie\n" +
			"f:5:95: conf.loadBalancer.hashPolicies[0].cookie.path: a path begins with / (write \"/x\")\n" +
			"f:5:100: conf.loadBalancer.hashPolicies[1]: needs one of header, cookie, sourceAddress and queryParameter\n" +
			"f:5:105: conf.loadBalancer.slowStart: only roundRobin and leastRequest start slowly (remove it)"},
	{"slow start", "type: TrafficRoute\nname: t\n" + anyToAny + "conf: {loadBalancer: {slowStart: {aggression: 0, minWeightPercent: 101}}}\n",
		"f:5:23: conf.loadBalancer.slowStart: needs window (add window: 30s)\n" +
			"f:5:47: conf.loadBalancer.slowStart.aggression: must be above 0\n" +
			"f:5:68: conf.loadBalancer.slowStart.minWeightPercent: a share is a percentage from 0 to 100"},
	{"locality", "type: LocalityPolicy\nname: l\ndestinations: [{match: {kuma.io/service: a}}]\nconf: {failover: [{from: [east, east], to: [West, south, south]}, {to: []}], weights: {west: 1000001}, failoverThreshold: 0}\n",
		"f:4:33: conf.failover[0].from[1]: the order for this zone is given already, by failover[0] (keep one of them)\n" +
			"f:4:45: conf.failover[0].to[0]: \"West\" is no name for a zone\n" +
			"f:4:58: conf.failover[0].to[2]: zone south is there twice (remove one of them)\n" +
			"f:4:67: conf.failover[1]: needs to with a zone\n" +
			"f:4:88: conf.weights[west]: a weight is at most 1000000\n" +
			"f:4:123: conf.failoverThreshold: a percentage from 1 to 100"},
	{"a long order", "type: LocalityPolicy\nname: l\ndestinations: [{match: {kuma.io/service: a}}]\nconf: {failover: [{to: [" + manyZones(101) + "]}]}\n",
		"f:4:20: conf.failover[0].to: an order has at most 100 zones (those that are left out come last, together)"},
	{"failover of nothing", "type: LocalityPolicy\nname: l\ndestinations: [{match: {kuma.io/service: a}}]\nconf: {localFirst: false, failover: [{to: [a]}]}\n",
		"f:4:27: conf.failover: nothing fails over where all zones serve at once (remove it, or localFirst: false)"},
	{"locality by client", "type: LocalityPolicy\nname: l\nsources: [{match: {kuma.io/service: a}}]\ndestinations: [{match: {kuma.io/service: a}}]\nconf: {}\n",
		"f:3:1: sources: unknown field"},
	{"conditions without lists", "type: Retry\nname: t\n" + anyToAny + "conf: {http: {retryOn: [retriable-headers, retriable_status_codes], rateLimitedBackOff: {}}, budget: {percent: 101}}\n",
		"f:5:25: conf.http.retryOn[0]: retriable_headers says not which (add retriableHeaders)\n" +
			"f:5:44: conf.http.retryOn[1]: retriable_status_codes says not which (add retriableStatusCodes)\n" +
			"f:5:69: conf.http.rateLimitedBackOff: needs resetHeaders (add resetHeaders: [{name: Retry-After}])\n" +
			"f:5:112: conf.budget.percent: a share is a percentage from 0 to 100"},
}

func manyZones(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("z%d", i))
	}
	return strings.Join(names, ", ")
}
