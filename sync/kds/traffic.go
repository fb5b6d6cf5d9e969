package kds

import "fmt"

// traffic counts the frames of one stream. Each heartbeat tells how many went before it, so that one that vanished is found, be it
// one that the other end would wait for forever.
type traffic struct{ sent, received uint64 }

// check takes what a heartbeat, which is the last frame received, says that went before it. Software that tells nothing says 0.
func (t traffic) check(told uint64) error {
	if told != 0 && told != t.received-1 {
		return fmt.Errorf("%d frames came of %d that were sent: %w", t.received-1, told, ErrLost)
	}
	return nil
}
