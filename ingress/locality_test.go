package ingress

import (
	"fmt"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/policy"
)

// The federation of these cases has two endpoints in east, five in west behind two ingresses, and two in north behind one.
func TestLocality(t *testing.T) {
	for _, c := range []struct {
		name   string
		rules  policy.Locality
		view   View
		plain  bool
		nobody bool // in the own zone
		want   string
	}{
		{name: "without rules", want: "east/0=2*1,1 north/1=2*4 west/1=5*5,5"},
		{name: "order", rules: policy.Locality{Order: []string{"west", "north"}}, want: "east/0=2*1,1 west/1=5*5,5 north/2=2*2"},
		{name: "what the order leaves out comes last", rules: policy.Locality{Order: []string{"nowhere", "west", "east"}}, want: "east/0=2*1,1 west/1=5*5,5 north/2=2*2"},
		{name: "the own zone keeps its priority", rules: policy.Locality{Order: []string{"north"}}, nobody: true, want: "north/1=2*2 west/2=5*5,5"},
		{name: "weights", rules: policy.Locality{Weights: map[string]uint32{"north": 9}}, want: "east/0=2*1,1 north/1=9*18 west/1=1*1,1"},
		{name: "a weight of 0", rules: policy.Locality{Order: []string{"west"}, Weights: map[string]uint32{"west": 0, "east": 0}}, want: "north/1=1*1"},
		{name: "all at once", rules: policy.Locality{AllAtOnce: true}, want: "east/0=2*2,2 north/0=2*4 west/0=5*5,5"},
		{name: "all at once by weights", rules: policy.Locality{AllAtOnce: true, Weights: map[string]uint32{"east": 1, "west": 8, "north": 0}}, want: "east/0=1*1,1 west/0=8*8,8"},
		{name: "all at once without the own zone", rules: policy.Locality{AllAtOnce: true}, nobody: true, want: "north/0=2*4 west/0=5*5,5"},
		{name: "all at once without mTLS", rules: policy.Locality{AllAtOnce: true}, plain: true, want: "east/0=2*2,2"},
		{name: "an ingress follows no rules", rules: policy.Locality{AllAtOnce: true, Weights: map[string]uint32{"east": 0}}, view: IngressView, want: "east/0=2*1,1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := federation(nil)
			e.Locality, e.MTLS = c.rules, !c.plain
			if c.nobody {
				e.Local = nil
			}
			view := c.view
			if view == "" {
				view = ClientView
			}
			got, err := e.Build(view)
			if err != nil {
				t.Fatal(err)
			}
			var text []string
			for _, l := range got.Localities {
				var weights []string
				for _, ep := range l.Endpoints {
					weights = append(weights, fmt.Sprint(ep.Weight))
				}
				text = append(text, fmt.Sprintf("%s/%d=%d*%s", l.Zone, l.Priority, l.Weight, strings.Join(weights, ",")))
			}
			if got := strings.Join(text, " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// A zone stays below its threshold as long as the share of its healthy endpoints times the factor is less than all.
func TestThresholdBecomesAFactor(t *testing.T) {
	for threshold := uint32(1); threshold <= 100; threshold++ {
		e := federation(nil)
		e.Locality.Threshold = threshold
		got, err := e.Build(ClientView)
		if err != nil {
			t.Fatal(err)
		}
		if f := got.Overprovisioning; f < 100 || threshold*f < 100*100 || (threshold-1)*f >= 100*100 {
			t.Errorf("a threshold of %d gives a factor of %d", threshold, f)
		}
	}
	if got, _ := federation(nil).Build(ClientView); got.Overprovisioning != 0 {
		t.Errorf("without a threshold the factor is %d", got.Overprovisioning)
	}
}
