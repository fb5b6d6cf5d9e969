//go:build linux && amd64

// Package clock sets the clocks of single processes, which the kernel can't: it answers their questions for the time of day itself.
//
// It owns how a process is started so that its clock can be set, and how it is set while the process runs. It changes the time of day alone:
// what counts from when the machine started, by which timeouts are measured, goes on as it does when a real clock is set. It knows
// nothing of what runs.
package clock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Programs ask the kernel's library (vDSO) for the time, whose pages each process has by itself. This is written over the function there:
// it asks the kernel, and adds a number of seconds, which stands behind it, to CLOCK_REALTIME.
var code = []byte{
	0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, clock_gettime
	0x0f, 0x05, // syscall, which leaves edi and rsi as they are
	0x85, 0xff, // test edi, edi: CLOCK_REALTIME is 0
	0x75, 0x0a, // jne to the end
	0x48, 0x8b, 0x0d, 0x06, 0x00, 0x00, 0x00, // mov rcx, [the seconds]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3,       // ret
	0xcc, 0xcc, // to 8 bytes
}

const function = "__vdso_clock_gettime"

// Supported says whether clocks can be set here.
const Supported = true

// Clock is that of one process.
type Clock struct {
	pid     int
	seconds int64 // where they are in its memory
}

// Start starts a command with a clock that is off by whole seconds.
func Start(cmd *exec.Cmd, by time.Duration) (*Clock, error) {
	// Who traces is a thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c, err := begin(cmd.Process.Pid, by)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("clock of %s: %w", cmd.Path, err)
	}
	return c, nil
}

// begin finds a process that stands before its first instruction, and lets it go.
func begin(pid int, by time.Duration) (*Clock, error) {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
		return nil, fmt.Errorf("wait for its start: %w", err)
	}
	if !status.Stopped() {
		return nil, fmt.Errorf("it did not start: %v", status)
	}
	at, err := find(pid)
	if err != nil {
		return nil, err
	}
	c := &Clock{pid: pid, seconds: at + int64(len(code))}
	if err := c.write(at, code); err != nil {
		return nil, err
	}
	if err := c.Set(by); err != nil {
		return nil, err
	}
	return c, syscall.PtraceDetach(pid)
}

// Set sets the clock while the process runs.
func (c *Clock) Set(by time.Duration) error {
	return c.write(c.seconds, binary.LittleEndian.AppendUint64(nil, uint64(by/time.Second)))
}

func (c *Clock) write(at int64, b []byte) error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.WriteAt(b, at)
	return err
}

// find gives the address of the function in a process.
func find(pid int) (int64, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		from, rest, _ := strings.Cut(line, "-")
		to, _, _ := strings.Cut(rest, " ")
		begin, err1 := strconv.ParseInt(from, 16, 64)
		end, err2 := strconv.ParseInt(to, 16, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, err
		}
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			return 0, err
		}
		defer mem.Close()
		image := make([]byte, end-begin)
		if _, err := mem.ReadAt(image, begin); err != nil {
			return 0, err
		}
		offset, err := offsetIn(image)
		return begin + offset, err
	}
	return 0, errors.New("the process has no vDSO")
}

// offsetIn finds the function in the library, and that what is written over it has room.
func offsetIn(image []byte) (int64, error) {
	library, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, fmt.Errorf("vDSO: %w", err)
	}
	symbols, err := library.DynamicSymbols()
	if err != nil {
		return 0, fmt.Errorf("vDSO: %w", err)
	}
	for _, s := range symbols {
		if s.Name != function {
			continue
		}
		if need := len(code) + 8; int(s.Size) < need {
			return 0, fmt.Errorf("%s of the vDSO has %d bytes, %d are needed", function, s.Size, need)
		}
		return int64(s.Value), nil
	}
	return 0, fmt.Errorf("the vDSO has no %s", function)
}
