package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestDoctor asks a real federation how it is, before and after something happened to it.
func TestDoctor(t *testing.T) {
	f := startAcross(t, edgeGateway)
	host := f.host(31)
	f.workload(host+":8080", "v1", nil)
	f.startInWest("echo", "echo", "http", 31, ", version: v1")
	f.settled("east", 1)
	f.settled("west", 2)
	viewer := f.token("viewer", "user", "ann", "--role", "viewer")
	type finding struct{ Level, Check, Subject, Message, Mend string }
	doctor := func() (code int, all []finding) {
		out, err := f.tryAs(viewer, "doctor", "-o", "json")
		var r refused
		if errors.As(err, &r) {
			code = r.code
		}
		var parsed struct{ Findings []finding }
		if err := json.Unmarshal([]byte(out), &parsed); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return code, parsed.Findings
	}
	// Of a new federation nothing is worth a word but that it has no backup. The disk is this machine's.
	found := func(check, words string) error {
		code, all := doctor()
		rest := []string{}
		there := false
		for _, one := range all {
			switch {
			case one.Check == "disk":
			case one.Check == check && strings.Contains(one.Subject+" "+one.Message, words) && one.Mend != "":
				there = true
				if (one.Level == "problem") != (code == 1) {
					rest = append(rest, fmt.Sprintf("%+v with exit %d", one, code))
				}
			default:
				rest = append(rest, fmt.Sprintf("%+v", one))
			}
		}
		if !there || len(rest) > 0 {
			return fmt.Errorf("want %s %q alone; there: %v, also %v", check, words, there, rest)
		}
		return nil
	}
	f.await("word of no backup", func() error { return found("backup", "there is no backup") })
	f.cli("backup", "--out", f.path("one.backup"))
	f.await("no word", func() error {
		if code, all := doctor(); code != 0 || len(all) > 0 && all[0].Check != "disk" {
			return fmt.Errorf("exit %d: %+v", code, all)
		}
		return nil
	})
	// An ingress that advertises an address where it isn't: zone east can't reach it.
	if code := f.end("ingress"); code != 0 {
		t.Errorf("the ingress ends with %d", code)
	}
	f.startProxy("west", 3, "ingress", fmt.Sprintf("type: ZoneIngress\nname: ingress\nnetworking: {address: %s, port: 10001, advertisedAddress: %s, advertisedPort: 9}\n", f.host(20), f.host(99)), f.path("tokens", "ingress"))
	f.await("an ingress that can't be reached", func() error {
		return found("ingress", "zone east it can't reach the ingress "+f.at(99, 9)+" of zone west")
	})
	f.end("ingress")
	f.startProxy("west", 3, "ingress", fmt.Sprintf("type: ZoneIngress\nname: ingress\nnetworking: {address: %s, port: 10001}\n", f.host(20)), f.path("tokens", "ingress"))
	f.await("all to be well", func() error {
		if code, all := doctor(); code != 0 {
			return fmt.Errorf("exit %d: %+v", code, all)
		}
		return nil
	})
	f.kill("west")
	f.await("a zone that is away", func() error { return found("connection", "zone west it is not connected since") })
	f.kill("global")
	f.fails(1, []string{"problem: connection: global", "refuses the connection", "1 problem, 0 warnings"}, "doctor")
}
