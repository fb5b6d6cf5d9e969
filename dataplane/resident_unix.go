//go:build !linux

package dataplane

// residentFiles is none that could be given back.
func residentFiles() (int64, error) { return 0, nil }

// dropProgram leaves it to the system, which has no way to ask for it.
func dropProgram() error { return nil }
