package dataplane

import (
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
