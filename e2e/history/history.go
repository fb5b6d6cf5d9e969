// Package history is what happened in a run under faults, and the guarantees that are judged over it.
//
// It owns the record, its file of JSON lines, the validators of docs/guarantees.md and the figures of many runs. It drives nothing and
// waits for nothing: who runs a federation tells it what was seen. A History is safe for concurrent use.
package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Committed is the answer to a change.
type Committed struct {
	Change   int64
	Revision uint64
}

// Attempt is a change that was sent.
type Attempt struct {
	Message string
	// Resource that it wrote, and the generation that it gave it; 0 for a delete.
	Resource   string
	Generation int
	// Acked says that it was answered with success; else nothing is known.
	Acked bool
	// Same says that it was answered with success and changed nothing, so that it is in no history.
	Same   bool
	Answer Committed
}

// Written is what was found in global's history at the end.
type Written struct {
	Change   int64
	Revision int64
	Message  string
}

// Sample is a zone's revision as global told it.
type Sample struct {
	Zone, Epoch string
	Revision    uint64
}

// Seen is a generation of a policy that a proxy was given and took.
type Seen struct {
	Proxy    string
	Stream   int
	Revision uint64 // of the proxy's configuration
	Resource string
	// Policy is the name of what one change writes as a whole, such as pair.
	Policy string
	// Generation; 0 where the resource is without the policy, or gone.
	Generation int
}

// Refused is a generation that a proxy rejected.
type Refused struct {
	Proxy, Resource string
	Generation      int
}

// Assigned are the endpoints that a proxy was given.
type Assigned struct {
	Proxy, Name string
	Addresses   []string
}

// Owned is something of one mesh, such as an endpoint, a trust root or a name, that was given to a proxy of a mesh, or to somebody who asked for
// what is in that mesh.
type Owned struct {
	By, Mesh string
	What     string
}

// Request is one, or many that ended in the same way.
type Request struct {
	By    string
	Count int
	// Lost says how it failed, empty where it was answered.
	Lost string
	// Without says why no working path existed, empty where one did.
	Without string
}

// Ended is what was found of a zone at the end, after calm.
type Ended struct {
	Zone         string
	Held, Wanted string // positions
	Live         bool
	Rejected     []string
}

// entry is one line of the file: when, since the start, and one of the others.
type entry struct {
	At       string
	Note     string    `json:",omitempty"`
	Attempt  *Attempt  `json:",omitempty"`
	Sample   *Sample   `json:",omitempty"`
	Seen     *Seen     `json:",omitempty"`
	Refused  *Refused  `json:",omitempty"`
	Assigned *Assigned `json:",omitempty"`
	Owned    *Owned    `json:",omitempty"`
	Request  *Request  `json:",omitempty"`
	Ended    *Ended    `json:",omitempty"`
}

// History is what happened. The lists are in the order in which it did; they are read once nothing is recorded any more.
type History struct {
	Attempts []Attempt
	Samples  []Sample
	Seen     []Seen
	Refused  []Refused
	Assigned []Assigned
	Owned    []Owned
	Requests []Request
	// Of the end.
	Zones   []Ended
	Changes []Written
	// Final is the generation of each resource as global has it; 0 where it has none.
	Final map[string]int
	// Converged is how long the last change took to be live everywhere.
	Converged time.Duration
	// Bad are the keys of records that no zone can use.
	Bad []string
	// Vanishing are services of which the only backend's stream is ended on purpose; its end is the backend's.
	Vanishing []string

	// Left are proxies that went for good.
	Left []string

	mu       sync.Mutex
	began    time.Time
	streams  int
	troubles map[string]string
	faults   map[string]int
	entries  []entry
	owned    map[Owned]bool
}

// New is an empty history that begins now.
func New() *History {
	return &History{began: time.Now(), Final: map[string]int{}, troubles: map[string]string{}, faults: map[string]int{}, owned: map[Owned]bool{}}
}

func (h *History) enterLocked(e entry) {
	e.At = fmt.Sprintf("%.3fs", time.Since(h.began).Seconds())
	h.entries = append(h.entries, e)
}

// Note keeps what was done.
func (h *History) Note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.enterLocked(entry{Note: fmt.Sprintf(format, args...)})
}

// Fault counts one by its kind.
func (h *History) Fault(kind string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[kind]++
}

// Stream begins a stream of a proxy, and numbers it.
func (h *History) Stream() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams++
	return h.streams
}

// Trouble is why a proxy's stream ended last.
func (h *History) Trouble(proxy string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.troubles[proxy] = fmt.Sprint(err)
	h.enterLocked(entry{Note: fmt.Sprintf("the stream of %s ended: %v", proxy, err)})
}

// Troubles are the newest by proxy, for a person.
func (h *History) Troubles() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprint(h.troubles)
}

// Saw records a generation.
func (h *History) Saw(s Seen) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Seen = append(h.Seen, s)
	h.enterLocked(entry{Seen: &s})
}

// Refuses records what a proxy rejected.
func (h *History) Refuses(r Refused) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Refused = append(h.Refused, r)
	h.enterLocked(entry{Refused: &r})
}

// Gone records a proxy that goes for good, once it takes nothing more.
func (h *History) Gone(proxy string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Left = append(h.Left, proxy)
	h.enterLocked(entry{Note: proxy + " is gone"})
}

// Assign records endpoints.
func (h *History) Assign(a Assigned) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Assigned = append(h.Assigned, a)
	h.enterLocked(entry{Assigned: &a})
}

// Owns records, once, what belongs to a mesh.
func (h *History) Owns(o Owned) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.owned[o] {
		return
	}
	h.owned[o] = true
	h.Owned = append(h.Owned, o)
	h.enterLocked(entry{Owned: &o})
}

// Asked records requests.
func (h *History) Asked(r Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Requests = append(h.Requests, r)
	h.enterLocked(entry{Request: &r})
}

// Attempted records a change.
func (h *History) Attempted(a Attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Attempts = append(h.Attempts, a)
	h.enterLocked(entry{Attempt: &a})
}

// Sampled records a zone's revision.
func (h *History) Sampled(s Sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Samples = append(h.Samples, s)
	h.enterLocked(entry{Sample: &s})
}

// End records a zone's end.
func (h *History) End(e Ended) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Zones = append(h.Zones, e)
	h.enterLocked(entry{Ended: &e})
}

// Endpoints are the newest addresses that a proxy has under a name that contains part.
func (h *History) Endpoints(proxy, part string) (out []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.Assigned {
		if a.Proxy == proxy && strings.Contains(a.Name, part) {
			out = a.Addresses
		}
	}
	return out
}

// Proxies are those that saw a generation and did not leave, sorted.
func (h *History) Proxies() (out []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.Seen {
		if !slices.Contains(out, s.Proxy) && !slices.Contains(h.Left, s.Proxy) {
			out = append(out, s.Proxy)
		}
	}
	slices.Sort(out)
	return out
}

// Generation is the newest of a policy that a proxy has.
func (h *History) Generation(proxy, policy string) (out int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.Seen {
		if s.Proxy == proxy && s.Policy == policy {
			out = s.Generation
		}
	}
	return out
}

// WriteFile leaves the history as lines of JSON.
func (h *History) WriteFile(path string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, e := range h.entries {
		if err := enc.Encode(e); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	if err := enc.Encode(map[string]any{"Changes": h.Changes, "Final": h.Final, "Bad": h.Bad, "Vanishing": h.Vanishing}); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return f.Close()
}
