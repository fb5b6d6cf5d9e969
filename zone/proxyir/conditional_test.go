package proxyir

import (
	"fmt"
	"math/rand"
	"regexp"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func condition(match meshv1.MatchType, path, method string) *meshv1.RequestMatch {
	return &meshv1.RequestMatch{Path: &meshv1.PathMatch{Match: match, Value: path}, Method: method}
}

// request meets a match as Envoy would decide, which compares the pseudo headers with their whole value.
func request(m ir.RouteMatch, path, query, method string) bool {
	if !meets(path, m.Path) || m.Method != nil && m.Method.Value != method {
		return false
	}
	for _, h := range m.Headers {
		value := map[string]string{pathHeader: path + query, methodHeader: method}[h.Name]
		if h.Kind == ir.TextExact && h.Value != value || h.Kind == ir.TextRegex && !regexp.MustCompile(`^(?:`+h.Value+`)$`).MatchString(value) {
			return false
		}
	}
	return true
}

// TestNarrowTakesJustTheRequestsOfBoth compares the narrowed match with asking for both, over all pairs and many paths.
func TestNarrowTakesJustTheRequestsOfBoth(t *testing.T) {
	kinds := []meshv1.MatchType{meshv1.MatchType_MATCH_TYPE_EXACT, meshv1.MatchType_MATCH_TYPE_PREFIX, meshv1.MatchType_MATCH_TYPE_REGEX}
	paths := []string{"/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/a.b"}
	var all []*meshv1.RequestMatch
	for _, k := range kinds {
		for _, p := range paths {
			for _, m := range []string{"", "GET", "POST"} {
				all = append(all, condition(k, p, m))
			}
		}
	}
	seen := map[relation]bool{}
	for _, x := range all {
		for _, y := range all {
			route := requestMatch(x)
			narrowed, relation := narrow(route, y)
			seen[relation] = true
			for _, path := range append(paths, "/aXb", "/a/b/c/d", "/a//") {
				for _, query := range []string{"", "?q=/a/b"} {
					for _, method := range []string{"GET", "POST"} {
						both := request(route, path, query, method) && request(requestMatch(y), path, query, method)
						got := relation != disjoint && request(narrowed, path, query, method)
						if got != both || relation == whole && got != request(route, path, query, method) {
							t.Fatalf("%v and %v (relation %d): %s %s%s is taken: %v, want %v", x, y, relation, method, path, query, got, both)
						}
					}
				}
			}
		}
	}
	if len(seen) != 3 {
		t.Errorf("relations seen: %v", seen)
	}
}

// TestAttachAgainstAnOracle splits a route by random conditions, and compares what each request meets first with going through the
// attachments one by one.
func TestAttachAgainstAnOracle(t *testing.T) {
	seed := rand.Int63()
	random := rand.New(rand.NewSource(seed))
	paths := []string{"/", "/a", "/a/b", "/a/b/c", "/b", "/ab"}
	pick := func() *meshv1.RequestMatch {
		kind := []meshv1.MatchType{meshv1.MatchType_MATCH_TYPE_EXACT, meshv1.MatchType_MATCH_TYPE_PREFIX, meshv1.MatchType_MATCH_TYPE_REGEX}[random.Intn(3)]
		return condition(kind, paths[random.Intn(len(paths))], []string{"", "GET"}[random.Intn(2)])
	}
	for range 300 {
		var list []attachment
		for i := range 1 + random.Intn(4) {
			a := attachment{does: ir.Route{RequestHeaders: ir.HeaderChange{Set: []ir.Header{{Name: fmt.Sprint(i)}}}}}
			if random.Intn(2) == 0 {
				a.does.Filters.CORS = &ir.CORS{Methods: []string{fmt.Sprint(i)}}
			}
			for range random.Intn(3) {
				a.matches = append(a.matches, pick())
			}
			list = append(list, a)
		}
		route := ir.Route{Match: requestMatch(condition(meshv1.MatchType_MATCH_TYPE_PREFIX, paths[random.Intn(len(paths))], ""))}
		routes, err := attach(route, list)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, path := range paths {
			for _, method := range []string{"GET", "POST"} {
				if !request(route.Match, path, "", method) {
					continue
				}
				var headers []string
				cors := ""
				for i, a := range list {
					met := len(a.matches) == 0
					for _, m := range a.matches {
						met = met || request(requestMatch(m), path, "", method)
					}
					if !met {
						continue
					}
					headers = append([]string{fmt.Sprint(i)}, headers...)
					if c := a.does.Filters.CORS; c != nil && cors == "" {
						cors = c.Methods[0]
					}
				}
				for _, r := range routes {
					if !request(r.Match, path, "", method) {
						continue
					}
					var got []string
					for _, h := range r.RequestHeaders.Set {
						got = append(got, h.Name)
					}
					gotCORS := ""
					if r.Filters.CORS != nil {
						gotCORS = r.Filters.CORS.Methods[0]
					}
					if strings.Join(got, " ") != strings.Join(headers, " ") || gotCORS != cors {
						t.Fatalf("seed %d: %s %s: headers %v cors %q, want %v %q", seed, method, path, got, gotCORS, headers, cors)
					}
					break
				}
			}
		}
	}
}

func TestTooManyConditionsCloseTheRoute(t *testing.T) {
	var list []attachment
	for i := range 9 {
		list = append(list, attachment{matches: []*meshv1.RequestMatch{{Headers: []*meshv1.ValueMatch{{Name: fmt.Sprintf("x-%d", i), Match: meshv1.MatchType_MATCH_TYPE_PRESENT}}}},
			does: ir.Route{RequestHeaders: ir.HeaderChange{Remove: []string{"x"}}}})
	}
	if _, err := attach(ir.Route{Match: anyPath}, list); err == nil || !strings.Contains(err.Error(), "more than 128 parts") {
		t.Errorf("512 parts: %v", err)
	}
}

// TestRulesThatTheFirstDecidesCutOnce holds that a list of rules for one type of filter makes one part a rule.
func TestRulesThatTheFirstDecidesCutOnce(t *testing.T) {
	var list []attachment
	for i := range 100 {
		list = append(list, attachment{matches: []*meshv1.RequestMatch{{Headers: []*meshv1.ValueMatch{{Name: fmt.Sprintf("x-%d", i), Match: meshv1.MatchType_MATCH_TYPE_PRESENT}}}},
			does: ir.Route{Filters: ir.Filters{MaxBody: uint64(i + 1)}}})
	}
	routes, err := attach(ir.Route{Match: anyPath}, list)
	if err != nil || len(routes) != 101 {
		t.Errorf("%d parts, want 101: %v", len(routes), err)
	}
}
