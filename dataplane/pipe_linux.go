package dataplane

import (
	"os"
	"syscall"
)

// setPipeSize is F_SETPIPE_SZ of Linux, which package syscall doesn't name.
const setPipeSize = 1031

// widen gives a pipe room for a burst; where that is not allowed the usual 64 KiB must do.
func widen(f *os.File) {
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), setPipeSize, 1<<20)
}
