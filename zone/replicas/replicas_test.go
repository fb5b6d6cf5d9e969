package replicas

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Claims come from each replica in order, and from several of them in any; whatever the order, the newest of what still stands counts.
func TestOwnerIsThatOfTheNewestClaim(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	type said struct {
		claim Claim
		gone  bool
	}
	for range 2000 {
		lines := map[string][]said{} // by replica, in the order in which it said them
		for range rnd.IntN(12) {
			name := fmt.Sprint("r", rnd.IntN(4))
			lines[name] = append(lines[name], said{Claim{Stamp: rnd.Uint64N(5), Registration: []byte{byte(rnd.IntN(3))}}, rnd.IntN(3) == 0})
		}
		var want Claim
		owner, claimed := "", false
		for i := range 4 {
			name := fmt.Sprint("r", i)
			all := lines[name]
			if len(all) == 0 || all[len(all)-1].gone {
				continue
			}
			if last := all[len(all)-1].claim; !claimed || last.Stamp >= want.Stamp {
				owner, want, claimed = name, last, true
			}
		}
		roster := New()
		for left := lines; len(left) > 0; {
			name := fmt.Sprint("r", rnd.IntN(4))
			all := left[name]
			if len(all) == 0 {
				delete(left, name)
				continue
			}
			if all[0].gone {
				roster.Forget(name, "p")
			} else {
				roster.Hear(name, "p", all[0].claim)
			}
			left[name] = all[1:]
		}
		got, c, ok := roster.Owner("p")
		if ok != claimed || ok && (got != owner || c.Stamp != want.Stamp || string(c.Registration) != string(want.Registration)) || (roster.Len() == 1) != ok {
			t.Fatalf("%s with %+v, %v, want %s with %+v, %v", got, c, ok, owner, want, claimed)
		}
	}
}

func TestNewClaimIsAboveAllThatWereHeard(t *testing.T) {
	r := New()
	r.Hear("a", "p", Claim{Stamp: 1000})
	if s := r.Next("p", time.Unix(0, 5)); s != 1001 {
		t.Errorf("with a clock that is behind: %d", s)
	}
	if s := r.Next("p", time.Unix(0, 5000)); s != 5000 {
		t.Errorf("with a clock that is ahead: %d", s)
	}
}

// A proxy that came from a replica which can't say any more that it left is nowhere when it ends; one that a replica in touch claims, or that
// went back, is there.
func TestClaimsOfSilentReplicasAreOutdated(t *testing.T) {
	r := New()
	for replica, stamp := range map[string]uint64{"silent": 3, "back": 9, "there": 4} {
		r.Hear(replica, "p", Claim{Stamp: stamp})
	}
	silent := func(replica string) bool { return replica != "there" }
	r.Outdate("p", 7, silent)
	if owner, _, _ := r.Owner("p"); owner != "back" || len(r.claims["p"]) != 2 {
		t.Errorf("%s has it, of %v", owner, r.claims)
	}
	r.Outdate("p", 10, silent)
	if owner, _, ok := r.Owner("p"); !ok || owner != "there" {
		t.Errorf("%s has it, of %v", owner, r.claims)
	}
	r.Outdate("p", 10, func(string) bool { return true })
	if r.Len() != 0 {
		t.Errorf("left are %v", r.claims)
	}
}
