package zone

import (
	"testing"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
)

// A proxy that comes back after a restart with what it presented before is neither read nor written to disk again; one that presents
// something else is, and so is one that another version of the software read.
func TestWhatTheDiskHoldsIsNotWrittenAgain(t *testing.T) {
	w := newTown(t, 2)
	id := workID(0, 0)
	who := *w.proxies[id].who
	who.Document = admission.Document{1}
	w.files.wanted = map[string]*disk.Registration{}
	w.files.put(&who)
	kept := *w.files.wanted[id]

	for _, c := range []struct {
		name, version string
		known         bool
		document      bool
		written       bool
	}{
		{"the same", "", true, true, false},
		{"another document", "", false, true, true},
		{"another version", "2", false, false, true},
	} {
		w.files.version = c.version
		r, err := w.files.read(kept)
		if err != nil || (r.document != nil) != c.document || c.document && *r.document != who.Document {
			t.Fatalf("%s: %+v, %v", c.name, r, err)
		}
		back := newTown(t, 1)
		back.state.Register(r.Proxy, false)
		back.restored[id] = &proxy{id: id, since: time.Now()}
		delete(back.proxies, id)
		back.files.wanted = map[string]*disk.Registration{}
		came := who
		came.Known, came.Dataplane = c.known, came.Resource.Spec.(*meshv1.Dataplane)
		back.connect(&came, "")
		if _, written := back.files.wanted[id]; written != c.written {
			t.Errorf("%s: written %v", c.name, written)
		}
	}
}
