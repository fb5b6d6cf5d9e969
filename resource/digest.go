package resource

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Hash identifies one resource by key and canonical bytes.
type Hash [sha256.Size]byte

// HashOf hashes a key and the canonical bytes of its resource. Each part is preceded by its length, so no two inputs run
// together.
func HashOf(key Key, payload []byte) Hash {
	h := sha256.New()
	var n [8]byte
	for _, part := range [][]byte{[]byte(key.Kind), []byte(key.Mesh), []byte(key.Name), payload} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	var out Hash
	h.Sum(out[:0])
	return out
}

// Digest is an order-independent digest of a set of resources, kept up to date by one addition or subtraction per change:
// the sum of the members' hashes in four lanes of 64 bits, and their number. It finds loss and corruption; it is not meant
// to withstand an opponent who can choose many members, as both ends of a comparison are authenticated.
type Digest struct {
	lanes [4]uint64
	count uint64
}

// Add puts a member in. It must not be there yet.
func (d *Digest) Add(h Hash) {
	for i := range d.lanes {
		d.lanes[i] += binary.BigEndian.Uint64(h[i*8:])
	}
	d.count++
}

// Remove takes a member out. It must be there.
func (d *Digest) Remove(h Hash) {
	for i := range d.lanes {
		d.lanes[i] -= binary.BigEndian.Uint64(h[i*8:])
	}
	d.count--
}

// Merge puts in all members of another; none of them may be there yet.
func (d *Digest) Merge(o Digest) {
	for i := range d.lanes {
		d.lanes[i] += o.lanes[i]
	}
	d.count += o.count
}

// Count is the number of members.
func (d Digest) Count() uint64 { return d.count }

// Sum is the digest's 32 bytes.
func (d Digest) Sum() []byte {
	out := make([]byte, 0, 32)
	for _, l := range d.lanes {
		out = binary.BigEndian.AppendUint64(out, l)
	}
	return out
}

// String is the beginning of the sum in hexadecimal, for people.
func (d Digest) String() string { return hex.EncodeToString(d.Sum()[:8]) }

// DigestFrom reads a digest from Sum's bytes and a count; ok is false when sum is not 32 bytes.
func DigestFrom(sum []byte, count uint64) (d Digest, ok bool) {
	if len(sum) != 32 {
		return Digest{}, false
	}
	for i := range d.lanes {
		d.lanes[i] = binary.BigEndian.Uint64(sum[i*8:])
	}
	d.count = count
	return d, true
}
