package dataplane

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// residentFiles is how much of this process's resident memory is mapped from files, in bytes.
func residentFiles() (int64, error) {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, resident, files int64 // in pages
	if _, err := fmt.Sscan(string(data), &size, &resident, &files); err != nil {
		return 0, fmt.Errorf("/proc/self/statm: %q: %w", data, err)
	}
	return files * int64(os.Getpagesize()), nil
}

// dropProgram takes the code and the constants of the program and of its libraries out of this process's resident memory. They are
// mapped from their files, so what is needed next comes back from the page cache, 64 KiB at a time, at the cost of a minor fault.
func dropProgram() error {
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer maps.Close()
	var from, to uintptr
	droppable := false
	for lines := bufio.NewScanner(maps); ; {
		if !lines.Scan() {
			return lines.Err()
		}
		line := lines.Text()
		// A mapping begins with a line such as "00400000-018f6000 r-xp 00000000 fe:00 9995216   /usr/bin/zoneforge"; lines such as
		// "Anonymous:   4 kB" follow, that one with what was written to it: dropping that would undo the writing.
		written, isWritten := strings.CutPrefix(line, "Anonymous:")
		switch {
		case isWritten && droppable && strings.TrimSpace(written) == "0 kB":
			// A huge page of which little is needed would bring 2 MiB back. A kernel without them refuses this, and has no need of it.
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_NOHUGEPAGE)
			if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED); errno != 0 {
				return fmt.Errorf("madvise: %w", errno)
			}
		case !strings.Contains(line, ":") || strings.HasSuffix(strings.Fields(line)[0], ":"):
		default:
			fields := strings.Fields(line)
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
				return fmt.Errorf("/proc/self/smaps: %q: %w", line, err)
			}
			droppable = (fields[1] == "r--p" || fields[1] == "r-xp") && strings.HasPrefix(fields[len(fields)-1], "/")
		}
	}
}
