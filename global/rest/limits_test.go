package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/zoneforge/zoneforge/global/store"
)

// counted counts refusals.
type counted map[string]int

func (c counted) refused(reason string) { c[reason]++ }

// A client that floods is refused, and it alone: neither other users nor strangers lose anything by it, nor by strangers.
func TestFloodCostsItsClientAlone(t *testing.T) {
	s := newStore(t)
	synctest.Test(t, func(t *testing.T) { // where no second passes between requests
		refusals := counted{}
		c := client{t, New(Config{Store: s, Authenticator: byName{}, Limits: Limits{Rate: 1, Refused: refusals.refused}})}
		for range 5 {
			c.want(c.do("viewer", "GET", "/v1/meshes", "", ""), 200)
		}
		refused := c.do("viewer", "GET", "/v1/meshes", "", "")
		c.want(refused, 429, `"code":"too_many_requests"`)
		if refused.Header().Get("Retry-After") != "1" {
			t.Errorf("Retry-After %q", refused.Header().Get("Retry-After"))
		}
		for range 5 {
			c.want(c.do("nobody", "GET", "/v1/meshes", "", ""), 401)
		}
		c.want(c.do("nobody", "GET", "/v1/meshes", "", ""), 429)
		// From the same address.
		c.want(c.do("writer", "GET", "/v1/meshes", "", ""), 200)
		c.want(c.do("nobody", "GET", "/healthz", "", ""), 200)
		if refusals[ReasonRate] != 2 || len(refusals) != 1 {
			t.Errorf("%v", refusals)
		}
	})
}

// held is a store that answers nobody before it is told to.
type held struct {
	Store
	entered, release chan struct{}
}

func (h held) ShowChange(ctx context.Context, _ int64) (*store.ShownChange, error) {
	h.entered <- struct{}{}
	select {
	case <-h.release:
	case <-ctx.Done():
	}
	return nil, errors.New("held")
}

// Requests that take long are bounded by client.
func TestConcurrencyOfOneClient(t *testing.T) {
	refusals := counted{}
	s := held{newStore(t), make(chan struct{}), make(chan struct{})}
	c := client{t, New(Config{Store: s, Authenticator: byName{}, Limits: Limits{Concurrency: 2, Refused: refusals.refused}})}
	done := make(chan struct{})
	for range 2 {
		go func() { c.do("viewer", "GET", "/v1/changes/1", "", ""); done <- struct{}{} }()
		<-s.entered
	}
	c.want(c.do("viewer", "GET", "/v1/meshes", "", ""), 429)
	c.want(c.do("writer", "GET", "/v1/meshes", "", ""), 200)
	close(s.release)
	<-done
	<-done
	c.want(c.do("viewer", "GET", "/v1/meshes", "", ""), 200)
	if refusals[ReasonConcurrency] != 1 {
		t.Errorf("%v", refusals)
	}
}

// body is one that says that it is read, and comes to its end when it is told to.
type body struct {
	read    chan struct{}
	release chan struct{}
}

func (b body) Read([]byte) (int, error) {
	select {
	case b.read <- struct{}{}:
		<-b.release
	case <-b.release:
	}
	return 0, io.EOF
}

// Large bodies share a bounded room, of which one client gets a part; small ones need none.
func TestBodiesAreBounded(t *testing.T) {
	refusals := counted{}
	h := New(Config{Store: newStore(t), Authenticator: byName{}, Limits: Limits{Refused: refusals.refused}})
	c := client{t, h}
	b := body{make(chan struct{}), make(chan struct{})}
	done := make(chan int)
	send := func(who string, length int64) {
		r := httptest.NewRequest(http.MethodPost, "/v1/changes", b)
		r.ContentLength = length
		r.Header.Set("Authorization", who)
		r.Header.Set("Content-Type", "application/yaml")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		done <- w.Code
	}
	large := string(bytes.Repeat([]byte("# a comment\n"), smallBody/8))
	for range eachBodies / maxBody {
		go send("writer", -1)
		<-b.read
	}
	c.want(c.do("writer", "POST", "/v1/changes", ym, large), 429, "too much of other changes")
	c.want(c.do("writer", "POST", "/v1/changes?dryRun=true", ym, "type: Secret\nmesh: none\nname: s\ndata: b3RoZXI=\n"), 403)
	for range (allBodies - eachBodies) / maxBody {
		go send("admin", maxBody)
		<-b.read
	}
	c.want(c.do("admin", "POST", "/v1/changes", ym, large), 429)
	close(b.release)
	for range allBodies / maxBody {
		<-done
	}
	if w := c.do("admin", "POST", "/v1/changes", ym, large); w.Code == 429 {
		t.Error("no room after all have left")
	}
	if w := c.do("admin", "POST", "/v1/changes", ym, strings.Repeat(" ", maxBody+1)); w.Code != 413 {
		t.Errorf("a body that is too large: %d", w.Code)
	}
	if refusals[ReasonBodies] != 2 {
		t.Errorf("%v", refusals)
	}
}

// pieces notes the largest piece of an answer.
type pieces struct {
	*httptest.ResponseRecorder
	largest int
}

func (p *pieces) Write(b []byte) (int, error) {
	p.largest = max(p.largest, len(b))
	return p.ResponseRecorder.Write(b)
}

// A long list is never in memory whole, so that many who read it slowly cost little.
func TestListIsSentInPieces(t *testing.T) {
	h := New(Config{Store: newStore(t), Authenticator: byName{}})
	c := client{t, h}
	var documents strings.Builder
	documents.WriteString("type: Mesh\nname: default\n")
	const n = 1000
	for i := range n {
		fmt.Fprintf(&documents, "---\ntype: Timeout\nmesh: default\nname: t-%d\nsources: [{match: {kuma.io/service: %s}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\nconf: {connectTimeout: 5s}\n",
			i, strings.Repeat("a", 200))
	}
	c.want(c.do("admin", "POST", "/v1/changes", ym, documents.String()), 200)
	w := &pieces{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodGet, "/v1/timeouts", nil)
	r.Header.Set("Authorization", "viewer")
	h.ServeHTTP(w, r)
	var list struct {
		Items    []json.RawMessage
		Revision int64
	}
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Items) != n || list.Revision == 0 {
		t.Errorf("%d items of revision %d: %v", len(list.Items), list.Revision, err)
	}
	if w.largest > listBuffer || w.Body.Len() < 5*listBuffer {
		t.Errorf("%d bytes came in pieces of up to %d", w.Body.Len(), w.largest)
	}
}
