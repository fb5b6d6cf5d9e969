package overload

import "sync"

// Room bounds how much is under way at once, in units of its owner's choice: of all, and of each client.
type Room struct {
	most, each int64

	mu sync.Mutex
	// Guarded by mu.
	taken int64
	of    map[string]int64
}

// NewRoom has room for so much of all clients, and of each.
func NewRoom(most, each int64) *Room {
	return &Room{most: most, each: each, of: map[string]int64{}}
}

// Enter takes room for a client until leave is called, once; ok is false where there is none.
func (r *Room) Enter(client string, n int64) (leave func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken+n > r.most || r.of[client]+n > r.each {
		return nil, false
	}
	r.taken += n
	r.of[client] += n
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.taken -= n
		if r.of[client] -= n; r.of[client] == 0 {
			delete(r.of, client)
		}
	}, true
}
