package e2e

import (
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

// htpasswd is a line as `htpasswd -s` makes it.
func htpasswd(user, password string) string {
	sum := sha1.Sum([]byte(password))
	return user + ":{SHA}" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
}

func basic(user, password string) []string {
	return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
}

// TestBasicAuth lets users pass by their passwords, and takes a new password without a restart of anything.
func TestBasicAuth(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.apply(secretDocument("staff", []byte("# staff\n"+htpasswd("bob", "b:ob")+htpasswd("ann", "hush"))),
		gatewayRoute("staff", "",
			guarded("/staff", "{type: BASIC_AUTH, basicAuth: {secret: staff, usernameHeader: x-user, realm: the staff}}")+
				guarded("/kept", "{basicAuth: {secret: staff, hideCredentials: false}}")))
	f.answers(client, http.StatusUnauthorized, "GET", url("/staff"))
	for _, c := range []struct {
		path   string
		header []string
		status int
		user   string
		hidden bool
	}{
		{"/staff", basic("ann", "hush"), 200, "ann", true},
		{"/staff", basic("bob", "b:ob"), 200, "bob", true},
		{"/staff", append(basic("ann", "hush"), "X-User", "bob"), 200, "ann", true},
		{"/kept", basic("ann", "hush"), 200, "", false},
		{"/staff", basic("ann", "hush2"), 401, "", true},
		{"/staff", basic("bob", "hush"), 401, "", true},
		{"/staff", basic("eve", ""), 401, "", true},
		{"/staff", []string{"Authorization", "Bearer hush"}, 401, "", true},
		{"/staff", []string{"Authorization", "Basic !"}, 401, "", true},
	} {
		r, a, err := ask(client, "GET", url(c.path), c.header...)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != c.status || strings.Join(a.Header["X-User"], ",") != c.user || c.hidden != (a.Header.Get("Authorization") == "") {
			t.Errorf("%s %v: %d, the backend sees %v; want %d for %q", c.path, c.header, r.StatusCode, a.Header, c.status, c.user)
		}
		if got := r.Header.Get("Www-Authenticate"); c.status == 401 && got != `Basic realm="the staff"` {
			t.Errorf("%v: the client is asked by %q", c.header, got)
		}
	}
	showsNowhere(f, "edge", "x-user", "{SHA}", "hush")

	f.apply(secretDocument("staff", []byte(htpasswd("ann", "new"))))
	f.answers(client, http.StatusOK, "GET", url("/staff"), basic("ann", "new")...)
	for _, old := range [][]string{basic("ann", "hush"), basic("bob", "b:ob")} {
		if r, _, err := ask(client, "GET", url("/staff"), old...); err != nil || r.StatusCode != http.StatusUnauthorized {
			t.Errorf("an old password: %v %v", r, err)
		}
	}
	f.refusesToApply([]string{"the password of user ann is hashed by bcrypt, which Envoy doesn't know: make it with `htpasswd -s`"},
		secretDocument("staff", []byte("ann:$2y$05$abcdefghijklmnopqrstuv\n")))
}
