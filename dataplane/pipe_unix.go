//go:build !linux

package dataplane

import "os"

// widen leaves a pipe as the system makes it.
func widen(*os.File) {}
