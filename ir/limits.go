package ir

import "time"

// Bandwidth bounds how fast bodies pass. Routes whose bounds have the same name share one, and are given the same.
type Bandwidth struct {
	Name string
	// RequestKiB and ResponseKiB are KiB a second; 0 bounds nothing.
	RequestKiB  uint64
	ResponseKiB uint64
}

// AdmissionControl refuses a part of the requests while backends fail. Routes whose controls have the same name share one, and
// are given the same. Shares are in percent.
type AdmissionControl struct {
	Name           string
	Window         time.Duration
	SuccessRate    float64
	MinRequestRate uint32
	Aggression     float64
	MaxRejection   float64
}
