package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listening are the sockets on which a process takes connections or datagrams, such as tcp 127.0.0.1:80.
func listening(t *testing.T, pid int) []string {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", pid)
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{}
	for _, fd := range fds {
		// One that was closed meanwhile is none.
		if target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil {
			own[target] = true
		}
	}
	var out []string
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(proc + "/net/" + table)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6 here
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(text), "\n")[1:] {
			// sl local remote state queues timer retransmits uid timeout inode
			f := strings.Fields(line)
			const tcpListen, unconnected = "0A", "07"
			if len(f) < 10 || !own["socket:["+f[9]+"]"] || f[3] != tcpListen && (f[3] != unconnected || table[:3] != "udp") {
				continue
			}
			at := table[:3] + " " + socketAddress(t, f[1])
			if !slices.Contains(out, at) { // Envoy has one for each worker
				out = append(out, at)
			}
		}
	}
	slices.Sort(out)
	return out
}

// socketAddress reads an address of /proc/net, whose words are in the order of amd64 and arm64, the lowest byte first.
func socketAddress(t *testing.T, text string) string {
	t.Helper()
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	ip, _ := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)).String()
}

// children are the processes that a process started.
func children(t *testing.T, pid int) (out []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("\nPPid:\t%d\n", pid)) {
			continue // it may have ended
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, child)
	}
	return out
}

// TestPorts finds no listening socket but those that docs/security.md names and documents ask for, and no port of a control plane or of
// a mesh that talks without TLS, or by one older than 1.2.
func TestPorts(t *testing.T) {
	f := startEdge(t)
	page, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (global|zone) (REST|KDS|xDS) (\d+) \|`).FindAllStringSubmatch(string(page), -1) {
		named[m[1]+" "+m[2]] = m[3]
	}
	if len(named) != 4 {
		t.Fatalf("security.md names %v", named)
	}
	at := func(n int, port string) string { return "tcp " + net.JoinHostPort(f.host(n), port) }
	wantProcess := func(name string, pid int, want ...string) {
		t.Helper()
		slices.Sort(want)
		f.await("ports of "+name, func() error {
			if got := listening(t, pid); !slices.Equal(got, want) {
				return fmt.Errorf("it listens on %q, want %q", got, want)
			}
			return nil
		})
	}
	pid := func(name string) int { return f.running[name].cmd.Process.Pid }
	wantProcess("global", pid("global"), at(1, named["global REST"]), at(1, named["global KDS"]))
	wantProcess("the zone", pid("east"), at(2, named["zone xDS"]), at(2, named["zone REST"]))
	for name, want := range map[string]string{"echo-v1": at(31, "15006"), "echo-v2": at(32, "15006"), "edge": at(10, "8080")} {
		wantProcess("the launcher of "+name, pid(name))
		envoys := children(t, pid(name))
		if len(envoys) != 1 {
			t.Fatalf("%s has the children %v", name, envoys)
		}
		wantProcess("the Envoy of "+name, envoys[0], want)
	}

	roots := func(owner string) *x509.CertPool {
		pem, err := os.ReadFile(f.path(owner, "tls", "server-ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		return pool
	}
	for name, port := range map[string]struct {
		address string
		config  *tls.Config
	}{
		"global REST": {f.host(1) + ":" + named["global REST"], &tls.Config{RootCAs: roots("global")}},
		"global KDS":  {f.host(1) + ":" + named["global KDS"], &tls.Config{RootCAs: roots("global"), NextProtos: []string{"h2"}}},
		"zone xDS":    {f.host(2) + ":" + named["zone xDS"], &tls.Config{RootCAs: roots("east"), NextProtos: []string{"h2"}}},
		"zone REST":   {f.host(2) + ":" + named["zone REST"], &tls.Config{RootCAs: roots("east")}},
		// Whose name its certificate bears is another test's question.
		"inbound": {f.at(31, 15006), &tls.Config{InsecureSkipVerify: true}},
	} {
		if answer := plaintext(t, port.address); answer != "" && !strings.HasPrefix(answer, "HTTP/1.0 400 ") {
			t.Errorf("%s answers without TLS: %q", name, answer)
		}
		for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			config := port.config.Clone()
			config.MinVersion, config.MaxVersion = version, version
			conn, err := dialTLS(port.address, config)
			if err == nil {
				conn.Close()
			}
			switch old := version < tls.VersionTLS12; {
			case old && (err == nil || !strings.Contains(err.Error(), "protocol version")):
				t.Errorf("%s by %s: %v", name, tls.VersionName(version), err)
			// With TLS 1.2 the inbound asks for a certificate within the handshake; with 1.3 after it.
			case !old && err != nil && (name != "inbound" || version != tls.VersionTLS12):
				t.Errorf("%s by %s: %v", name, tls.VersionName(version), err)
			}
		}
	}
	// Whoever has no certificate of the mesh gets not a byte of it.
	conn, err := dialTLS(f.at(31, 15006), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The handshake's failure may come with either.
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
		t.Errorf("without a certificate the inbound answers %q", line)
	}
}

func dialTLS(address string, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
}

// plaintext is the first line that a port answers to a request without TLS.
func plaintext(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, answerTime)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.0\r\n\r\n"); err != nil {
		return ""
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s keeps a client waiting that speaks no TLS", address)
	}
	return line
}
