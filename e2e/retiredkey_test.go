package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
)

// signingKey is the id of the key of dataplanes' tokens that is not one of others.
func (f *federation) signingKey(others ...string) (id string) {
	f.t.Helper()
	code, body, err := f.rest(http.MethodGet, "/v1/signing-keys", nil)
	var list struct {
		Items []struct{ Purpose, ID string }
	}
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	if err != nil || code != http.StatusOK {
		f.t.Fatalf("%d %s %v", code, body, err)
	}
	for _, k := range list.Items {
		if k.Purpose == "dataplane" && (len(others) == 0 || k.ID != others[0]) {
			id = k.ID
		}
	}
	return id
}

// TestRetiredKeyEndsStreams retires the key of a proxy's token: its stream ends and does not come back, and that of a proxy whose token is of
// the newer key goes on. Both keep serving.
func TestRetiredKeyEndsStreams(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, permit("default", "all", "*", "*", "ALLOW"), edgeGateway, gatewayRoute("echo", "", "      - backends: [{destination: {kuma.io/service: echo}}]\n"))
	f.workload(f.at(31, 8080), "echo", nil)
	start := func(name, document string) {
		t.Helper()
		f.startProxy("east", 2, name, document, f.token(name, "dataplane", "--mesh", "default", "--service", name))
	}
	start("echo", sidecarDocument("default", "echo", f.host(31), inboundOf("echo", "http", f.host(31), 8080, "")))
	f.settled("east", 1)
	old := f.signingKey()
	f.cli("token", "rotate-key", "dataplane")
	start("edge", gatewayDocument("default", "edge", f.host(10)))
	f.settled("east", 2)
	client, url := newClient(t), "http://"+f.at(10, 8080)+"/"
	f.answers(client, http.StatusOK, "GET", url)

	f.cli("token", "retire-key", old)
	f.logs("east", "proxy's token is revoked", "Dataplane/default/echo")
	f.logs("east", "proxy refused", "unknown key")
	f.settled("east", 1)
	if next := f.signingKey(); next == old {
		t.Error("the key is still there")
	}
	var list struct{ Items []struct{ Name string } }
	code, body, err := f.rest(http.MethodGet, "/v1/zones/east/dataplanes", nil)
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	if err != nil || code != http.StatusOK || fmt.Sprint(list.Items) != "[{edge}]" {
		t.Errorf("%d %s %v", code, body, err)
	}
	conn, err := dialTLS(f.at(31, 15006), f.identity("east", 2, "default", "web", 60).config())
	if err != nil {
		t.Fatalf("the sidecar without a stream serves no more: %v", err)
	}
	conn.Close()
}
