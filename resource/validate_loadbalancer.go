package resource

import (
	"math/big"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// What proxies take.
const (
	maxRingSize  = 8 << 20
	maxTableSize = 5_000_011
)

func checkLoadBalancer(s scope, l *meshv1.LoadBalancer) {
	if l == nil {
		return
	}
	hashes, starts := false, false
	switch a := l.GetAlgorithm().(type) {
	case *meshv1.LoadBalancer_LeastRequest_:
		starts = true
		if a.LeastRequest.GetChoiceCount() == 1 {
			s.at("leastRequest", "choiceCount").errorf("use random for one", "must be at least 2")
		}
	case *meshv1.LoadBalancer_RingHash_:
		hashes = true
		checkRing(s.at("ringHash"), a.RingHash)
	case *meshv1.LoadBalancer_Maglev_:
		hashes = true
		if n := a.Maglev.GetTableSize(); n != 0 && (n > maxTableSize || !new(big.Int).SetUint64(n).ProbablyPrime(0)) {
			s.at("maglev", "tableSize").errorf("leave it out for 65537", "a table's size is a prime, at most %d", maxTableSize)
		}
	case nil, *meshv1.LoadBalancer_RoundRobin_:
		starts = true
	}
	if len(l.GetHashPolicies()) > 0 && !hashes {
		s.at("hashPolicies").errorf("add ringHash: {} or maglev: {}", "only ringHash and maglev hash requests")
	}
	for i, p := range l.GetHashPolicies() {
		checkHashPolicy(s.at("hashPolicies").index(i), p)
	}
	w, slow := l.GetSlowStart(), s.at("slowStart")
	switch {
	case w == nil:
	case !starts:
		slow.errorf("remove it", "only roundRobin and leastRequest start slowly")
	case w.GetWindow() == nil:
		slow.errorf("add window: 30s", "needs window")
	}
	checkDuration(slow.at("window"), w.GetWindow(), time.Millisecond, 0)
	if w != nil && w.Aggression != nil && w.GetAggression() <= 0 {
		slow.at("aggression").errorf("", "must be above 0")
	}
	checkPercent(slow.at("minWeightPercent"), w.GetMinWeightPercent())
}

func checkRing(s scope, r *meshv1.LoadBalancer_RingHash) {
	const defaultMin = 1024
	least, most := r.GetMinRingSize(), r.GetMaxRingSize()
	if least == 0 {
		least = defaultMin
	}
	if least > maxRingSize {
		s.at("minRingSize").errorf("", "a ring has at most %d places", maxRingSize)
	}
	switch {
	case most > maxRingSize:
		s.at("maxRingSize").errorf("", "a ring has at most %d places", maxRingSize)
	case most != 0 && most < least:
		s.at("maxRingSize").errorf("", "must be at least minRingSize, which is %d", least)
	}
}

func checkHashPolicy(s scope, p *meshv1.LoadBalancer_HashPolicy) {
	switch v := p.GetPolicy().(type) {
	case nil:
		s.errorf("", "needs one of header, cookie, sourceAddress and queryParameter")
	case *meshv1.LoadBalancer_HashPolicy_Header:
		if h := s.at("header", "name"); !token.MatchString(v.Header.GetName()) {
			h.errorf("", "%q is no name for a header", v.Header.GetName())
		}
	case *meshv1.LoadBalancer_HashPolicy_Cookie:
		if !token.MatchString(v.Cookie.GetName()) {
			s.at("cookie", "name").errorf("", "%q is no name for a cookie", v.Cookie.GetName())
		}
		checkDuration(s.at("cookie", "ttl"), v.Cookie.GetTtl(), 0, 0)
		if v.Cookie.GetPath() != "" {
			checkCookiePath(s.at("cookie", "path"), v.Cookie.GetPath())
		}
	case *meshv1.LoadBalancer_HashPolicy_QueryParameter:
		if v.QueryParameter.GetName() == "" {
			s.at("queryParameter").errorf("", "needs the name of a parameter")
		}
	}
}

// checkCookiePath wants a path that stands in a Set-Cookie header as it is.
func checkCookiePath(s scope, path string) {
	checkPath(s, path)
	for _, r := range path {
		if r <= ' ' || r >= '\x7f' || r == ';' || r == ',' {
			s.errorf("", "the path of a cookie holds no %q", r)
			return
		}
	}
}
