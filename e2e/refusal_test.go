package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

// A policy that costs a proxy something it can't do must be seen wherever people look, and cost nothing but itself.
func TestRefusedByEnvoy(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	rule := func(path string) string {
		return "      - matches: [{path: {match: EXACT, value: " + path + "}}]\n" + toV1
	}
	f.apply(gatewayRoute("before", "", rule("/before")))
	f.answers(client, http.StatusOK, "GET", url("/before"))

	// A port of the gateway that another process has: nothing that global could know.
	taken, err := net.Listen("tcp", f.at(10, 8090))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	withPort := strings.Replace(edgeGateway, "    - {port: 8080, protocol: HTTP}\n", "    - {port: 8080, protocol: HTTP}\n    - {port: 8090, protocol: HTTP}\n", 1)
	f.refusesToApply([]string{"proxy default/edge refuses Listener", "8090", "refused in east"}, withPort)
	f.says(f.cli("get", "zones"), "rejecting")
	f.says(f.cli("inspect", "zone", "east"), "default/edge", "8090")
	f.says(f.cli("inspect", "dataplane", "edge"), "8090", "rejecting")
	f.says(f.cli("get", "dataplanes"), "rejecting")
	f.await("the status of the zone", func() error {
		s, err := f.status("east")
		if err == nil && (s.Proxies != 3 || s.Acked != 2 || len(s.Nacks) != 1) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})

	// What was there is served, and what comes after, too.
	f.answers(client, http.StatusOK, "GET", url("/before"))
	_, err = f.try("apply", "--wait", "--timeout", "10s", "-f", f.write("after.yaml", gatewayRoute("after", "", rule("/after"))))
	t.Logf("a change after a refused listener: %v", err)
	f.answers(client, http.StatusOK, "GET", url("/after"))

	// Mended where it went wrong, nobody has to touch the policy.
	f.apply(edgeGateway)
	f.settled("east", 3)
	taken.Close()
	f.apply(withPort)
	f.settled("east", 3)
	f.answers(client, http.StatusOK, "GET", "http://"+f.at(10, 8090)+"/after")
}

// What Envoy refuses and no validation foresees is not known; what is known is refused before it is sent, with its place.
func TestPoisonousResources(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	path := "{path: {match: PREFIX, value: /x}}"
	rule := func(match, rest string) string { return "      - matches: [" + match + "]\n" + rest + toV1 }
	change := func(text string) string { return "        filters: [{requestHeader: " + text + "}]\n" }
	long := strings.Repeat("a", 20000)
	for i, c := range []struct {
		name, route string
		words       []string // of the refusal; none where it is taken
	}{
		{"large regex", rule("{path: {match: REGEX, value: '/[a-z]{1,900}'}}", ""), nil},
		{"larger regex", rule("{path: {match: REGEX, value: '/[a-z]{1,900}[a-z]{1,900}[a-z]{1,900}'}}", ""), []string{"refused.yaml:", "the regular expression is too large"}},
		{"larger regex of a header", rule("{headers: [{name: a, match: REGEX, value: '[a-z]{1,900}[a-z]{1,900}[a-z]{1,900}'}]}", ""), []string{"refused.yaml:", "the regular expression is too large"}},
		{"header host", rule(path, change("{set: [{name: Host, value: x}]}")), []string{"refused.yaml:", "set[0].name: the header Host"}},
		{"long header", rule(path, change("{set: [{name: x, value: "+long+"}]}")), []string{"refused.yaml:", "longer than 16384 bytes"}},
		{"control character", rule(path, change("{set: [{name: x, value: \"a\\x01\"}]}")), []string{"refused.yaml:", "control characters"}},
		{"long path", rule("{path: {match: PREFIX, value: /"+long+"}}", ""), nil},
		{"odd path", rule("{path: {match: PREFIX, value: '/a b/é%'}}", ""), nil},
		{"endless caching", rule(path, "        cors: {allowOrigins: [{exact: '*'}], maxAge: 4294967295}\n"), nil},
		{"long service", "      - matches: [" + path + "]\n        backends: [{destination: {kuma.io/service: " + strings.Repeat("s", 250) + ", version: " + strings.Repeat("V", 250) + "}}]\n", nil},
	} {
		if c.words != nil {
			f.refusesToApply(c.words, gatewayRoute("poison", "", c.route))
		} else {
			f.apply(gatewayRoute("poison", "", c.route))
		}
		good := fmt.Sprintf("/good-%d", i)
		f.apply(gatewayRoute("good", "", rule("{path: {match: EXACT, value: "+good+"}}", "")))
		f.answers(client, http.StatusOK, "GET", "http://"+f.at(10, 8080)+good)
	}
	f.settled("east", 3)
}
