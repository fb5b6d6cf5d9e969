package main

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestApart(t *testing.T) {
	where := func() (set unix.CPUSet) {
		t.Helper()
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			t.Fatal(err)
		}
		return set
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all := where()
	bind, restore, err := apart()
	if err != nil {
		t.Fatal(err)
	}
	others := where()
	if err := bind(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	first := where()
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if first.Count() != 1 || others.Count() != max(1, all.Count()-1) || all.Count() > 1 && first == others || where() != all {
		t.Errorf("of %v, %v is for Envoys and %v for the rest; in the end it is %v", all, first, others, where())
	}
}
