package replicas

import "time"

// Word is what global says of a replica.
type Word int

const (
	// Unknown: global can't be asked, or can't know.
	Unknown Word = iota
	// Mute: global is of a version that doesn't say.
	Mute
	// Connected: it has a stream to global.
	Connected
	// Gone: it has none.
	Gone
)

// Silence is what is known of a replica that gossip has lost.
type Silence struct {
	Since time.Time
	// Left says that it said goodbye before.
	Left bool
	// Back is since when gossip has a later run of it; zero while it has none.
	Back time.Time
	// Word is global's, and GoneSince since when it is Gone.
	Word      Word
	GoneSince time.Time
}

// Over says since when the replica is gone, so that its proxies are endpoints for the grace from then, unless they turn up elsewhere. ok
// is false while it may live: it may be on the other side of a partition, where its proxies serve.
func (s Silence) Over() (since time.Time, ok bool) {
	switch {
	case !s.Back.IsZero(): // whose proxies its later run has, or others
		return latest(s.Since, s.Back), true
	case s.Word == Connected:
		return time.Time{}, false
	case s.Left || s.Word == Mute:
		return s.Since, true
	case s.Word == Gone:
		return latest(s.Since, s.GoneSince), true
	}
	return time.Time{}, false
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
