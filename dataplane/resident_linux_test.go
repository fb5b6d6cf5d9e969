package dataplane

import (
	"os"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/resource"
)

// TestDroppedProgramStillWorks reads a document before and after its code and its constants were dropped.
func TestDroppedProgramStillWorks(t *testing.T) {
	read := func() string {
		r, err := ReadDocument("-", "", strings.NewReader("type: ZoneIngress\nname: i\nnetworking: {address: 127.0.0.1, port: 10001}\n"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := resource.EncodeJSON(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	p, err := openProgram()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	files := func() int64 {
		_, n, err := p.resident()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	want, before := read(), files()
	if err := p.drop(); err != nil {
		t.Fatal(err)
	}
	after := files()
	if after > before/2 {
		t.Errorf("of files %d bytes are resident, and %d were before", after, before)
	}
	if got := read(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestProgramIsInPieces counts the mappings of the program: no more than a piece is in one, so that no access brings back more.
func TestProgramIsInPieces(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		return // this kernel keeps files in single pages
	}
	p, err := openProgram()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	now, err := unwritten()
	if err != nil {
		t.Fatal(err)
	}
	var before, after uintptr
	for _, m := range p.text {
		before += m[1] - m[0]
	}
	for _, m := range now {
		after += m[1] - m[0]
		if m[1]-m[0] > piece {
			t.Errorf("%x-%x is of %d bytes in one piece", m[0], m[1], m[1]-m[0])
		}
	}
	if before < 2*piece || after != before {
		t.Errorf("%d bytes are mapped in pieces of %d, and %d were before", after, piece, before)
	}
}
