package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

const header = 16

// checkPages walks the pages of a bbolt file before bbolt does: bbolt trusts them, and a reference out of the file or
// back to a parent would end the process in a way that can't be caught, be it by its own Check.
func checkPages(raw []byte) error {
	var root, free, high, newest uint64
	found := false
	for i := range 2 {
		at := i * pageSize
		if len(raw) < at+pageSize {
			return errors.New("file is truncated")
		}
		m := raw[at+header:]
		h := fnv.New64a()
		_, _ = h.Write(m[:56])
		if u32(m) != 0xED0CDAED || u32(m[4:]) != 2 || u32(m[8:]) != pageSize || h.Sum64() != u64(m[56:]) {
			continue
		}
		if tx := u64(m[48:]); !found || tx > newest {
			found, newest = true, tx
			root, free, high = u64(m[16:]), u64(m[32:]), u64(m[40:])
		}
	}
	if !found {
		return errors.New("no valid meta page")
	}
	if high > uint64(len(raw))/pageSize {
		return errors.New("file is truncated")
	}
	w := &walk{raw: raw, high: high, seen: map[uint64]bool{0: true, 1: true}}
	if err := w.tree(root, 0); err != nil {
		return err
	}
	return w.freelist(free)
}

type walk struct {
	raw  []byte
	high uint64
	seen map[uint64]bool
}

func u32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
func u64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }

// page is the bytes of a page with its overflow, each of which nothing else may use.
func (w *walk) page(id uint64) ([]byte, error) {
	if id < 2 || id >= w.high {
		return nil, fmt.Errorf("page %d is out of the file", id)
	}
	p := w.raw[id*pageSize:]
	n := uint64(u32(p[12:])) + 1
	if u64(p) != id || id+n > w.high {
		return nil, fmt.Errorf("page %d has a broken header", id)
	}
	for i := id; i < id+n; i++ {
		if w.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	return p[:n*pageSize], nil
}

func (w *walk) tree(id uint64, depth int) error {
	p, err := w.page(id)
	if err != nil {
		return err
	}
	return w.node(p, depth)
}

func (w *walk) node(p []byte, depth int) error {
	if depth > 64 || len(p) < header {
		return errors.New("tree is too deep or a page too short")
	}
	flags, count := binary.NativeEndian.Uint16(p[8:]), int(binary.NativeEndian.Uint16(p[10:]))
	if flags != 1 && flags != 2 || header+count*16 > len(p) || flags == 1 && count == 0 {
		return errors.New("page is neither branch nor leaf, or overfull")
	}
	var last []byte
	for i := range count {
		at := header + i*16
		e := p[at:]
		var pos, ks, vs uint64
		if flags == 1 {
			pos, ks = uint64(u32(e)), uint64(u32(e[4:]))
		} else {
			pos, ks, vs = uint64(u32(e[4:])), uint64(u32(e[8:])), uint64(u32(e[12:]))
		}
		start := uint64(at) + pos
		if start+ks+vs > uint64(len(p)) {
			return errors.New("entry is out of its page")
		}
		key, value := p[start:start+ks], p[start+ks:start+ks+vs]
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return errors.New("keys are out of order")
		}
		last = key
		var err error
		switch {
		case flags == 1:
			err = w.tree(u64(e[8:]), depth+1)
		case u32(e) == 1 && len(value) < 16:
			err = errors.New("bucket is too short")
		case u32(e) == 1 && u64(value) != 0:
			err = w.tree(u64(value), depth+1)
		case u32(e) == 1:
			err = w.node(value[16:], depth+1)
		case u32(e) != 0:
			err = errors.New("unknown entry")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// freelist checks that no page that is free is in use, as the next write would overwrite it.
func (w *walk) freelist(id uint64) error {
	p, err := w.page(id)
	if err != nil {
		return err
	}
	n, at := uint64(binary.NativeEndian.Uint16(p[10:])), uint64(header)
	if n == 0xFFFF {
		n, at = u64(p[header:]), header+8
	}
	if binary.NativeEndian.Uint16(p[8:]) != 0x10 || n > (uint64(len(p))-at)/8 {
		return errors.New("free list is broken")
	}
	for i := range n {
		f := u64(p[at+i*8:])
		if f >= w.high || w.seen[f] {
			return fmt.Errorf("free page %d is in use", f)
		}
		w.seen[f] = true
	}
	return nil
}
