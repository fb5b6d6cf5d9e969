package store

import (
	"fmt"
	"syscall"
)

// The embedded etcd ends its process when its disk is full, so changes are refused before. It takes 64 MB at once for a new
// segment of its log, and has one in reserve.
const (
	// roomToMake is what a new store needs.
	roomToMake = 192 << 20
	// roomToWrite is what must be left for a change.
	roomToWrite = 96 << 20
	// roomToOpen is what an etcd that is there needs to start.
	roomToOpen = 16 << 20
)

// room is nil while the disk of dir has so many bytes left.
func room(dir string, bytes uint64) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("store: look for room in %s: %w", dir, err)
	}
	if left := uint64(disk.Bavail) * uint64(disk.Bsize); left < bytes {
		return fmt.Errorf("store: %w: the disk of %s has %d MB left, and %d MB are needed; make room", ErrFull, dir, left>>20, bytes>>20)
	}
	return nil
}
