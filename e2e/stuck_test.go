package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStuckAndDamaged holds processes still and damages files, and expects all to come back by itself.
func TestStuckAndDamaged(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	rule := func(path string) string {
		return "      - matches: [{path: {match: EXACT, value: " + path + "}}]\n" + toV1
	}
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.apply(gatewayRoute("one", "", rule("/one")))
	f.answers(client, http.StatusOK, "GET", url("/one"))

	t.Run("a zone that stands still", func(t *testing.T) {
		stopped := f.running["east"].cmd.Process
		if err := stopped.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		f.fails(1, []string{"is committed but not live everywhere", "east"}, "apply", "--wait", "--timeout", "2s", "-f", f.write("two.yaml", gatewayRoute("two", "", rule("/two"))))
		if took := time.Since(began); took > answerTime/2 {
			t.Errorf("--timeout 2s took %s", took)
		}
		// Global answers about a zone that doesn't, within bounds.
		f.cli("get", "zones")
		f.answers(client, http.StatusOK, "GET", url("/one"))
		if err := stopped.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		f.settled("east", 3)
		f.answers(client, http.StatusOK, "GET", url("/two"))
	})

	t.Run("a damaged state", func(t *testing.T) {
		f.kill("east")
		state := f.path("east", "state.db")
		if err := os.WriteFile(state, []byte(strings.Repeat("damage", 10_000)), 0o600); err != nil {
			t.Fatal(err)
		}
		f.startZone("east", 2)
		f.logs("east", "data directory was damaged")
		if kept, err := filepath.Glob(state + ".corrupt-*"); err != nil || len(kept) != 1 {
			t.Errorf("the damaged state is not kept: %v %v", kept, err)
		}
		f.settled("east", 3)
		f.answers(client, http.StatusOK, "GET", url("/two"))
	})

	t.Run("a port that is let go of", func(t *testing.T) {
		taken, err := net.Listen("tcp", f.at(33, 15006))
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		f.startProxy("east", 2, "late", sidecarDocument("default", "late", f.host(33), inboundOf("echo", "http", f.host(33), 8080, "")), f.path("tokens", "echo"))
		f.await("a refusal", func() error {
			s, err := f.status("east")
			if err == nil && len(s.Nacks) == 0 {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})
		taken.Close()
		f.settled("east", 4)
		f.says(f.cli("get", "zones"), "in sync")
	})
}
