package global

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/zoneforge/zoneforge/global/ca"
	"github.com/zoneforge/zoneforge/global/rest"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki/token"
)

var errNoToken = errors.New("no bearer token")

// verifier verifies tokens of one purpose by the newest keys and revocations.
type verifier struct {
	purpose token.Purpose
	store   *store.Store
	ca      *ca.Authorities

	mu   sync.Mutex
	at   *store.Snapshot // that cur was made from, or an older one
	cur  ca.Verifier
	good bool
}

func (v *verifier) verify(text string) (token.Claims, error) {
	v.mu.Lock()
	snap := v.store.Snapshot()
	if !v.good || v.at != snap {
		next, err := v.ca.Verifier(v.purpose)
		if err != nil {
			v.mu.Unlock()
			return token.Claims{}, err
		}
		v.cur, v.at, v.good = next, snap, true
	}
	cur := v.cur
	v.mu.Unlock()
	return cur.Verify(text)
}

// authenticator finds the user of a request by its token.
type authenticator struct {
	users         *verifier
	trustLoopback bool
}

// Authenticate takes a bearer token, and only without any looks at where the request comes from.
func (a *authenticator) Authenticate(r *http.Request) (rest.Principal, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		if a.trustLoopback && direct(r) {
			return rest.Principal{Name: "loopback", Role: rest.RoleAdmin}, nil
		}
		return rest.Principal{}, errNoToken
	}
	scheme, text, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return rest.Principal{}, errNoToken
	}
	claims, err := a.users.verify(strings.TrimSpace(text))
	if err != nil {
		return rest.Principal{}, err
	}
	switch claims.Role {
	case token.Admin, token.Writer, token.Viewer:
		return rest.Principal{Name: claims.Subject, Role: rest.Role(claims.Role), Meshes: claims.Meshes, Token: claims.ID}, nil
	}
	return rest.Principal{}, fmt.Errorf("role %q of the token is not known", claims.Role)
}

// direct is true of a request that this machine sent itself: not through a proxy that runs here, and not by a browser that
// some site sends here, under the site's name or as its script.
func direct(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return false
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via", "Origin", "Referer", "Sec-Fetch-Site"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}
