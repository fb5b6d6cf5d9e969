package e2e

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
)

func balanced(conf string) string {
	return "type: TrafficRoute\nmesh: default\nname: echo\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: echo}}]\nconf:\n  loadBalancer: " + conf + "\n"
}

// TestLoadBalancers has a gateway and a sidecar pick endpoints by each algorithm.
func TestLoadBalancers(t *testing.T) {
	f, members := startPool(t, 4)
	client := newClient(t)
	url := "http://" + f.at(10, 8080) + "/"
	f.startProxy("east", 2, "client", sidecarDocument("default", "client", f.host(40), inboundOf("client", "http", f.host(40), 8080, "")+
		fmt.Sprintf("  outbound:\n    - {port: 7001, address: %s, tags: {kuma.io/service: echo}}\n", f.host(40))), f.serviceToken("client"))
	f.settled("east", 6)
	sidecar := "http://" + f.at(40, 7001) + "/"
	f.answers(client, http.StatusOK, "GET", sidecar)

	picked := func(url string, header ...string) (string, error) {
		r, a, err := ask(client, "GET", url, header...)
		if err == nil && r.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d", r.StatusCode)
		}
		return a.Workload, err
	}
	by := func(t *testing.T, url string, header ...string) string {
		t.Helper()
		name, err := picked(url, header...)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	spread := func(t *testing.T, n int) map[string]int {
		t.Helper()
		out := map[string]int{}
		for range n {
			out[by(t, url)]++
		}
		return out
	}
	evenly := func(t *testing.T, name string) {
		t.Helper()
		const n = 400
		// Five standard deviations of a binomial distribution: one in a million runs is beyond.
		bound := 5 * math.Sqrt(n*0.25*0.75)
		seen := spread(t, n)
		for _, m := range members {
			if d := math.Abs(float64(seen[m.name]) - n/4); d > bound {
				t.Errorf("%s: %v of %d requests, want a quarter each within %.0f", name, seen, n, bound)
				return
			}
		}
	}

	for _, c := range []struct{ name, conf string }{
		{"round robin", "{roundRobin: {}}"}, {"random", "{random: {}}"}, {"least request", "{leastRequest: {choiceCount: 4}}"},
		{"slow start", "{roundRobin: {}, slowStart: {window: 1s, aggression: 2, minWeightPercent: 50}}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.apply(balanced(c.conf))
			f.reaches(client, url, names(members)...)
			f.reaches(client, sidecar, names(members)...)
			evenly(t, c.name)
		})
	}

	t.Run("least request passes over who is busy", func(t *testing.T) {
		f.apply(balanced("{leastRequest: {choiceCount: 8}}"))
		f.reaches(client, url, names(members)...)
		// So many that the first has one of them but once in a hundred million runs.
		const held = 16
		under := background(client, url+"hold", held)
		f.await("requests under way", func() error { return f.holds(members, held) })
		busy := members[0]
		for _, m := range members[1:] {
			m.letGo()
		}
		f.await("one that is busy alone", func() error {
			if n := busy.held.Load(); n == 0 || f.holds(members, n) != nil {
				return fmt.Errorf("%s holds %d", busy.name, n)
			}
			return nil
		})
		// All of eight choices fall on the same of four endpoints once in 16,384 picks.
		if seen := spread(t, 100)[busy.name]; seen > 2 {
			t.Errorf("the endpoint with requests under way is given %d of 100 more", seen)
		}
		for _, r := range f.answered(members, under, held) {
			if r.StatusCode != http.StatusOK {
				t.Errorf("a request that was held ends with %s", r.Status)
			}
		}
	})

	const keys = 200
	for _, c := range []struct {
		name, algorithm string
		// moves is the share of keys that may change their endpoint though it stays, in percent: a ring gives survivors more places.
		moves int
	}{{"maglev", "maglev: {tableSize: 65537}", 15}, {"ring hash", "ringHash: {hashFunction: MURMUR_HASH_2, minRingSize: 4096}", 40}} {
		t.Run(c.name, func(t *testing.T) {
			f.apply(balanced("{" + c.algorithm + ", hashPolicies: [{header: {name: x-user}}]}"))
			key := func(i int) string { return fmt.Sprintf("user-%d", i) }
			// places fails where a request does: an endpoint may have gone, or have come, a moment ago.
			places := func() (map[int]string, error) {
				out := map[int]string{}
				for i := range keys {
					name, err := picked(url, "X-User", key(i))
					if err != nil {
						return nil, err
					}
					out[i] = name
				}
				return out, nil
			}
			steady := func() map[int]string {
				var out map[int]string
				f.await("equal keys at equal endpoints", func() error {
					again := map[int]string{}
					var err error
					if out, err = places(); err == nil {
						again, err = places()
					}
					for i, name := range again {
						if out[i] != name {
							err = fmt.Errorf("%s went to %s and %s", key(i), out[i], name)
						}
					}
					return err
				})
				return out
			}
			before := steady()
			for i, want := range before {
				if got := by(t, sidecar, "X-User", key(i)); got != want {
					t.Fatalf("%s goes to %s from the gateway and to %s from the sidecar", key(i), want, got)
				}
			}
			seen := map[string]int{}
			for _, name := range before {
				seen[name]++
			}
			for _, m := range members {
				if seen[m.name] < keys/10 {
					t.Errorf("keys are spread as %v, want about a quarter each", seen)
				}
			}

			gone := members[3]
			f.end(gone.name)
			f.settled("east", 5)
			f.await("an endpoint less", func() error {
				all, err := places()
				for i, name := range all {
					if name == gone.name {
						err = fmt.Errorf("%s still goes to %s", key(i), gone.name)
					}
				}
				return err
			})
			moved := 0
			for i, name := range steady() {
				if before[i] != gone.name && before[i] != name {
					moved++
				}
			}
			if moved*100 > c.moves*keys {
				t.Errorf("%d of %d keys moved though their endpoint stayed, want at most %d percent", moved, keys, c.moves)
			}
			f.startProxy("east", 2, gone.name, sidecarDocument("default", gone.name, f.host(34), inboundOf("echo", "http", f.host(34), 8080, "")), f.serviceToken("echo"))
			f.settled("east", 6)
			f.await("all keys back where they were", func() error {
				all, err := places()
				for i, name := range all {
					if before[i] != name {
						err = fmt.Errorf("%s goes to %s, before to %s", key(i), name, before[i])
					}
				}
				return err
			})
		})
	}

	one := func(t *testing.T, what string, header func(i int) []string, query func(i int) string) map[string]bool {
		t.Helper()
		all := map[string]bool{}
		for i := range 20 {
			first := ""
			for range 5 {
				got := by(t, url+query(i), header(i)...)
				if first != "" && got != first {
					t.Fatalf("%s %d goes to %s and %s", what, i, first, got)
				}
				first = got
			}
			all[first] = true
		}
		return all
	}
	none := func(int) []string { return nil }
	nothing := func(int) string { return "" }

	t.Run("by the client's address", func(t *testing.T) {
		f.apply(balanced("{maglev: {}}"))
		f.await("one endpoint", func() error {
			if seen := spread(t, inARow); len(seen) != 1 {
				return fmt.Errorf("answered by %v", seen)
			}
			return nil
		})
	})
	t.Run("by a query parameter", func(t *testing.T) {
		f.apply(balanced("{maglev: {}, hashPolicies: [{queryParameter: {name: user}}]}"))
		f.reaches(client, url, names(members)...)
		if all := one(t, "user", none, func(i int) string { return fmt.Sprintf("?user=u%d", i) }); len(all) < 2 {
			t.Errorf("all users go to %v", all)
		}
	})
	t.Run("by a cookie", func(t *testing.T) {
		f.apply(balanced("{ringHash: {}, hashPolicies: [{cookie: {name: place, ttl: 1h, path: /shop}}]}"))
		var cookie *http.Cookie
		f.await("a cookie", func() error {
			r, _, err := ask(client, "GET", url)
			if err != nil {
				return err
			}
			for _, c := range r.Cookies() {
				if c.Name == "place" {
					cookie = c
					return nil
				}
			}
			return fmt.Errorf("the answer has no cookie: %v", r.Header)
		})
		if cookie.MaxAge != 3600 || cookie.Path != "/shop" || cookie.Value == "" {
			t.Errorf("the cookie is %v", cookie)
		}
		r, _, err := ask(client, "GET", url, "Cookie", "place="+cookie.Value)
		if err != nil || len(r.Cookies()) > 0 {
			t.Errorf("a request with the cookie is given another: %v %v", r.Cookies(), err)
		}
		if all := one(t, "cookie", func(i int) []string { return []string{"Cookie", fmt.Sprintf("place=%s%d", strings.Repeat("c", 8), i)} }, nothing); len(all) < 2 {
			t.Errorf("all cookies lead to %v", all)
		}
	})
}
