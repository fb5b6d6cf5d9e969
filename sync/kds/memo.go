package kds

import (
	"sync"

	"google.golang.org/protobuf/proto"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Frame is a frame to be sent. Encoded has its bytes when they are made already, as for frames that go to many zones.
type Frame struct {
	*kdsv1.GlobalFrame
	Encoded []byte
}

// Memo keeps the deltas that machines made to one view, so that those of other streams from the same start need not make and encode
// them again. It belongs to a View and goes with it. It is safe for concurrent use.
type Memo struct {
	mu   sync.Mutex
	from map[start]*made // guarded by mu
}

// start is what a delta begins from: a position, or nothing for a snapshot.
type start struct {
	epoch    string
	revision uint64
	snapshot bool
	// size is that of chunks.
	size int
}

// made is a delta with its frames.
type made struct {
	delta  *delta
	frames []Frame
}

// maxMemo bounds the starts that are kept. Zones that are in sync all begin from one, and others from a few.
const maxMemo = 64

// get gives what was made from a start, or makes it; nil is not kept.
func (m *Memo) get(at start, fill func() *made) *made {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.from[at]; d != nil {
		return d
	}
	d := fill()
	if d != nil && len(m.from) < maxMemo {
		if m.from == nil {
			m.from = map[start]*made{}
		}
		m.from[at] = d
	}
	return d
}

// made cuts and encodes the delta.
func (d *delta) made(size int) *made {
	out := &made{delta: d}
	for _, c := range d.chunks(size) {
		f := &kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Chunk{Chunk: c}}
		encoded, err := proto.Marshal(f)
		if err != nil {
			encoded = nil // a text that is no UTF-8, which the stream will tell of when it can't send it either
		}
		out.frames = append(out.frames, Frame{f, encoded})
	}
	return out
}
