package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// see waits until a replica knows others, of which a number are cut off from etcd.
func (f *replicated) see(i, replicas, away int) {
	f.t.Helper()
	f.await("replicas that "+replicaName(i)+" knows", func() error {
		code, body, err := f.restAt(replicaHost(i), http.MethodGet, "/v1/status/replicas", nil)
		var list struct {
			Items []struct {
				Name       string
				Self, Away bool
			}
		}
		if err == nil {
			err = json.Unmarshal(body, &list)
		}
		cut := 0
		for _, r := range list.Items {
			if r.Away {
				cut++
			}
		}
		if err == nil && (code != http.StatusOK || len(list.Items) != replicas || cut != away) {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
}

// TestReplicasOfGlobal runs global in three replicas. Each of them answers for a zone that is connected to another; they are killed, paused
// and restarted one by one, and the zone notices no more of it than that it connects again.
func TestReplicasOfGlobal(t *testing.T) {
	f := startReplicated(t, 3, 0)
	f.startServing()
	for i := range 3 {
		f.see(i, 3, 0)
	}
	requests := f.send("http://" + f.at(10, 8080) + "/")
	watching := f.watch()
	n := 0
	change := func(i int) {
		t.Helper()
		n++
		path := fmt.Sprint("/change-", n)
		f.applyAt(i, gatewayRoute(fmt.Sprint("change-", n), "", pathRule(path)))
		f.answers(newClient(t), http.StatusOK, "GET", "http://"+f.at(10, 8080)+path)
	}

	// Any zone at any replica, and any question too.
	holder := f.holder("east")
	for i := range 3 {
		for _, c := range []struct {
			path, part string
			code       int
		}{
			{"/v1/zones/east/dataplanes", `"edge"`, http.StatusOK},
			{"/v1/zones/east/dataplanes/default/edge?config=true", `"listeners":[{`, http.StatusOK},
			{"/v1/zones/east/dataplanes/default/nobody", "no such proxy", http.StatusNotFound},
		} {
			// A busy machine may end the stream, of which the question knows nothing.
			f.await("an answer of "+replicaName(i), func() error {
				code, body, err := f.restAt(replicaHost(i), http.MethodGet, c.path, nil)
				if err == nil && (code != c.code || !strings.Contains(string(body), c.part)) {
					err = fmt.Errorf("%s, with the stream at %s: %d %.300s", c.path, replicaName(holder), code, body)
				}
				return err
			})
		}
		change(i)
	}

	// Another cluster of the same name is refused at another replica, and who has no certificate of a replica by its port for them.
	other := (holder + 1) % 3
	f.run("another", "zone", "run", "--name", "east", "--data-dir", f.path("another"), "--global", f.at(replicaHost(other), kdsPort), "--global-ca",
		f.path("global", "tls", "server-ca.crt"), "--token-file", f.path("tokens", "east"), "--xds-address", f.at(3, xdsPort), "--rest-address", f.at(3, 5683))
	f.await("a refusal", func() error {
		if !strings.Contains(f.said("another"), "is zone east already") {
			return fmt.Errorf("%s", f.said("another"))
		}
		return nil
	})
	f.kill("another")
	f.strangerIsRefused(f.at(replicaHost(holder), peerPort))

	// Killed.
	before := f.welcomes()
	f.kill(replicaName(holder))
	next := f.holder("east", holder)
	change(next)
	f.startReplica(holder)
	f.see(holder, 3, 0)

	// Paused, while changes go on, and resumed.
	paused := next
	f.signal(replicaName(paused), syscall.SIGSTOP)
	next = f.holder("east", paused)
	change(next)
	f.signal(replicaName(paused), syscall.SIGCONT)
	f.isReady(paused)
	f.holder("east")
	change(paused)
	// Two, and one more each time that this machine is so busy that three seconds pass without a heartbeat.
	const most = 20
	if again := f.welcomes() - before; again < 2 || again > most {
		t.Errorf("the zone connected %v times after one kill and one pause", again)
	}

	// Restarted one after the other.
	before = f.welcomes()
	for i := range 3 {
		if code := f.end(replicaName(i)); code != 0 {
			t.Errorf("%s ended with %d", replicaName(i), code)
		}
		f.startReplica(i)
		f.holder("east")
	}
	if again := f.welcomes() - before; again < 1 || again > most {
		t.Errorf("the zone connected %v times while three replicas restarted", again)
	}
	change(0)

	f.settled("east", 2)
	requests.noneLost(t)
	watching.neverBackwards(t)
	if s, err := f.status("east"); err != nil || s.Repairs != 0 {
		t.Errorf("%+v %v", s, err)
	}
}

// strangerIsRefused shows a certificate of its own to the port where replicas ask each other.
func (f *federation) strangerIsRefused(address string) {
	f.t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(f.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(f.t)
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err == nil {
		// With TLS 1.3 the server's verdict comes after the client's handshake.
		_ = conn.SetReadDeadline(time.Now().Add(awaitTime))
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		f.t.Errorf("a stranger's certificate: %v", err)
	}
}

// TestReplicaCutOffFromEtcd cuts a replica off from etcd. It says so, takes no change, and sends its zone to the other one; when both are cut
// off, the zone is served what there is.
func TestReplicaCutOffFromEtcd(t *testing.T) {
	f := startReplicated(t, 2, 0)
	f.startServing()
	requests := f.send("http://" + f.at(10, 8080) + "/")
	watching := f.watch()
	change := func(i int, name string) {
		t.Helper()
		f.applyAt(i, gatewayRoute(name, "", pathRule("/"+name)))
	}
	cut := f.holder("east")
	other := 1 - cut

	f.cut(cut)
	f.isNotReady(cut, "the store does not answer")
	f.refusesWrites(cut, http.StatusServiceUnavailable, "store_unavailable")
	f.await("the zone at the other replica", func() error {
		s, err := f.statusAt(other, "east")
		if err == nil && (!s.Connected || len(s.Replicas) == 0 || s.Replicas[0].Global != replicaName(other)) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	change(other, "while-one-is-cut-off")
	f.see(other, 2, 1)
	f.mend(cut)
	f.isReady(cut)
	f.see(other, 2, 0)
	f.holder("east")
	change(cut, "once-it-is-back")

	for i := range 2 {
		f.cut(i)
	}
	for i := range 2 {
		f.isNotReady(i, "the store does not answer")
	}
	f.refusesWrites(0, http.StatusServiceUnavailable, "store_unavailable")
	f.holder("east")
	for i := range 2 {
		f.mend(i)
	}
	for i := range 2 {
		f.isReady(i)
	}
	f.holder("east")
	change(0, "once-both-are-back")

	f.settled("east", 2)
	requests.noneLost(t)
	watching.neverBackwards(t)
}
