package rest

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/audit"
)

// Audit is where requests beyond reading are recorded; *audit.Log is one.
type Audit interface {
	// Begin is called for what leaves no trace but the log, before it is done, and gives the entry's number.
	Begin(audit.Entry) (number int64, err error)
	// Record is called once for each of them, when its outcome is known.
	Record(audit.Entry) error
	// Entries lists up to limit with a number below before, where 0 means from the newest, the newest first.
	Entries(limit int, before int64) ([]audit.Entry, error)
}

// Bounds of what an entry tells.
const (
	maxAuditPath = 300
	maxAuditWhat = 20
)

// note is the entry of a request under way. It is of one goroutine.
type note struct {
	audit.Entry
	// dry says that the request was to change nothing.
	dry bool
}

type noteKey struct{}

// noteOf is the note of a request; one that nobody reads where there is none.
func noteOf(ctx context.Context) *note {
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		return n
	}
	return &note{}
}

// by says who asks.
func (n *note) by(who Principal) { n.Name, n.Role, n.Token = who.Name, string(who.Role), who.Token }

// plan says what a change is to do.
func (n *note) plan(pl plan) {
	n.What, n.Count = nil, 0
	for _, r := range pl.puts {
		n.does("put " + r.Key.String())
	}
	for _, k := range pl.deletes {
		n.does("delete " + k.String())
	}
}

// does adds what is to be done; it must hold no secret.
func (n *note) does(what string) {
	n.Count++
	if len(n.What) < maxAuditWhat {
		n.What = append(n.What, cut(what))
	}
}

func cut(text string) string {
	if len(text) <= maxAuditPath {
		return text
	}
	return strings.ToValidUTF8(text[:maxAuditPath], "") + "..."
}

// readsOnly is true of what leaves no entry. A backup reads everything at once, so it does.
func readsOnly(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.URL.Path != "/v1/backup"
}

// audited answers a request by serve and records what came of it. The query is left out, as it holds what an author wrote at will.
func (a *api) audited(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *http.Request) *problem) {
	n := &note{Entry: audit.Entry{Time: a.Now().UTC(), From: r.RemoteAddr, Method: cut(r.Method), Path: cut(r.URL.EscapedPath())}}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		n.From = host // the port tells nothing
	}
	answer := &answered{ResponseWriter: w}
	ended := false
	defer func() {
		if n.Status = answer.status; !ended {
			n.Status = 0 // whoever asked got half an answer
		}
		if n.dry && ended && n.Status < http.StatusBadRequest {
			return
		}
		if n.Count == len(n.What) {
			n.Count = 0
		}
		if err := a.Audit.Record(n.Entry); err != nil {
			a.missing(n, err)
		}
	}()
	if p := serve(answer, r.WithContext(context.WithValue(r.Context(), noteKey{}, n))); p != nil {
		n.Code = p.Code
		p.write(answer)
	}
	ended = true
}

// begins says what a request is about to do, as does would, and has it in the log before it is done. It is for what no history tells: of a
// crash in the midst nothing else would be left.
func (a *api) begins(r *http.Request, what string) {
	n := noteOf(r.Context())
	n.does(what)
	if a.Audit == nil {
		return
	}
	var err error
	if n.Begun, err = a.Audit.Begin(n.Entry); err != nil {
		a.missing(n, err)
	}
}

func (a *api) missing(n *note, err error) {
	a.Logger.Error("a request is missing in the audit log", zap.String("name", n.Name), zap.Error(err))
}

// answered remembers the status of an answer.
type answered struct {
	http.ResponseWriter
	status int
}

func (w *answered) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *answered) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *answered) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// page reads limit and before of a list that is read from its end.
func page(r *http.Request) (limit int, before int64, p *problem) {
	var n [2]int64
	for i, name := range []string{"limit", "before"} {
		if text := r.URL.Query().Get(name); text != "" {
			v, err := strconv.ParseInt(text, 10, 32)
			if err != nil || v < 0 {
				return 0, 0, newProblem(http.StatusBadRequest, "bad_query", name+" is no number", "use a number from 0")
			}
			n[i] = v
		}
	}
	return int(n[0]), n[1], nil
}

// showAudit is for admins, as it tells of everybody.
func (a *api) showAudit(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	if who.Role != RoleAdmin {
		return newProblem(http.StatusForbidden, "forbidden", "not allowed to read the audit log", "use a token of an admin")
	}
	limit, before, p := page(r)
	if p != nil {
		return p
	}
	items, err := a.Audit.Entries(limit, before)
	if err != nil {
		a.Logger.Error("the audit log can't be read", zap.Error(err))
		return newProblem(http.StatusInternalServerError, "audit_unreadable", "the audit log can't be read", "look at the data directory of this replica")
	}
	writeJSON(w, http.StatusOK, map[string]any{"items": slices.Concat([]audit.Entry{}, items), "replica": a.Replica})
	return nil
}
