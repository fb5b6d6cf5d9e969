package server

import "sync/atomic"

// Work is what a server did since New.
type Work struct {
	// Told counts the times that a stream was given something to look at.
	Told uint64
	// Responses, and the Resources in them with their Bytes, were sent.
	Responses, Resources, Bytes uint64
}

// tally counts it. It is safe for concurrent use.
type tally struct{ told, responses, resources, bytes atomic.Uint64 }

func (t *tally) sent(r *response) {
	contents := r.contents()
	bytes := 0
	for _, c := range contents {
		bytes += c.Size()
	}
	t.responses.Add(1)
	t.resources.Add(uint64(len(contents)))
	t.bytes.Add(uint64(bytes))
}

// Work is what was done until now.
func (s *Server) Work() Work {
	return Work{s.tally.told.Load(), s.tally.responses.Load(), s.tally.resources.Load(), s.tally.bytes.Load()}
}
