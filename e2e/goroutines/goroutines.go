// Package goroutines finds those that tests leave behind, however slow the machine is.
package goroutines

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end that were told to.
const patience = time.Minute

// Verify runs the tests of a package, and fails it when goroutines are left over. goleak alone waits for them for less than a second.
func Verify(m *testing.M, ignored ...goleak.Option) {
	code := m.Run()
	if code == 0 {
		if err := await(patience, ignored...); err != nil {
			fmt.Fprintln(os.Stderr, "after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// await returns once no goroutine is left over, or with an error that names those that stay.
func await(limit time.Duration, ignored ...goleak.Option) error {
	for end := time.Now().Add(limit); ; {
		err := goleak.Find(ignored...)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
