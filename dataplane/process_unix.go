//go:build unix && !linux

package dataplane

import "syscall"

// attributes gives the child a group of its own, so that a Ctrl-C meant for the launcher doesn't end it before it has
// drained. Only Linux can tie a child's life to its parent's.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
