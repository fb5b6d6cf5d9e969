package rest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/global/audit"
)

// sealer is embedded under a name that is none of its methods'.
type sealer = Sealing

// account writes down in which order keys are made and requests are recorded.
type account struct {
	sealer
	lines []string
	// full has no request noted.
	full error
}

func (a *account) AddKey() (id string, err error) {
	a.lines = append(a.lines, "the key is made")
	return "k1", nil
}

func (a *account) Begin(e audit.Entry) (number int64, err error) {
	if a.full == nil {
		a.lines, number = append(a.lines, "begun: "+strings.Join(e.What, ", ")), 7
	}
	return number, a.full
}

func (a *account) Record(e audit.Entry) error {
	if a.full == nil {
		a.lines = append(a.lines, fmt.Sprintf("%d of %d: %s", e.Status, e.Begun, strings.Join(e.What, ", ")))
	}
	return a.full
}

func (a *account) Entries(int, int64) ([]audit.Entry, error) { return nil, nil }

// TestKeyIsAccountedForBeforeItIsMade holds that a crash can come between any two steps and leaves no key for which nobody accounts, and
// that a log that can't be written keeps nobody from making one.
func TestKeyIsAccountedForBeforeItIsMade(t *testing.T) {
	for _, c := range []struct {
		full error
		want []string
	}{
		{nil, []string{"begun: make key-encryption key", "the key is made", "201 of 7: make key-encryption key, key k1"}},
		{errors.New("no space left on device"), []string{"the key is made"}},
	} {
		a := &account{full: c.full}
		api := client{t, New(Config{Store: newStore(t), Authenticator: byName{}, Sealing: a, Audit: a, Ready: func(context.Context) error { return nil }})}
		api.want(api.do("admin", "POST", "/v1/kek/keys", js, ""), 201, `"key":"k1"`)
		if !slices.Equal(a.lines, c.want) {
			t.Errorf("%q, want %q", a.lines, c.want)
		}
	}
}
