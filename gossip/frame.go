package gossip

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// frame is what one replica sends to another. Of what goes with push/pull, only Summaries are there: all else follows from them.
type frame struct {
	Format    int       `json:"format"`
	From      string    `json:"from"`
	Summaries []summary `json:"summaries,omitempty"`
	Delta     *delta    `json:"delta,omitempty"`
	Wants     []want    `json:"wants,omitempty"`
	Contents  []content `json:"contents,omitempty"`
	// Bye says that the sender goes, which memberlist doesn't tell from a death.
	Bye bool `json:"bye,omitempty"`
}

// summary says which version of an owner's records is held.
type summary struct {
	Owner   string `json:"owner"`
	Version uint64 `json:"version"`
	Sum     sum    `json:"sum"`
}

// delta is all that an owner changed after one version and up to another, with the sum of all its records then.
type delta struct {
	Owner   string   `json:"owner"`
	From    uint64   `json:"from"`
	To      uint64   `json:"to"`
	Sum     sum      `json:"sum"`
	Upserts []item   `json:"upserts,omitempty"`
	Deletes []string `json:"deletes,omitempty"`
}

// want asks for an owner's records where they differ from those that are held, which Sums tell bucket by bucket; none are held without.
type want struct {
	Owner   string `json:"owner"`
	Version uint64 `json:"version"`
	Sums    []byte `json:"sums,omitempty"`
}

// content answers a want with whole buckets.
type content struct {
	Owner   string `json:"owner"`
	Version uint64 `json:"version"`
	Sum     sum    `json:"sum"`
	Buckets []int  `json:"buckets"`
	Items   []item `json:"items"`
}

const (
	format = 2
	// packFrom is from how many bytes on a frame is packed, and maxFrame bounds one that is unpacked.
	packFrom = 1 << 10
	maxFrame = 128 << 20
)

func encode(f frame) ([]byte, error) {
	f.Format = format
	b, err := json.Marshal(f)
	if err != nil || len(b) < packFrom {
		return b, err
	}
	if len(b) > maxFrame {
		return nil, fmt.Errorf("gossip frame of %d bytes, at most %d are allowed", len(b), maxFrame)
	}
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func decode(b []byte) (f frame, err error) {
	if len(b) > 0 && b[0] != '{' {
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err == nil {
			b, err = io.ReadAll(io.LimitReader(r, maxFrame+1))
		}
		if err == nil && len(b) > maxFrame {
			err = fmt.Errorf("more than %d bytes", maxFrame)
		}
		if err != nil {
			return f, fmt.Errorf("unpack gossip frame: %w", err)
		}
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("decode gossip frame: %w", err)
	}
	if f.Format != format {
		return f, fmt.Errorf("gossip frame has format %d, this replica speaks %d: run one version in all replicas", f.Format, format)
	}
	return f, f.check()
}

// check refuses what no replica sends. The largest versions are refused since their owner could never overrule them.
func (f frame) check() error {
	const most = 1 << 63
	ok := f.From != ""
	items := func(list []item, version uint64) {
		for _, i := range list {
			ok = ok && i.Key != "" && i.Version <= version
		}
	}
	for _, s := range f.Summaries {
		ok = ok && s.Owner != "" && s.Version <= most
	}
	if d := f.Delta; d != nil {
		ok = ok && d.Owner != "" && d.From <= d.To && d.To <= most
		items(d.Upserts, d.To)
	}
	for _, w := range f.Wants {
		ok = ok && w.Owner != ""
	}
	for _, c := range f.Contents {
		ok = ok && c.Owner != "" && c.Version <= most
		items(c.Items, c.Version)
	}
	if !ok {
		return errors.New("gossip frame without an owner or key, or with an impossible version")
	}
	return nil
}
