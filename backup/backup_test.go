package backup

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func whole(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, Head{Software: "1.0", Time: time.Unix(1, 0).UTC(), Epoch: "e", Revision: 7, Store: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []Entry{
		{Resource: &Resource{Kind: "Timeout", Mesh: "default", Name: "a", Revision: 3, Content: []byte("p\x01")}},
		{Chunk: &Chunk{ID: "x", N: 0, Value: []byte(`[{"kind":"Timeout"}]`)}},
		{Change: &Change{Seq: 1, Value: []byte(`{"seq":1}`)}},
		{File: &File{Name: "tls/server-ca.crt", Content: []byte("sealed")}},
	} {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	h, n, err := Check(bytes.NewReader(whole(t)))
	if err != nil || h.Epoch != "e" || h.Revision != 7 || n != (Counts{1, 1, 1, 1}) {
		t.Fatalf("%+v %+v %v", h, n, err)
	}
}

// Whichever bit is wrong and wherever the file ends, it is found.
func TestEveryDamageIsFound(t *testing.T) {
	text := whole(t)
	for i := range text {
		for bit := range 8 {
			wrong := bytes.Clone(text)
			wrong[i] ^= 1 << bit
			_, _, err := Check(bytes.NewReader(wrong))
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "line ") {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
		_, _, err := Check(bytes.NewReader(text[:i]))
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
			t.Fatalf("cut off at %d: %v", i, err)
		}
	}
	for name, wrong := range map[string][]byte{"twice": append(bytes.Clone(text), text...), "a line more": append(bytes.Clone(text), '\n')} {
		if _, _, err := Check(bytes.NewReader(wrong)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFailureOfTheReaderIsItsOwn(t *testing.T) {
	text, broken := whole(t), errors.New("broken disk")
	if _, _, err := Check(io.MultiReader(bytes.NewReader(text[:len(text)-40]), failing{broken})); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// What is read is what was written, and nothing panics or grows without bound.
func FuzzCheck(f *testing.F) {
	f.Add(whole(f))
	f.Add([]byte("zoneforge-backup 1\n"))
	f.Add([]byte("zoneforge-backup 2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _, err := Check(bytes.NewReader(text))
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrNewer) {
			t.Fatal(err)
		}
	})
}
