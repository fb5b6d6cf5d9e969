package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestPortsOfReplicas finds no port of a replica of global but those that docs/security.md names, and none of the two that others lack which
// tells anything to who has neither a certificate of a replica nor the key of gossip.
func TestPortsOfReplicas(t *testing.T) {
	f := startReplicated(t, 2, 0)
	f.see(0, 2, 0)
	page, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| global (gossip )?(\d+), in replicas \|`).FindAllStringSubmatch(string(page), -1) {
		named[strings.TrimSpace(m[1])] = m[2]
	}
	if want := map[string]string{"": strconv.Itoa(peerPort), "gossip": strconv.Itoa(gossipPort)}; len(named) != 2 || named[""] != want[""] || named["gossip"] != want["gossip"] {
		t.Fatalf("security.md names %v, want %v", named, want)
	}
	for i := range 2 {
		n := replicaHost(i)
		want := []string{"tcp " + f.at(n, restPort), "tcp " + f.at(n, kdsPort), "tcp " + f.at(n, peerPort), "tcp " + f.at(n, gossipPort), "udp " + f.at(n, gossipPort)}
		slices.Sort(want)
		f.await("ports of "+replicaName(i), func() error {
			if got := listening(t, f.running[replicaName(i)].cmd.Process.Pid); !slices.Equal(got, want) {
				return fmt.Errorf("it listens on %q, want %q", got, want)
			}
			return nil
		})
	}

	// Between replicas: TLS 1.3 alone, and a certificate of a replica.
	peer := f.at(replicaHost(1), peerPort)
	if answer := plaintext(t, peer); answer != "" {
		t.Errorf("replicas answer without TLS: %q", answer)
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
		conn, err := dialTLS(peer, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: version, MaxVersion: version})
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("replicas by %s: %v", tls.VersionName(version), err)
		}
	}
	f.strangerIsRefused(peer)

	// Gossip: what is not encrypted learns nothing, by either transport. Both are what a member would answer that has no key: an exchange of
	// all that is known, to which an encrypted refusal comes, and a ping, to which nothing does.
	gossip := f.at(replicaHost(1), gossipPort)
	exchange := "\x06\x83\xa5Nodes\x00\xacUserStateLen\x00\xa4Join\xc2"
	ping := "\x00\x82\xa5SeqNo\x01\xa4Node\xa0"
	const encrypted = 10 // how memberlist begins what it encrypts
	for network, message := range map[string]string{"tcp": exchange, "udp": ping} {
		conn, err := net.DialTimeout(network, gossip, answerTime)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// No answer is what a ping shall get; the end of an exchange comes.
		wait := map[string]time.Duration{"tcp": answerTime, "udp": 2 * time.Second}[network]
		if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, message); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		var timeout net.Error
		switch {
		case network == "udp" && (len(answer) > 0 || !errors.As(err, &timeout) || !timeout.Timeout()):
			t.Errorf("a ping from who has no key is answered: %q %v", answer, err)
		case network == "tcp" && (err != nil || len(answer) > 0 && answer[0] != encrypted || bytes.Contains(answer, []byte("global")) || len(answer) > 256):
			t.Errorf("an exchange with who has no key: %q %v", answer, err)
		}
	}
}
