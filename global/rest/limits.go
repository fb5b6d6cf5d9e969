package rest

import (
	"math"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/zoneforge/zoneforge/overload"
)

// Limits bound what one client may ask for: a user by the token, and by the address whoever comes without a good one. A 0 sets no bound.
type Limits struct {
	// Rate is how many requests a second a client may send; after a rest it may send those of restBurst at once.
	Rate int
	// Concurrency is how many requests of a client may be under way, those that watch included.
	Concurrency int
	// Refused is told the reason of each refusal, of Reasons; it may be nil.
	Refused func(reason string)
}

// Reasons for which requests are refused that ask for too much.
const (
	ReasonRate        = "rate"
	ReasonConcurrency = "concurrency"
	ReasonBodies      = "bodies"
)

// Reasons are all of them.
func Reasons() []string { return []string{ReasonRate, ReasonConcurrency, ReasonBodies} }

const (
	// restBurst is how long a client may have been quiet to its gain.
	restBurst = 5 * time.Second
	// A change in memory is many times as large as its body, so bodies that are larger than smallBody are under way for not more than
	// so many bytes of all clients, and of one.
	smallBody  = 64 << 10
	allBodies  = 4 * maxBody
	eachBodies = 2 * maxBody
)

// bounds keep clients within Limits.
type bounds struct {
	rate    *overload.Clients
	asking  *overload.Room
	bodies  *overload.Room
	refused func(reason string)
}

func newBounds(l Limits) *bounds {
	b := &bounds{
		rate: overload.NewClients(0, 1), asking: overload.NewRoom(math.MaxInt64, math.MaxInt64), bodies: overload.NewRoom(allBodies, eachBodies), refused: l.Refused,
	}
	if l.Rate > 0 {
		b.rate = overload.NewClients(time.Second/time.Duration(l.Rate), l.Rate*int(restBurst/time.Second))
	}
	if l.Concurrency > 0 {
		b.asking = overload.NewRoom(math.MaxInt64, int64(l.Concurrency))
	}
	if b.refused == nil {
		b.refused = func(string) {}
	}
	return b
}

// clientOf is whom a request counts for. Users behind one address don't share what one of them may ask for, nor do they lose it to
// a stranger there.
func clientOf(r *http.Request, who Principal, err error) string {
	switch {
	case err != nil:
		host, _, splitErr := net.SplitHostPort(r.RemoteAddr)
		if splitErr != nil {
			host = r.RemoteAddr
		}
		return "from " + host
	case who.Token != "":
		return "token " + who.Token
	}
	return "user " + who.Name
}

// enter lets a request in until leave is called.
func (b *bounds) enter(w http.ResponseWriter, client string) (leave func(), p *problem) {
	if wait := b.rate.Ask(client, time.Now()); wait > 0 {
		return nil, b.refuse(w, ReasonRate, "too many requests by this client", wait)
	}
	leave, ok := b.asking.Enter(client, 1)
	if !ok {
		return nil, b.refuse(w, ReasonConcurrency, "too many requests of this client are under way", time.Second)
	}
	return leave, nil
}

// carry takes room for the body of a user's request until leave is called.
func (b *bounds) carry(w http.ResponseWriter, r *http.Request, who Principal) (leave func(), p *problem) {
	n := r.ContentLength
	switch {
	case n < 0:
		n = maxBody // nobody knows yet
	case n <= smallBody:
		return func() {}, nil
	case n > maxBody:
		n = 0 // it is refused before it is read to its end
	}
	leave, ok := b.bodies.Enter(clientOf(r, who, nil), n)
	if !ok {
		return nil, b.refuse(w, ReasonBodies, "too much of other changes is under way", time.Second)
	}
	return leave, nil
}

func (b *bounds) refuse(w http.ResponseWriter, reason, detail string, wait time.Duration) *problem {
	b.refused(reason)
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	return newProblem(http.StatusTooManyRequests, "too_many_requests", detail+"; nothing was done", "wait as long as Retry-After says, then repeat it")
}
