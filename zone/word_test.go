package zone

import (
	"slices"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/gossip"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// What global says of a replica that gossip lost, and what it doesn't, decides when the grace of its endpoints begins; and whether this replica is
// parted from any.
func TestReplicaIsGoneWhenGlobalSaysSo(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	connected := false
	w := newWord(func() bool { return connected })
	lost := gossip.Departed{Name: "b~1", Since: at(10)}
	now := 10
	alone := []gossip.Member{{Name: "a~1"}}
	for _, step := range []struct {
		name   string
		do     func()
		gone   int // 0 while it may live
		parted []string
		alone  bool
	}{
		{"no word of global yet", func() { w.meet(alone, at(now)) }, 0, []string{"b"}, true},
		{"it is connected", func() { connected = true; w.welcomed(&kdsv1.Siblings{Connected: []string{"b"}, All: true}) }, 0, []string{"b"}, false},
		{"a third one is, too, of which gossip never had anything", func() { w.hear(&kdsv1.Siblings{Connected: []string{"b", "d"}, All: true}) }, 0, []string{"b", "d"}, false},
		{"it is gone", func() { w.hear(&kdsv1.Siblings{Gone: []string{"b"}}) }, 13, nil, true},
		{"still", func() { w.hear(&kdsv1.Siblings{Gone: []string{"b"}, All: true}) }, 13, nil, false},
		{"global is away", func() { connected = false }, 0, []string{"b"}, true},
		{"a global that just began can't know", func() { connected = true; w.welcomed(&kdsv1.Siblings{}) }, 0, []string{"b"}, true},
		{"it knows: gone", func() { w.hear(&kdsv1.Siblings{All: true}) }, 17, nil, false},
		{"it is back there", func() { w.hear(&kdsv1.Siblings{Connected: []string{"b"}, All: true}) }, 0, []string{"b"}, false},
		{"gone again", func() { w.hear(&kdsv1.Siblings{All: true}) }, 19, nil, false},
		{"an older global, which says nothing", func() { w.welcomed(nil) }, 10, nil, false},
		{"a later run of it is met", func() {
			w.welcomed(&kdsv1.Siblings{Connected: []string{"b"}, All: true})
			w.meet(append(alone, gossip.Member{Name: "b~2"}), at(now))
		}, 21, nil, false},
		{"still", func() { w.meet(append(alone, gossip.Member{Name: "b~2"}), at(now)) }, 21, nil, false},
	} {
		step.do()
		since, ok := w.over(lost, at(now))
		if ok != (step.gone > 0) || ok && !since.Equal(at(step.gone)) {
			t.Errorf("%s: gone %v since %d, want %d", step.name, ok, since.Unix(), step.gone)
		}
		parted, alone := w.parted("a", []gossip.Departed{lost}, at(now))
		if !slices.Equal(parted, step.parted) || alone != step.alone {
			t.Errorf("%s: parted from %v, alone %v, want %v and %v", step.name, parted, alone, step.parted, step.alone)
		}
		now++
	}
}
