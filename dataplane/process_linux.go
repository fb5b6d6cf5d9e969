package dataplane

import "syscall"

// attributes ties the child to the thread that starts it, so that it is killed however the launcher dies, and gives it a
// group of its own, so that a Ctrl-C meant for the launcher doesn't end it before it has drained.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
