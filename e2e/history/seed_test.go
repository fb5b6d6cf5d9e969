package history

import (
	"fmt"
	"testing"
)

func TestAsked(t *testing.T) {
	for _, c := range []struct{ seed, steps, want string }{
		{"", "", "[2 5] 30 <nil>"},
		{"", "7", "[2 5] 7 <nil>"},
		{"9", "", "[9] 50 <nil>"},
		{"9", "7", "[9] 7 <nil>"},
		{"nine", "", `[] 0 ZONEFORGE_SEED: strconv.ParseInt: parsing "nine": invalid syntax`},
		{"9", "many", `[] 0 ZONEFORGE_STEPS: strconv.Atoi: parsing "many": invalid syntax`},
	} {
		t.Setenv(SeedVariable, c.seed)
		t.Setenv(StepsVariable, c.steps)
		if got := fmt.Sprint(Asked([]int64{2, 5}, 30, 50)); got != c.want {
			t.Errorf("seed %q, steps %q: %s, want %s", c.seed, c.steps, got, c.want)
		}
	}
	if got, want := Again(9, 7, "e2e", "TestIt"), "ZONEFORGE_SEED=9 ZONEFORGE_STEPS=7 go test ./e2e -run TestIt -count 1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
