package global

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/global/audit"
)

// audited reads the audit log by REST, the oldest first.
func (r *running) audited(query string) []audit.Entry {
	r.Helper()
	var out struct{ Items []audit.Entry }
	if err := json.Unmarshal([]byte(r.want(200, r.admin(), "GET", "/v1/audit"+query, "")), &out); err != nil {
		r.Fatal(err)
	}
	for i, j := 0, len(out.Items)-1; i < j; i, j = i+1, j-1 {
		out.Items[i], out.Items[j] = out.Items[j], out.Items[i]
	}
	return out.Items
}

// TestAudit finds an entry for each write and each refused one, with who, what, from where, when and what came of it, in order,
// across a restart, and without a secret. Reading leaves none.
func TestAudit(t *testing.T) {
	r := start(t, config(t.TempDir()))
	admin := r.admin()
	writer := r.token(admin, "user", `{"name":"wim","role":"writer","meshes":["default"]}`)
	viewer := r.token(admin, "user", `{"name":"vera","role":"viewer"}`)
	const secret = `{"resources":[{"type":"Secret","mesh":"default","name":"s","data":"aHVzaGh1c2g="}]}`
	r.want(200, writer, "POST", "/v1/changes?message=hushhush", secret)
	r.want(200, writer, "POST", "/v1/changes?message=again", secret)
	r.want(200, writer, "POST", "/v1/changes?dryRun=true", `{"deletes":[{"kind":"Secret","mesh":"default","name":"s"}]}`)
	r.want(403, viewer, "POST", "/v1/changes", secret)
	r.want(403, writer, "POST", "/v1/changes?dryRun=true", `{"resources":[{"type":"Mesh","name":"other"}]}`)
	r.want(422, writer, "PUT", "/v1/meshes/default/secrets/s", `{"type":"Secret","mesh":"default","name":"s","data":"hushhush!"}`)
	r.want(401, "", "DELETE", "/v1/meshes/default/secrets/s", "")
	r.want(401, "hush.hush.hush", "POST", "/v1/tokens/user", `{"name":"hushhush"}`)
	r.want(404, writer, "POST", "/v1/nowhere/at/all/x", "")
	r.want(200, writer, "DELETE", "/v1/meshes/default/secrets/s", "")
	proxy := r.token(writer, "dataplane", `{"mesh":"default","services":["web"]}`)
	zone := r.token(admin, "zone", `{"zone":"east"}`)
	r.want(204, admin, "POST", "/v1/tokens/revocations", `{"token":"`+viewer+`"}`)
	r.want(401, viewer, "PUT", "/v1/meshes/x", "{}")
	r.want(200, admin, "GET", "/v1/backup", "")
	many := []string{}
	for i := range 30 {
		many = append(many, fmt.Sprintf(`{"kind":"Timeout","mesh":"default","name":"t%02d"}`, i))
	}
	r.want(200, admin, "POST", "/v1/changes", `{"deletes":[`+strings.Join(many, ",")+`]}`)
	for _, path := range []string{"/v1/meshes", "/v1/changes", "/v1/nothing"} {
		r.do(writer, "GET", path, "")
	}
	r.want(403, writer, "GET", "/v1/audit", "", "forbidden")
	r.want(400, admin, "GET", "/v1/audit?limit=x", "", "bad_query")

	list := r.audited("")
	want := []string{
		"admin admin POST 201 issue user token for writer wim default, token *", "admin admin POST 201 issue user token for viewer vera, token *",
		"wim writer POST 200 put Secret default/s", "wim writer POST 200 put Secret default/s", "vera viewer POST 403 forbidden /v1/changes", "wim writer POST 403 forbidden put Mesh other",
		"wim writer PUT 422 invalid /v1/meshes/default/secrets/s", "  DELETE 401 unauthenticated /v1/meshes/default/secrets/s", "  POST 401 unauthenticated /v1/tokens/user",
		"wim writer POST 404 unknown_route /v1/nowhere/at/all/x", "wim writer DELETE 200 delete Secret default/s", "wim writer POST 201 issue dataplane token for mesh default web, token *",
		"admin admin POST 201 issue zone token for zone east, token *", "admin admin POST 204 revoke a token, token *", "  PUT 401 unauthenticated /v1/meshes/x", "admin admin GET 200 /v1/backup",
		"admin admin POST 200 delete Timeout default/t00",
	}
	if len(list) != len(want) {
		t.Errorf("%d entries, want %d", len(list), len(want))
	}
	number := int64(0)
	for i := range min(len(list), len(want)) {
		e := list[i]
		if number++; strings.Contains(want[i], "revoke") {
			number++ // it was in the log before it was done
		}
		what := strings.Join(e.What, ", ")
		if what == "" {
			what = e.Path
		}
		got := strings.Join(strings.Fields(fmt.Sprint(e.Status, " ", e.Code, " ", what)), " ")
		got = fmt.Sprintf("%s %s %s %s", e.Name, e.Role, e.Method, got)
		prefix, _, _ := strings.Cut(want[i], "*")
		if !strings.HasPrefix(got, prefix) {
			t.Errorf("entry %d is %q, want %q", i, got, want[i])
		}
		if e.From != "127.0.0.1" || e.Time.IsZero() || e.Number != number || (e.Token == "") != (e.Name == "") {
			t.Errorf("entry %d: %+v", i, e)
		}
	}
	if change := list[2].Change; change == 0 || list[3].Change != 0 || list[10].Change != change+1 {
		t.Errorf("changes %d, %d, %d", list[2].Change, list[3].Change, list[10].Change)
	}
	if last := list[len(list)-1]; last.Count != 30 || len(last.What) >= 30 {
		t.Errorf("of many: %d of %d", len(last.What), last.Count)
	}
	if text := string(r.file("audit.log")); strings.Contains(text, "hush") || strings.Contains(text, "aHVz") || strings.Contains(text, proxy) || strings.Contains(text, zone) {
		t.Errorf("the log holds a secret:\n%s", text)
	}
	if got := mode(t, r.dir+"/audit.log"); got != 0o600 {
		t.Errorf("its mode is %o", got)
	}

	cfg := config(r.dir)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg)
	r.want(401, "", "PUT", "/v1/meshes/y", "{}")
	if page := r.audited("?limit=2"); len(page) != 2 || page[0].Number != number || page[1].Path != "/v1/meshes/y" {
		t.Errorf("after a restart: %+v", page)
	}
	if page := r.audited("?limit=1&before=3"); len(page) != 1 || page[0].Number != 2 {
		t.Errorf("before 3: %+v", page)
	}
}

// TestRolesPerVerb asks for everything that the API does with every kind of token.
func TestRolesPerVerb(t *testing.T) {
	r := start(t, config(t.TempDir()))
	admin := r.admin()
	r.want(200, admin, "POST", "/v1/changes", `{"resources":[{"type":"Mesh","name":"other"}]}`)
	victim := r.token(admin, "user", `{"name":"v","role":"viewer"}`)
	roles := []struct{ name, token string }{
		{"nobody", ""},
		{"zone", r.token(admin, "zone", `{"zone":"east"}`)},
		{"dataplane", r.token(admin, "dataplane", `{"mesh":"default"}`)},
		{"viewer", r.token(admin, "user", `{"name":"vera","role":"viewer"}`)},
		{"writer of other", r.token(admin, "user", `{"name":"otto","role":"writer","meshes":["other"]}`)},
		{"writer", r.token(admin, "user", `{"name":"wim","role":"writer","meshes":["default"]}`)},
		{"admin", admin},
	}
	const secret, mesh = `{"type":"Secret","mesh":"default","name":"s","data":"eA=="}`, `{"type":"Mesh","name":"m"}`
	// Each line says what each role gets, in the order above; all that may, do, so that later ones find what they need.
	for _, c := range []struct {
		method, path, body string
		want               [7]int
	}{
		{"GET", "/healthz", "", [7]int{200, 200, 200, 200, 200, 200, 200}},
		{"GET", "/v1/meshes", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/v1/meshes/default", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/v1/meshes/default/secrets", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/v1/changes", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/v1/changes/1", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/v1/status/zones", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/v1/version", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/metrics", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/v1/audit", "", [7]int{401, 401, 401, 403, 403, 403, 200}},
		{"GET", "/v1/backup", "", [7]int{401, 401, 401, 403, 403, 403, 200}},
		{"GET", "/v1/nowhere", "", [7]int{401, 401, 401, 404, 404, 404, 404}},
		{"POST", "/v1/changes", `{"resources":[` + secret + `]}`, [7]int{401, 401, 401, 403, 403, 200, 200}},
		{"POST", "/v1/changes?dryRun=true", `{"resources":[` + secret + `]}`, [7]int{401, 401, 401, 403, 403, 200, 200}},
		{"POST", "/v1/changes", `{"resources":[` + secret + `,` + mesh + `]}`, [7]int{401, 401, 401, 403, 403, 403, 200}},
		{"PUT", "/v1/meshes/default/secrets/s", secret, [7]int{401, 401, 401, 403, 403, 200, 200}},
		{"DELETE", "/v1/meshes/default/secrets/s", "", [7]int{401, 401, 401, 403, 403, 200, 404}},
		{"POST", "/v1/changes", `{"deletes":[{"kind":"Secret","mesh":"default","name":"s"}]}`, [7]int{401, 401, 401, 403, 403, 200, 200}},
		{"PUT", "/v1/meshes/m", mesh, [7]int{401, 401, 401, 403, 403, 403, 200}},
		{"DELETE", "/v1/meshes/m", "", [7]int{401, 401, 401, 403, 403, 403, 200}},
		{"PUT", "/v1/zones/z", `{"type":"Zone","name":"z"}`, [7]int{401, 401, 401, 403, 403, 403, 201}},
		{"PUT", "/v1/meshes/default/trust-bundles/default", "{}", [7]int{401, 401, 401, 403, 403, 403, 403}},
		{"DELETE", "/v1/signing-keys/user", "", [7]int{401, 401, 401, 403, 403, 403, 403}},
		{"POST", "/v1/tokens/user", `{"name":"x","role":"viewer"}`, [7]int{401, 401, 401, 403, 403, 403, 201}},
		{"POST", "/v1/tokens/zone", `{"zone":"west"}`, [7]int{401, 401, 401, 403, 403, 403, 201}},
		{"POST", "/v1/tokens/zone-ingress", `{"zone":"west"}`, [7]int{401, 401, 401, 403, 403, 403, 201}},
		{"POST", "/v1/tokens/dataplane", `{"mesh":"default"}`, [7]int{401, 401, 401, 403, 403, 201, 201}},
		{"POST", "/v1/tokens/keys", `{"purpose":"king"}`, [7]int{401, 401, 401, 403, 403, 403, 422}},
		{"POST", "/v1/tokens/keys", `{"purpose":"zone"}`, [7]int{401, 401, 401, 403, 403, 403, 201}},
		{"DELETE", "/v1/tokens/keys/nothing", "", [7]int{401, 401, 401, 403, 403, 403, 404}},
		{"GET", "/v1/roots", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/v1/roots/default", "", [7]int{401, 401, 401, 200, 200, 200, 200}},
		{"GET", "/v1/roots/nowhere", "", [7]int{401, 401, 401, 404, 404, 404, 404}},
		{"POST", "/v1/roots/default/rotation/without", `{"zones":["z"]}`, [7]int{401, 401, 401, 403, 403, 403, 409}},
		{"POST", "/v1/roots/default/rotation", "", [7]int{401, 401, 401, 403, 403, 403, 202}},
		{"POST", "/v1/roots/default/rotation", "", [7]int{401, 401, 401, 403, 403, 403, 409}},
		{"POST", "/v1/roots/default/rotation/without", `{"zones":[]}`, [7]int{401, 401, 401, 403, 403, 403, 422}},
		{"POST", "/v1/roots/default/rotation/without", `{"zones":["nobody"]}`, [7]int{401, 401, 401, 403, 403, 403, 404}},
		{"POST", "/v1/roots/default/rotation/without", `{"zones":["z"]}`, [7]int{401, 401, 401, 403, 403, 403, 202}},
		{"POST", "/v1/roots/nowhere/rotation", "", [7]int{401, 401, 401, 403, 403, 403, 404}},
		{"GET", "/v1/kek", "", [7]int{401, 401, 401, 403, 403, 403, 200}},
		{"POST", "/v1/kek/keys", "", [7]int{401, 401, 401, 403, 403, 403, 201}},
		{"POST", "/v1/kek/reseal", "", [7]int{401, 401, 401, 403, 403, 403, 200}},
		{"DELETE", "/v1/kek/keys/nothing", "", [7]int{401, 401, 401, 403, 403, 403, 404}},
		{"POST", "/v1/tokens/revocations", `{"token":"` + victim + `"}`, [7]int{401, 401, 401, 403, 403, 403, 204}},
	} {
		for i, role := range roles {
			if code, text := r.do(role.token, c.method, c.path, c.body); code != c.want[i] {
				t.Errorf("%s: %s %s: %d, want %d: %.200s", role.name, c.method, c.path, code, c.want[i], text)
			}
		}
	}
}
