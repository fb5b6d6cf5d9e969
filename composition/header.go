package composition

import "strconv"

// Names of the headers between a gateway's Envoy and the composer beside it. Envoy sets those to the composer itself, whatever a
// client sent, and takes away the one that comes back.
const (
	// PlanHeader, with -0, -1 and so on behind it, carries the plan in pieces.
	PlanHeader = "x-zoneforge-plan"
	// CallHeader names the call, as COMPOSITION/CALL.
	CallHeader = "x-zoneforge-call"
	// PartialHeader names the calls, in the answer to the client, that failed and were done without.
	PartialHeader = "x-composition-partial"
)

// Names of the sockets in the directory in which a gateway's Envoy runs.
const (
	// Socket is where the composer listens.
	Socket = "composer.sock"
	// BackSocket is where Envoy takes the composer's calls.
	BackSocket = "composer-calls.sock"
)

// maxPiece bounds one header in bytes, as Envoy refuses longer ones.
const maxPiece = 8 << 10

// Pieces cuts an encoded plan into headers.
func Pieces(encoded string) []Header {
	var out []Header
	for i := 0; len(encoded) > 0; i++ {
		n := min(len(encoded), maxPiece)
		out = append(out, Header{PlanHeader + "-" + strconv.Itoa(i), encoded[:n]})
		encoded = encoded[n:]
	}
	return out
}

// Join puts the pieces together again; header gives the value of one, or nothing.
func Join(header func(name string) string) string {
	out := ""
	for i := 0; len(out) <= MaxEncoded; i++ {
		piece := header(PlanHeader + "-" + strconv.Itoa(i))
		if piece == "" {
			break
		}
		out += piece
	}
	return out
}
