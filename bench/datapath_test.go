package main

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

func TestMedianAndItsInterval(t *testing.T) {
	var all []float64
	for i := range 20 {
		all = append(all, float64((i*7)%20+1)) // 1 to 20 in another order
	}
	// Of 20 throws, at most 5 are heads in 2.07 % of all cases, at most 6 in 5.8 %.
	if lo, hi := interval(all); median(all) != 10.5 || lo != 6 || hi != 15 {
		t.Errorf("median %g in [%g, %g], want 10.5 in [6, 15]", median(all), lo, hi)
	}
	if lo, hi := interval([]float64{2, 1, 3}); lo != 1 || hi != 3 || median([]float64{2, 1, 3}) != 2 {
		t.Errorf("of three: [%g, %g]", lo, hi)
	}
}

func TestRatiosAreOfRounds(t *testing.T) {
	a := []sample{{requests: 100, took: time.Second, processor: 10 * time.Millisecond}}
	b := []sample{{requests: 200, took: time.Second, processor: 10 * time.Millisecond}}
	rate, cost := compare(a, b)
	if math.Abs(rate[0]-0.5) > 1e-9 || math.Abs(cost[0]-0.5) > 1e-9 {
		t.Errorf("half of the requests in the same time and processor time: %v, %v", rate, cost)
	}
}

func TestHammer(t *testing.T) {
	up, err := listenUpstream("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h, err := newHammer(t.Context(), up.listener.Addr().String(), "/x", 2)
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(0); n == 0; { // on a machine that stands still the time may be over before the first
		var took time.Duration
		if n, took, err = h.run(20 * time.Millisecond); took < 20*time.Millisecond || err != nil {
			t.Fatalf("%d requests in %s: %v", n, took, err)
		}
	}
	if err := up.close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.run(time.Minute); err == nil {
		t.Error("an upstream that is gone answers")
	}
	_ = h.close() // the other end is gone
	if !bytes.HasSuffix(reply, []byte("!")) || strings.Count(string(reply), "!") != 1 {
		t.Error("the end of an answer can't be told")
	}
}
