package ir

import "time"

// Fault makes requests fail, wait or slow down. Shares are in millionths of the requests.
type Fault struct {
	// AbortStatus answers a share of the requests; 0 aborts none.
	AbortStatus uint32
	AbortShare  uint32
	// Delay holds a share of the requests back; 0 delays none.
	Delay      time.Duration
	DelayShare uint32
	// ResponseKiB is how many KiB a second of each response's body pass; 0 slows none.
	ResponseKiB   uint64
	ResponseShare uint32
}
