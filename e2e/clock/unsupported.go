//go:build !linux || !amd64

package clock

import (
	"errors"
	"os/exec"
	"time"
)

// Supported says whether clocks can be set here.
const Supported = false

// Clock is that of one process.
type Clock struct{}

var errUnsupported = errors.New("clock: that of a single process can be set on linux/amd64 alone")

// Start always fails.
func Start(*exec.Cmd, time.Duration) (*Clock, error) { return nil, errUnsupported }

// Set always fails.
func (*Clock) Set(time.Duration) error { return errUnsupported }
