package identity

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Global is away for as long as the intermediate lives. Meanwhile the zone starts again each day from its disk, services come and go, and
// certificates are renewed at half of their life; none ends before its successor is there, until the intermediate itself is about to.
func TestWholeLifeWithoutGlobal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run()
		w.mesh(24 * time.Hour)
		synctest.Wait()
		w.leaf("web")
		w.set(func(w *world) { w.away = true })
		began, asked := time.Now(), w.asked()
		end := w.Statuses()[0].NotAfter
		renewals := 0
		for day := 0; time.Until(end) > 25*time.Hour; day++ {
			stop()
			w.start()
			stop = w.run()
			w.mesh(24 * time.Hour)
			come := fmt.Sprintf("day-%d", day)
			first, last := w.leaf("web"), w.leaf(come)
			w.changes()
			for range 24 {
				advance(time.Hour)
				w.changes()
				for _, service := range []string{"web", come} {
					if left := time.Until(w.leaf(service).NotAfter); left < 11*time.Hour {
						t.Fatalf("on day %d, %s has a certificate for %s more", day, service, left)
					}
				}
			}
			if !w.leaf("web").Equal(first) && !w.leaf(come).Equal(last) {
				renewals++
			}
			w.Retain("m", []string{"web"})
			if n := w.Statuses()[0].SVIDs; n != 1 {
				t.Fatalf("%d are held though one service is left", n)
			}
		}
		if days := int(time.Since(began).Hours() / 24); days < 28 || renewals != days {
			t.Errorf("certificates were renewed on %d of %d days", renewals, days)
		}
		if w.asked() == asked {
			t.Error("global was not asked for a new intermediate")
		}
		// What is issued now ends with the intermediate, and is good until then.
		w.leaf("last")
		advance(time.Until(end) - time.Minute)
		w.leaf("web")
		w.set(func(w *world) { w.away = false })
		w.Connected()
		synctest.Wait()
		if left := time.Until(w.leaf("web").NotAfter); left < 23*time.Hour {
			t.Errorf("once global is back: %s", left)
		}
	})
}
