// Package backup owns the format of the files that hold global's authoritative state: what stands in them, and the checks that
// find every damage. It reads and writes streams alone: it never opens a file, knows no store, and sees secrets only sealed.
//
// A file is lines of text. The first one names format and version; each of the others begins with the CRC-32C of its JSON, in
// eight hexadecimal digits and a blank, so that damage is found where it is. Head comes first, End last, with the SHA-256 of all
// bytes before its line, so that a file that was cut off is told from a whole one.
package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	// Version is the newest version of the format that this software reads, and the one that it writes. It grows whenever
	// an older reader would miss something.
	Version = 1
	magic   = "zoneforge-backup "
	// maxLine bounds a line, in bytes; etcd's own values are far smaller.
	maxLine = 16 << 20
	sumLen  = 8
)

// Errors of a Reader, wrapped with the place and how to mend it.
var (
	// ErrForeign: it is no backup.
	ErrForeign = errors.New("not a backup of zoneforge")
	// ErrNewer: later software wrote it.
	ErrNewer = errors.New("backup has a newer format")
	// ErrDamaged: bytes are wrong or missing.
	ErrDamaged = errors.New("backup is damaged")
)

// Head says what the backup is of.
type Head struct {
	// Software is the version of the program that made it, Time when it did.
	Software string    `json:"software"`
	Time     time.Time `json:"time"`
	Domain   string    `json:"domain"`
	Epoch    string    `json:"epoch"`
	// Ancestors are the epochs that Epoch was restored from, the newest first.
	Ancestors []string `json:"ancestors,omitempty"`
	Revision  int64    `json:"revision"`
	Seq       int64    `json:"seq"`
	// Store is the version of the layout in etcd, whose values are in the backup as they are.
	Store int `json:"store"`
	// Sum and Count are the digest of all resources.
	Sum   []byte `json:"sum"`
	Count uint64 `json:"count"`
	// Mark is a constant, sealed with the key that seals the secrets.
	Mark []byte `json:"mark"`
}

// Resource is one resource as the store holds it, sealed where it is sensitive.
type Resource struct {
	Kind     string `json:"kind"`
	Mesh     string `json:"mesh,omitempty"`
	Name     string `json:"name"`
	Revision int64  `json:"revision"`
	Content  []byte `json:"content"`
}

// Change is a history entry, as the store holds it.
type Change struct {
	Seq   int64           `json:"seq"`
	Value json.RawMessage `json:"value"`
}

// Chunk is a part of the contents of a large change, as the store holds it.
type Chunk struct {
	ID    string          `json:"id"`
	N     int             `json:"n"`
	Value json.RawMessage `json:"value"`
}

// File is one that global needs besides its store, sealed.
type File struct {
	Name    string `json:"name"`
	Content []byte `json:"content"`
}

// Entry is what stands on a line between Head and End; exactly one field is set.
type Entry struct {
	Resource *Resource `json:"resource,omitempty"`
	Change   *Change   `json:"change,omitempty"`
	Chunk    *Chunk    `json:"chunk,omitempty"`
	File     *File     `json:"file,omitempty"`
}

// Counts are of entries.
type Counts struct {
	Resources int64 `json:"resources"`
	Changes   int64 `json:"changes"`
	Chunks    int64 `json:"chunks"`
	Files     int64 `json:"files"`
}

func (c *Counts) add(e Entry) bool {
	n := 0
	for _, one := range []struct {
		there bool
		count *int64
	}{{e.Resource != nil, &c.Resources}, {e.Change != nil, &c.Changes}, {e.Chunk != nil, &c.Chunks}, {e.File != nil, &c.Files}} {
		if one.there {
			*one.count++
			n++
		}
	}
	return n == 1
}

// end is the last line.
type end struct {
	Counts
	SHA256 string `json:"sha256"`
}

// line is any but the first.
type line struct {
	Head *Head `json:"head,omitempty"`
	Entry
	End *end `json:"end,omitempty"`
	// Failed says why the writer could not go on.
	Failed string `json:"failed,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Writer writes one backup.
type Writer struct {
	out    io.Writer
	sum    hash.Hash
	counts Counts
}

// NewWriter writes the beginning of a backup.
func NewWriter(out io.Writer, h Head) (*Writer, error) {
	w := &Writer{sum: sha256.New()}
	w.out = io.MultiWriter(out, w.sum)
	if _, err := fmt.Fprintf(w.out, "%s%d\n", magic, Version); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return w, w.line(line{Head: &h})
}

// Write adds an entry.
func (w *Writer) Write(e Entry) error {
	w.counts.add(e)
	return w.line(line{Entry: e})
}

// Close writes the end, without which a backup is not whole. It closes nothing below.
func (w *Writer) Close() error {
	return w.line(line{End: &end{Counts: w.counts, SHA256: hex.EncodeToString(w.sum.Sum(nil))}})
}

// Fail tells the reader why there is no more.
func (w *Writer) Fail(why string) error { return w.line(line{Failed: why}) }

// Counts are what was written up to now.
func (w *Writer) Counts() Counts { return w.counts }

func (w *Writer) line(l line) error {
	b, err := json.Marshal(l)
	if err == nil && len(b) > maxLine-sumLen-2 {
		err = fmt.Errorf("an entry has %d bytes, and a line at most %d", len(b), maxLine)
	}
	if err == nil {
		_, err = fmt.Fprintf(w.out, "%08x %s\n", crc32.Checksum(b, castagnoli), b)
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// Reader reads one backup and checks it.
type Reader struct {
	in     *bufio.Reader
	sum    hash.Hash
	number int // of the line that was read last
	head   Head
	counts Counts
}

// NewReader reads the beginning. Errors wrap ErrForeign, ErrNewer or ErrDamaged, or are those of in.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10), sum: sha256.New()}
	first := make([]byte, len(magic))
	if _, err := io.ReadFull(r.in, first); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if string(first) != magic {
		return nil, fmt.Errorf("backup: line 1: %w; take a file that zoneforge backup wrote", ErrForeign)
	}
	r.sum.Write(first)
	text, err := r.text()
	if err != nil {
		return nil, err
	}
	version, err := strconv.Atoi(string(text))
	switch {
	case err != nil || version < 1:
		return nil, r.damaged("%q is no version", text)
	case version > Version:
		return nil, fmt.Errorf("backup: line 1: %w: %d, this software reads up to %d; use the software that made it, or a later one", ErrNewer, version, Version)
	}
	l, err := r.line()
	if err != nil {
		return nil, err
	}
	if l.Head == nil {
		return nil, r.damaged("the head is missing")
	}
	r.head = *l.Head
	return r, nil
}

// Head says what the backup is of.
func (r *Reader) Head() Head { return r.head }

// Counts are what was read up to now.
func (r *Reader) Counts() Counts { return r.counts }

// Next gives the next entry. It gives io.EOF after the last one only when the whole file is as it was written; all other
// errors mean that nothing of it can be relied on.
func (r *Reader) Next() (Entry, error) {
	before := hex.EncodeToString(r.sum.Sum(nil))
	l, err := r.line()
	switch {
	case err != nil:
		return Entry{}, err
	case l.Failed != "":
		return Entry{}, fmt.Errorf("backup: line %d: %w: it was not finished: %s; make another one", r.number, ErrDamaged, l.Failed)
	case l.End != nil:
		if l.End.Counts != r.counts || l.End.SHA256 != before {
			return Entry{}, r.damaged("the file is not what was written: a line is missing, or stands elsewhere")
		}
		if _, err := r.in.ReadByte(); !errors.Is(err, io.EOF) {
			r.number++
			return Entry{}, r.damaged("something follows the end")
		}
		return Entry{}, io.EOF
	case l.Head != nil || !r.counts.add(l.Entry):
		return Entry{}, r.damaged("the line holds nothing that a backup has")
	}
	return l.Entry, nil
}

func (r *Reader) damaged(format string, args ...any) error {
	return fmt.Errorf("backup: line %d: %w: %s; take another copy of it, or another backup", r.number, ErrDamaged, fmt.Sprintf(format, args...))
}

// text reads the rest of a line.
func (r *Reader) text() ([]byte, error) {
	r.number++
	var text []byte
	for {
		part, err := r.in.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case err == nil:
			r.sum.Write(text)
			return text[:len(text)-1], nil
		case errors.Is(err, io.EOF):
			return nil, r.damaged("the file ends here, before its end mark: it was cut off")
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("backup: line %d: %w", r.number, err)
		case len(text) > maxLine:
			return nil, r.damaged("it has more than %d bytes", maxLine)
		}
	}
}

func (r *Reader) line() (line, error) {
	text, err := r.text()
	if err != nil {
		return line{}, err
	}
	sum, body, ok := strings.Cut(string(text), " ")
	if !ok || sum != fmt.Sprintf("%08x", crc32.Checksum([]byte(body), castagnoli)) {
		return line{}, r.damaged("its checksum differs")
	}
	var l line
	if err := json.Unmarshal([]byte(body), &l); err != nil {
		return line{}, r.damaged("%v", err)
	}
	return l, nil
}

// Check reads a whole backup and says what it is.
func Check(in io.Reader) (Head, Counts, error) {
	r, err := NewReader(in)
	if err != nil {
		return Head{}, Counts{}, err
	}
	for {
		if _, err = r.Next(); err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return r.head, r.counts, err
}
