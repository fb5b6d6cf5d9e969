package replicas

import (
	"testing"
	"time"
)

// Each row of the table in docs/running.md about a replica that others don't hear of.
func TestSilentReplicaIsGoneOnlyWhereSomebodySaysSo(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	for _, c := range []struct {
		name    string
		silence Silence
		since   time.Time // zero while it may live
	}{
		{"parted, and it lives", Silence{Since: at(10), Word: Connected}, time.Time{}},
		{"parted, and this replica is cut off from global too", Silence{Since: at(10), Word: Unknown}, time.Time{}},
		{"dead, and global is away", Silence{Since: at(10), Word: Unknown}, time.Time{}},
		{"dead", Silence{Since: at(10), Word: Gone, GoneSince: at(9)}, at(10)},
		{"parted first, dead later", Silence{Since: at(10), Word: Gone, GoneSince: at(500)}, at(500)},
		{"parted, and cut off from global for some time before", Silence{Since: at(10), Word: Connected, GoneSince: at(20)}, time.Time{}},
		{"a global that doesn't say", Silence{Since: at(10), Word: Mute}, at(10)},
		{"stopped in order", Silence{Since: at(10), Left: true, Word: Gone, GoneSince: at(11)}, at(10)},
		{"stopped in order, and global is away", Silence{Since: at(10), Left: true, Word: Unknown}, at(10)},
		{"stopped in order, and parted when it started again", Silence{Since: at(10), Left: true, Word: Connected}, time.Time{}},
		{"started again", Silence{Since: at(10), Back: at(12), Word: Connected}, at(12)},
		{"started again before it was missed", Silence{Since: at(10), Back: at(8), Word: Connected}, at(10)},
		{"started again, and global is away", Silence{Since: at(10), Back: at(12), Word: Unknown}, at(12)},
	} {
		since, ok := c.silence.Over()
		if ok == c.since.IsZero() || !since.Equal(c.since) {
			t.Errorf("%s: gone %v since %v, want %v", c.name, ok, since, c.since)
		}
	}
}
