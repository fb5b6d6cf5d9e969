package zone

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A proxy that begins streams in a loop is held off, and it alone.
func TestLoopingProxyIsHeldOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &core{begins: Limits{StreamRate: 60}.begins()}
		for n := range 30 {
			if err := c.holdOff("looping"); err != nil {
				t.Fatalf("stream %d: %v", n, err)
			}
		}
		if err := c.holdOff("looping"); err == nil || !strings.Contains(err.Error(), "may begin in 1s") {
			t.Error(err)
		}
		if err := c.holdOff("other"); err != nil {
			t.Error(err)
		}
		<-time.After(time.Second)
		if err := c.holdOff("looping"); err != nil {
			t.Error(err)
		}
		if n := c.begins.Refused(); n != 1 {
			t.Errorf("%d refused", n)
		}
	})
}

// A zone that was restarted has all of its proxies begin at once, and none of them begins too often.
func TestAllProxiesMayComeBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &core{begins: Limits{StreamRate: 60}.begins()}
		for n := range 40_000 {
			if err := c.holdOff(fmt.Sprint("Dataplane/default/w-", n)); err != nil {
				t.Fatalf("proxy %d: %v", n, err)
			}
		}
	})
}
