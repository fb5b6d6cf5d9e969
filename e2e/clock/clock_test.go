//go:build linux && amd64

package clock

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

const askedVariable = "ZONEFORGE_CLOCK_ASKED"

// TestMain is also the process whose clock is set: it says the time, and how long it runs, for each line that it is sent.
func TestMain(m *testing.M) {
	if os.Getenv(askedVariable) == "" {
		os.Exit(m.Run())
	}
	began, lines := time.Now(), bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		now := time.Now()
		fmt.Println(now.Unix(), now.Sub(began).Milliseconds())
	}
}

func TestClockIsSet(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), askedVariable+"=yes")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c, err := Start(cmd, -time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(out)
	says := func(by time.Duration) {
		t.Helper()
		before := time.Now()
		if _, err := fmt.Fprintln(in); err != nil {
			t.Fatal(err)
		}
		var unix, ran int64
		if _, err := fmt.Fscanln(answers, &unix, &ran); err != nil {
			t.Fatal(err)
		}
		after := time.Now()
		if first, last := before.Add(by).Unix(), after.Add(by).Unix(); unix < first || unix > last {
			t.Errorf("with a clock off by %s it is %d, want %d to %d", by, unix, first, last)
		}
		if most := after.Sub(began); time.Duration(ran)*time.Millisecond > most {
			t.Errorf("with a clock off by %s it runs for %d ms, at most %s are possible", by, ran, most)
		}
	}
	says(-time.Hour)
	for _, by := range []time.Duration{0, 48 * time.Hour, -48 * time.Hour} {
		if err := c.Set(by); err != nil {
			t.Fatal(err)
		}
		says(by)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
