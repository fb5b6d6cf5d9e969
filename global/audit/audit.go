// Package audit owns the record of who asked a replica of global for what beyond reading, and what came of it: a bounded log of lines
// of JSON in the data directory. It never decides anything, never holds a secret, and a replica's log tells of that replica alone.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	fileName = "audit.log"
	// fileBytes is when a file is full, and files how many are kept, the one that is written among them.
	fileBytes = 8 << 20
	files     = 4
	// MaxPage bounds what one question gets.
	MaxPage = 1000
	// burst and refill bound refused requests, by known users and by strangers apart, so that a flood of them can't push everything else out.
	burst  = 200
	refill = time.Second
)

// Entry is one request.
type Entry struct {
	// Number grows by one with each entry of a replica.
	Number int64     `json:"entry"`
	Time   time.Time `json:"time"`
	// Name, Role and Token (its identifier) are empty for a stranger, whose token is none or no good.
	Name  string `json:"name,omitempty"`
	Role  string `json:"role,omitempty"`
	Token string `json:"token,omitempty"`
	// From is the address of the client, or of the last proxy before global.
	From   string `json:"from"`
	Method string `json:"method"`
	Path   string `json:"path"`
	// What was to be done, in words; Count is how many there are where not all are told.
	What  []string `json:"what,omitempty"`
	Count int      `json:"count,omitempty"`
	// Status of the answer, 0 where it was cut off, and the code of a problem.
	Status int    `json:"status"`
	Code   string `json:"code,omitempty"`
	// Change is the number in the history, where there is one.
	Change int64 `json:"change,omitempty"`
	// Omitted are the refused requests before this one that came too fast to be told one by one.
	Omitted int64 `json:"omitted,omitempty"`
	// Begun is the number of the entry that Begin made of the same request, which this one stands for now; 0 where there is none.
	Begun int64 `json:"begun,omitempty"`
}

// refused is true of what changed nothing.
func (e Entry) refused() bool { return e.Status >= 400 }

// Log is safe for concurrent use.
type Log struct {
	dir   string
	limit int64
	now   func() time.Time

	mu      sync.Mutex
	file    *os.File
	size    int64
	next    int64
	omitted int64
	// strangers and users are what may still be told of each one's refusals.
	strangers, users bucket
}

// bucket holds up to burst tokens, and gets one more at each refill.
type bucket struct {
	left int
	at   time.Time
}

func (b *bucket) take(now time.Time) bool {
	if more := int(now.Sub(b.at) / refill); more > 0 || b.at.IsZero() {
		if b.at.IsZero() {
			more = burst
		}
		b.left, b.at = min(burst, b.left+more), now
	}
	if b.left == 0 {
		return false
	}
	b.left--
	return true
}

// Open continues the log of a data directory. A last line that a crash cut off is dropped.
func Open(dir string) (*Log, error) { return open(dir, fileBytes, time.Now) }

func open(dir string, limit int64, now func() time.Time) (*Log, error) {
	l := &Log{dir: dir, limit: limit, now: now, next: 1}
	for n := range files { // the newest first
		text, err := os.ReadFile(l.path(n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		whole := text[:bytes.LastIndexByte(text, '\n')+1]
		if n == 0 && len(whole) < len(text) {
			if err := os.Truncate(l.path(n), int64(len(whole))); err != nil {
				return nil, fmt.Errorf("audit: %w", err)
			}
		}
		if entries := parse(whole); len(entries) > 0 {
			l.next = entries[len(entries)-1].Number + 1
			break
		}
	}
	return l, l.append()
}

// append opens the file that is written.
func (l *Log) append() error {
	f, err := os.OpenFile(l.path(0), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("audit: %w", err)
	}
	l.file, l.size = f, info.Size()
	return nil
}

// path of the nth file, of which 0 is the newest.
func (l *Log) path(n int) string {
	if n == 0 {
		return filepath.Join(l.dir, fileName)
	}
	return filepath.Join(l.dir, fileName+"."+strconv.Itoa(n))
}

// Close ends writing.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// Begin writes an entry of a request whose outcome isn't known yet, with status 0, and gives its number, or 0 where it can't be written. It is
// on the disk when Begin returns without an error, and is listed until an entry that has this number as Begun is recorded.
func (l *Log) Begin(e Entry) (number int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Status, e.Code, e.Omitted, e.Begun = 0, "", 0, 0
	if err := l.write(e); err != nil {
		return 0, err
	}
	return l.next - 1, l.sync()
}

// Record numbers an entry and writes it, unless it is one refusal too many. When Record returns it is with the operating system, and on the
// disk unless it is of a refusal, of which there may be floods.
func (l *Log) Record(e Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.refused() && e.Begun == 0 {
		b := &l.users
		if e.Name == "" {
			b = &l.strangers
		}
		if !b.take(l.now()) {
			l.omitted++
			return nil
		}
	}
	e.Omitted = l.omitted
	if err := l.write(e); err != nil {
		return err
	}
	l.omitted = 0
	if e.refused() {
		return nil
	}
	return l.sync()
}

// write gives an entry the next number and appends it.
func (l *Log) write(e Entry) error {
	e.Number = l.next
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if l.size+int64(len(line)) > l.limit && l.size > 0 {
		if err := l.turn(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(append(line, '\n'))
	if err != nil {
		// Half a line must not spoil the next one.
		return errors.Join(fmt.Errorf("audit: %w", err), l.file.Truncate(l.size))
	}
	l.size += int64(n)
	l.next++
	return nil
}

func (l *Log) sync() error {
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// turn moves each file one place on, over the oldest.
func (l *Log) turn() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	var errs []error
	for n := files - 1; n > 0; n-- {
		if err := os.Rename(l.path(n-1), l.path(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("audit: %w", err))
		}
	}
	return errors.Join(append(errs, l.append())...)
}

// Entries lists up to limit of them with a number below before, where 0 means from the newest, the newest first. An entry of Begin is left
// out where a later one says what came of it.
func (l *Log) Entries(limit int, before int64) ([]Entry, error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	l.mu.Lock()
	defer l.mu.Unlock() // so that no file moves meanwhile
	var out []Entry
	ended := map[int64]bool{}
	for n := 0; n < files && len(out) < limit; n++ {
		text, err := os.ReadFile(l.path(n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		for _, e := range slices.Backward(parse(text)) {
			if e.Begun > 0 {
				ended[e.Begun] = true
			}
			if len(out) < limit && (before <= 0 || e.Number < before) && !ended[e.Number] {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// parse reads lines, and passes over what is none of ours.
func parse(text []byte) []Entry {
	var out []Entry
	for line := range bytes.Lines(text) {
		var e Entry
		if json.Unmarshal(line, &e) == nil && e.Number > 0 {
			out = append(out, e)
		}
	}
	return out
}
