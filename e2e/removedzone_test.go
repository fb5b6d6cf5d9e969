package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestRemovedZone deletes a Zone that has a thief in it. Its token and its stream end, and certificates below its intermediate are refused by
// the Envoys of other zones, while not a request between those is lost. A new token lets the zone in again, with certificates of its own.
func TestRemovedZone(t *testing.T) {
	f := startCrossed(t)
	f.startZone("north", 4)
	requests, connections := f.send("http://"+f.at(10, 8080)+"/"), f.greet(f.at(10, 5432))
	first := f.rotated("")
	thief := f.identity("north", 4, "default", "thief", 60).certificate
	f.await("an answer to who is of the new zone", func() error { return f.admits(thief, 31) })
	f.settled("north", 0)

	f.says(f.cli("delete", "zone", "north"), "north")
	f.logs("north", "CODE_UNAUTHENTICATED", "Zone north was deleted, and its tokens with it")
	second := f.rotated(first)
	f.refusesCertificate("a certificate of the removed zone", thief, 31)
	if s, err := f.status("north"); err == nil {
		t.Errorf("the zone is still known: %+v", s)
	}
	if out := f.cli("get", "zones"); strings.Contains(out, "north") {
		t.Errorf("the zone made itself anew:\n%s", out)
	}
	// The history shows what was asked for, so that the change can be rolled back.
	code, body, err := f.rest(http.MethodGet, "/v1/changes?limit=1", nil)
	var list struct{ Items []struct{ Change int } }
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	if err != nil || code != http.StatusOK || len(list.Items) != 1 {
		t.Fatalf("%d %s %v", code, body, err)
	}
	f.cli("rollback", fmt.Sprint(list.Items[0].Change))

	f.token("north", "zone", "north")
	f.settled("north", 0)
	again := f.identity("north", 4, "default", "thief", 60).certificate
	f.await("an answer to who is of the zone by right", func() error { return f.admits(again, 31) })
	if still := f.rotated(first); still != second {
		t.Error("the root was replaced when the zone came back")
	}
	f.settled("east", 1)
	f.settled("west", 3)
	connections.noneLost(f)
	requests.noneLost(t)
	if err := f.admits(tls.Certificate{}, 31); err == nil {
		t.Error(errors.New("whoever has no certificate is answered"))
	}
}
