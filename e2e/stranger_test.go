package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// logs waits until a process has said all the words in one line.
func (f *federation) logs(name string, words ...string) {
	f.t.Helper()
	f.await(name+" says "+strings.Join(words, ", "), func() error {
		for line := range strings.Lines(f.said(name)) {
			found := true
			for _, w := range words {
				found = found && strings.Contains(line, w)
			}
			if found {
				return nil
			}
		}
		return errors.New("it doesn't")
	})
}

// TestWrongTokens shows tokens where they do not belong: each is refused, and both the log of who refuses and who is refused
// say why.
func TestWrongTokens(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	expired := f.token("expired", "dataplane", "--ttl", "1s")
	expiredZone := f.token("expired-zone", "zone", "east", "--ttl", "1s")
	short := f.token("short", "user", "short", "--role", "viewer", "--ttl", "1s") // the last of them to end
	viewer := f.token("viewer", "user", "eve", "--role", "viewer")
	writer := f.token("writer", "user", "walt", "--role", "writer", "--mesh", "default")
	f.startZone("east", 2)
	f.apply(strictMesh)

	tokens := map[string]string{
		"mesh":    f.token("of-mesh", "dataplane", "--mesh", "default", "--service", "echo"),
		"zone":    f.token("of-zone", "dataplane", "--zone", "west"),
		"service": f.token("of-service", "dataplane", "--service", "other"),
		"ingress": f.token("of-ingress", "zone-ingress", "west"),
		"user":    f.path("global", "admin-token"),
		"revoked": f.token("of-revoked", "dataplane"),
	}
	f.cli("token", "revoke", tokens["revoked"])
	f.await("the end of a token", func() error {
		if _, err := f.tryAs(short, "get", "zones"); err == nil {
			return errors.New("it lives")
		}
		return nil
	})

	t.Run("users", func(t *testing.T) {
		document := f.write("change.yaml", permit("default", "p", "*", "*", "ALLOW"))
		garbage := f.write("garbage", "eyJhbGciOiJub25lIn0.e30.")
		for _, c := range []struct {
			token string
			args  []string
			words []string
		}{
			{short, []string{"get", "zones"}, []string{"expired"}},
			{garbage, []string{"get", "zones"}, []string{"unauthenticated"}},
			{tokens["mesh"], []string{"get", "zones"}, []string{"unauthenticated"}},
			{viewer, []string{"apply", "-f", document}, []string{"forbidden"}},
			{viewer, []string{"token", "zone", "east"}, []string{"forbidden"}},
			{writer, []string{"apply", "-f", f.write("zone.yaml", "type: Zone\nname: new\n")}, []string{"forbidden"}},
			{writer, []string{"apply", "-f", f.write("foreign.yaml", permit("other", "p", "*", "*", "ALLOW"))}, []string{"forbidden"}},
			{writer, []string{"get", "secrets", "--mesh", "other"}, nil},
		} {
			out, err := f.tryAs(c.token, c.args...)
			var r refused
			if !errors.As(err, &r) {
				if c.words != nil {
					t.Errorf("%v: %q %v", c.args, out, err)
				}
				continue
			}
			f.says(r.output, c.words...)
		}
		if out, err := f.tryAs(writer, "apply", "-f", document); err != nil {
			t.Errorf("a writer of the mesh: %v %s", err, out)
		}
	})

	t.Run("zones", func(t *testing.T) {
		other := f.token("of-west", "zone", "west")
		for i, c := range []struct {
			name, token string
			words       []string
		}{
			{"another zone's", other, []string{"refused"}},
			{"expired", expiredZone, []string{"refused", "expired"}},
			{"a user's", tokens["user"], []string{"refused"}},
			{"more than a token", f.write("two-lines", "a\nb\n"), []string{"no stream to global", "more than a token"}},
			{"none", f.path("no-such-file"), []string{"no stream to global", "no-such-file"}},
		} {
			name := fmt.Sprintf("stranger-%d", i)
			args := f.zoneArgs("north", 3)
			for j := range args {
				switch args[max(0, j-1)] {
				case "--token-file":
					args[j] = c.token
				case "--data-dir":
					args[j] = f.path(name)
				}
			}
			f.run(name, args...)
			f.logs(name, c.words...)
			if code := f.end(name); code != 0 {
				t.Errorf("%s: exit %d after SIGTERM", c.name, code)
			}
		}
		if s, err := f.status("north"); err == nil {
			t.Errorf("a zone that was refused is known: %+v", s)
		}
		// A global of other people: the authority is another one.
		args := f.zoneArgs("north", 3)
		for j := range args {
			switch args[max(0, j-1)] {
			case "--global-ca":
				args[j] = f.path("east", "tls", "server-ca.crt")
			case "--token-file":
				args[j] = other
			}
		}
		f.run("wrong-ca", args...)
		f.logs("wrong-ca", "no stream to global", "certificate signed by unknown authority")
		f.end("wrong-ca")
	})

	t.Run("proxies", func(t *testing.T) {
		echo := sidecarDocument("default", "echo-1", f.host(31), inboundOf("echo", "http", f.host(31), 8080, ""))
		for i, c := range []struct {
			name, token, document string
			words                 []string
		}{
			{"another mesh", tokens["mesh"], strings.Replace(echo, "mesh: default", "mesh: other", 1), []string{"mesh", "stranger-proxy-0"}},
			{"another zone", tokens["zone"], echo, []string{"zone", "stranger-proxy-1"}},
			{"another service", tokens["service"], echo, []string{"service", "stranger-proxy-2"}},
			{"an ingress's", tokens["ingress"], echo, []string{"stranger-proxy-3"}},
			{"a user's", tokens["user"], echo, []string{"unknown key"}},
			{"revoked", tokens["revoked"], echo, []string{"revoked"}},
			{"expired", expired, echo, []string{"expired"}},
		} {
			name := fmt.Sprintf("stranger-proxy-%d", i)
			f.startProxy("east", 2, name, strings.Replace(c.document, "name: echo-1", "name: "+name, 1), c.token)
			// Of a token that is none of a proxy's nothing more is read than the address it comes from.
			f.logs("east", append(c.words, "proxy refused")...)
			f.logs(name, "DeltaAggregatedResources gRPC config stream")
			f.kill(name)
		}
		if s, err := f.status("east"); err != nil || s.Proxies != 0 {
			t.Errorf("%+v %v", s, err)
		}
	})
}

// TestForeignDirectoriesAndPorts gives processes what belongs to others.
func TestForeignDirectoriesAndPorts(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(permit("default", "p", "*", "*", "ALLOW"))

	// The same directory and the same ports, while their owner runs.
	code, out := f.exit(f.run("same-directory", "global", "run", "--data-dir", f.path("global"), "--rest-address", f.at(9, restPort), "--kds-address", f.at(9, kdsPort)))
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	f.says(out, f.path("global"))
	code, out = f.exit(f.run("same-port", "global", "run", "--data-dir", f.path("another"), "--rest-address", f.at(1, restPort), "--kds-address", f.at(9, kdsPort)))
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	f.says(out, "rest-address", "in use", "stop it, or set another")
	args := f.zoneArgs("east", 3)
	code, out = f.exit(f.run("same-zone-directory", args...))
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	f.says(out, "is in use", "stop it or use another directory")
	code, out = f.exit(f.run("zone-in-global", "zone", "run", "--name", "east", "--data-dir", f.path("global"), "--global", f.at(1, kdsPort), "--global-ca",
		f.path("global", "tls", "server-ca.crt"), "--token-file", f.path("tokens", "east"), "--xds-address", f.at(3, xdsPort), "--rest-address", f.at(3, 5683)))
	if code != 1 {
		t.Errorf("exit %d of a zone in global's directory", code)
	}
	f.says(out, f.path("global"), "of a global control plane")
	code, out = f.exit(f.run("global-in-zone", "global", "run", "--data-dir", f.path("east"), "--rest-address", f.at(9, restPort), "--kds-address", f.at(9, kdsPort)))
	if code != 1 {
		t.Errorf("exit %d of a global in a zone's directory", code)
	}
	f.says(out, f.path("east"))

	// A zone of another name, once the owner has gone.
	if code := f.end("east"); code != 0 {
		t.Errorf("exit %d", code)
	}
	args = f.zoneArgs("west", 3)
	f.token("west", "zone", "west")
	for i := range args {
		if args[max(0, i-1)] == "--data-dir" {
			args[i] = f.path("east")
		}
	}
	code, out = f.exit(f.run("other-zone", args...))
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	f.says(out, f.path("east"), "zone east's, not zone west's")

	// A zone whose directory comes from another federation begins anew, as one of the same name.
	second := newFederation(t)
	second.startGlobal()
	second.apply404()
	if err := os.CopyFS(second.path("east"), os.DirFS(f.path("east"))); err != nil {
		t.Fatal(err)
	}
	second.startZone("east", 2)
	if out, err := second.try("get", "trafficpermissions"); err != nil || strings.Contains(out, "p ") {
		t.Errorf("%q %v", out, err)
	}

	// A proxy of a port in use says so at global, and a directory in use says so itself.
	f.startZone("east", 2)
	taken, err := net.Listen("tcp", f.at(31, 15006))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	echo := f.token("echo", "dataplane", "--service", "echo")
	document := sidecarDocument("default", "echo-1", f.host(31), inboundOf("echo", "http", f.host(31), 8080, ""))
	f.startProxy("east", 2, "echo-1", document, echo)
	f.await("a refusal", func() error {
		s, err := f.status("east")
		if err == nil && (len(s.Nacks) == 0 || !strings.Contains(s.Nacks[0].Error, "Address already in use")) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	code, out = f.exit(f.run("same-work-directory", f.proxyArgs("east", 2, "echo-1", document, echo)...))
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	f.says(out, filepath.Join(f.dir, "run", "echo-1"))
	// Documents, authorities and Envoys that can't be used have codes of their own.
	for _, c := range []struct {
		flag, value string
		code        int
	}{
		{"--file", f.write("no.yaml", "type: Dataplane\nname: x\nnetworking: {address: nowhere}\n"), 3},
		{"--ca", f.write("no.crt", "nothing"), 3},
		{"--token-file", f.write("no.token", "a b"), 3},
		{"--envoy", "/bin/true", 4},
		{"--envoy", f.path("nowhere"), 4},
	} {
		args := append(f.proxyArgs("east", 2, "echo-2", strings.Replace(document, "echo-1", "echo-2", 1), echo), c.flag, c.value)
		if code, out := f.exit(f.run("unusable", args...)); code != c.code {
			t.Errorf("%s %s: exit %d, want %d: %s", c.flag, c.value, code, c.code, out)
		}
	}
}

// apply404 asks for what is not there, so that a first request has been answered.
func (f *federation) apply404() {
	f.t.Helper()
	if code, body, err := f.rest(http.MethodGet, "/v1/nothing", nil); err != nil || code != http.StatusNotFound {
		f.t.Fatalf("%d %s %v", code, body, err)
	}
}
