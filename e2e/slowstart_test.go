package e2e

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSlowStart gives an endpoint that is new little at first, and its whole share once its window has passed.
func TestSlowStart(t *testing.T) {
	f, members := startPool(t, 1)
	client := newClient(t)
	url := "http://" + f.at(10, 8080) + "/"
	const window = 5 * time.Second
	// Its weight is the fifth power of the part of the window that has passed: below 8 percent for three seconds.
	f.apply(balanced(fmt.Sprintf("{roundRobin: {}, slowStart: {window: %s, aggression: 0.2, minWeightPercent: 1}}", window)))
	f.reaches(client, url, members[0].name)
	began := time.Now()
	f.await("the window of the first endpoint", func() error {
		if passed := time.Since(began); passed < window+time.Second {
			return fmt.Errorf("%s have passed", passed)
		}
		return nil
	})
	began = time.Now()
	fresh := f.startMember("east", 2, "echo", "echo-new", 32)
	f.await("the new endpoint", func() error {
		look := time.Now()
		if !strings.Contains(f.admin("edge", "/clusters"), f.host(32)+":15006::") {
			began = look // it may come in the instant after this look, and the next one may be late
			return errors.New("the gateway has it not yet")
		}
		return nil
	})
	seen := func(n int) int {
		t.Helper()
		out := 0
		for range n {
			r, a, err := ask(client, "GET", url)
			if err != nil || r.StatusCode != http.StatusOK {
				t.Fatalf("%v %v", r, err)
			}
			if a.Workload == fresh.name {
				out++
			}
		}
		return out
	}
	// Half of them would be far beyond, and a machine too slow to tell takes longer than three seconds.
	const n = 60
	if got, took := seen(n), time.Since(began); took < 3*time.Second && got > n/5 {
		t.Errorf("the new endpoint was given %d of %d requests within %s", got, n, took)
	}
	f.await("its whole share", func() error {
		if got, bound := seen(2*n), 5*math.Sqrt(2*n*0.25); math.Abs(float64(got-n)) > bound {
			return fmt.Errorf("%d of %d requests, want half of them within %.0f", got, 2*n, bound)
		}
		return nil
	})
}
