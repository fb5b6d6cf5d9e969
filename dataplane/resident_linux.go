package dataplane

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// piece is as much of the program as one access may bring back, in bytes. The pieces cost the kernel 45 KB.
const piece = 256 << 10

// program is what this process has mapped of the files of its program and its libraries.
type program struct {
	// statm stays open, so that a look is a system call.
	statm int
	// text are the mappings that nothing was written to. They are there from the beginning to the end, and found only once: listing
	// them takes milliseconds and a megabyte of the program.
	text [][2]uintptr
}

func openProgram() (*program, error) {
	fd, err := syscall.Open("/proc/self/statm", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/proc/self/statm: %w", err)
	}
	p := &program{statm: fd}
	if p.text, err = unwritten(); err != nil {
		p.close()
		return nil, err
	}
	for _, m := range p.text {
		cut(m[0], m[1])
	}
	return p, nil
}

// cut has the kernel keep a mapping in pieces. The page cache holds a file in folios of up to 2 MiB, as it was written or read; Linux maps
// the whole of one, whatever is needed of it, but no more than lies in one mapping. What differs in its advice is a mapping of its own, so
// every other piece is to have no huge pages, and the others are too small for one. A kernel that knows none refuses this, and needs it not:
// its page cache is in single pages.
func cut(from, to uintptr) {
	for at := from &^ (2*piece - 1); at < to; at += 2 * piece {
		if begin, end := max(at, from), min(at+piece, to); begin < end {
			_ = madvise(begin, end, syscall.MADV_NOHUGEPAGE)
		}
	}
}

func (p *program) close() { _ = syscall.Close(p.statm) }

// resident is how much of this process's memory is resident, in bytes: of no file, and of files.
func (p *program) resident() (own, files int64, err error) {
	var buffer [128]byte
	n, err := syscall.Pread(p.statm, buffer[:], 0)
	if err != nil {
		return 0, 0, fmt.Errorf("/proc/self/statm: %w", err)
	}
	// In pages: the size, what is resident, and what of that is mapped from files.
	fields := bytes.Fields(buffer[:n])
	if len(fields) < 3 {
		return 0, 0, fmt.Errorf("/proc/self/statm: %q has no third field", buffer[:n])
	}
	all, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err == nil {
		files, err = strconv.ParseInt(string(fields[2]), 10, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("/proc/self/statm: %w", err)
	}
	page := int64(os.Getpagesize())
	return (all - files) * page, files * page, nil
}

// drop takes the code and the constants of the program and of its libraries out of this process's resident memory. They are
// mapped from their files, so what is needed next comes back from the page cache, 64 KiB at a time, at the cost of a minor fault.
func (p *program) drop() error {
	for _, m := range p.text {
		if err := madvise(m[0], m[1], syscall.MADV_DONTNEED); err != nil {
			return err
		}
	}
	return nil
}

func madvise(from, to, advice uintptr) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, from, to-from, advice); errno != 0 {
		return fmt.Errorf("madvise: %w", errno)
	}
	return nil
}

// unwritten lists the mappings of files that can't be written, and were not before that was forbidden.
func unwritten() ([][2]uintptr, error) {
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	var out [][2]uintptr
	var m [2]uintptr
	droppable := false
	lines := bufio.NewScanner(maps)
	for lines.Scan() && err == nil {
		line := lines.Text()
		// A mapping begins with a line such as "00400000-018f6000 r-xp 00000000 fe:00 9995216   /usr/bin/zoneforge"; lines such as
		// "Anonymous:   4 kB" follow, that one with what was written to it: dropping that would undo the writing.
		written, isWritten := strings.CutPrefix(line, "Anonymous:")
		switch {
		case isWritten && droppable && strings.TrimSpace(written) == "0 kB":
			out = append(out, m)
		case !strings.Contains(line, ":") || strings.HasSuffix(strings.Fields(line)[0], ":"):
		default:
			fields := strings.Fields(line)
			if _, err = fmt.Sscanf(fields[0], "%x-%x", &m[0], &m[1]); err != nil {
				err = fmt.Errorf("/proc/self/smaps: %q: %w", line, err)
			}
			droppable = (fields[1] == "r--p" || fields[1] == "r-xp") && strings.HasPrefix(fields[len(fields)-1], "/")
		}
	}
	return out, errors.Join(err, lines.Err(), maps.Close())
}
