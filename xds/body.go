package xds

import (
	"iter"
	"strings"
	"unique"

	"google.golang.org/protobuf/types/known/anypb"
)

// What is the same in the resources of many proxies is kept once for all of them. Replicas of a workload take requests in by resources
// that differ in the replica's address alone, which stands in names all over them; what workloads know of a service differs in the
// certificate that they show to it; and most of any HTTP listener are its filters. So an encoded resource is kept without these texts, as a
// body that others have, too.

const (
	// mark stands in a body where a text was left out, before the number of that. No end of it is a beginning of it, so that it is found
	// where it was put, and UTF-8 has none of its bytes.
	mark = "\xff\xfe\xfd"
	// shortest is the length from which a text is worth it.
	shortest = 2 * len(mark)
	// filtersText is the number of the filters of HTTP listeners, and the first of a resource's own texts has the next.
	filtersText = 0
)

// personalize cuts the texts of a proxy's own, nil for none, out of a resource that nobody else has.
func (r *Resource) personalize(own *[]string) {
	r.cut(own)
	r.personal = r.own != nil
}

// cut keeps a resource that nobody has yet as a body, if filters of HTTP listeners or any of the texts is in it. Its bytes stay what they are.
func (r *Resource) cut(own *[]string) {
	c, err := chains()
	if err != nil || r.any == nil || r.TypeURL != TypeListener && own == nil {
		return
	}
	whole := string(r.any.GetValue())
	texts := []string{filtersText: c.text}
	if own != nil {
		texts = append(texts, *own...)
	}
	var body strings.Builder
	body.Grow(len(whole))
	last := filtersText
	next := make([]int, len(texts)) // is where each of them stands, so that none is looked for twice
	for i := range next {
		next[i] = -1
	}
	for from := 0; ; {
		at, number := len(whole), -1
		for i, text := range texts {
			if next[i] < from {
				next[i] = len(whole)
				if p := strings.Index(whole[from:], text); p >= 0 && len(text) >= shortest {
					next[i] = from + p
				}
			}
			if next[i] < at || next[i] == at && number >= 0 && len(text) > len(texts[number]) {
				at, number = next[i], i
			}
		}
		body.WriteString(whole[from:at])
		if number < 0 {
			break
		}
		body.WriteString(mark)
		body.WriteByte(byte(number))
		from, last = at+len(texts[number]), max(last, number)
	}
	if body.Len() == len(whole) || strings.Contains(whole, mark) || len(texts) > int(mark[0]) {
		return
	}
	r.any, r.body = nil, unique.Make(body.String())
	if last > filtersText {
		r.own = own
	}
}

// pieces are the encoded resource, one after the other.
func (r *Resource) pieces() iter.Seq[string] {
	return func(yield func(string) bool) {
		for body := r.body.Value(); ; {
			before, after, more := strings.Cut(body, mark)
			if !yield(before) || !more || !yield(r.text(int(after[0]))) {
				return
			}
			body = after[1:]
		}
	}
}

func (r *Resource) text(number int) string {
	if number > filtersText {
		return (*r.own)[number-filtersText-1]
	}
	c, _ := chains() // it was not cut out otherwise
	return c.text
}

// Any is the resource as it is sent. It must not be changed.
func (r *Resource) Any() *anypb.Any {
	if r.any != nil {
		return r.any
	}
	value := make([]byte, 0, r.Size())
	for piece := range r.pieces() {
		value = append(value, piece...)
	}
	return &anypb.Any{TypeUrl: r.TypeURL, Value: value}
}

// Size of the encoded resource, in bytes.
func (r *Resource) Size() int {
	if r.any != nil {
		return len(r.any.GetValue())
	}
	size := 0
	for piece := range r.pieces() {
		size += len(piece)
	}
	return size
}
