package rest

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/resource"
)

// key reads the kind and key of a route for one resource.
func (a *api) key(r *http.Request) (*resource.Kind, resource.Key, *problem) {
	kind, ok := a.kinds[r.PathValue("plural")]
	mesh := r.PathValue("mesh")
	if !ok || kind.Global() != (mesh == "") {
		return nil, resource.Key{}, noRoute()
	}
	return kind, resource.Key{Kind: kind.Name, Mesh: mesh, Name: r.PathValue("name")}, nil
}

func (a *api) list(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	kind, ok := a.kinds[r.PathValue("plural")]
	mesh := r.PathValue("mesh")
	if !ok || mesh != "" && kind.Global() {
		return noRoute()
	}
	if mesh == "" && !kind.Global() {
		mesh = r.URL.Query().Get("mesh")
	}
	snap := a.Store.Snapshot()
	// One by one, so that many who read long lists slowly cost little memory.
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	out := bufio.NewWriterSize(w, listBuffer)
	// What can't be written has no reader any more, which Write tells at the next item.
	_, _ = out.WriteString(`{"items":[`)
	rest := struct {
		Revision int64 `json:"revision"`
		// Unreadable are those of newer software, which hide no others.
		Unreadable []unreadableJSON `json:"unreadable,omitempty"`
	}{Revision: snap.Revision()}
	separator := ""
	for e := range snap.Each(kind.Name, mesh) {
		b, err := resource.EncodeJSON(e.Resource)
		if err != nil {
			rest.Unreadable = append(rest.Unreadable, unreadableJSON{keyJSON(e.Resource.Key), err.Error()})
			continue
		}
		_, _ = out.WriteString(separator)
		if _, err := out.Write(b); err != nil {
			return nil
		}
		separator = ","
	}
	tail, err := json.Marshal(rest)
	if err != nil { // texts and numbers can always be encoded
		panic(http.ErrAbortHandler)
	}
	_, _ = out.WriteString("],")
	_, _ = out.Write(append(tail[1:], '\n'))
	_ = out.Flush()
	return nil
}

// listBuffer is what is gathered of a list before it is sent, in bytes.
const listBuffer = 32 << 10

type unreadableJSON struct {
	keyJSON
	Reason string `json:"reason"`
}

func unreadable(k resource.Key, err error) *problem {
	return newProblem(http.StatusInternalServerError, "unreadable", k.String()+": "+err.Error(), "read it with a newer version, or delete it")
}

func (a *api) get(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	_, key, p := a.key(r)
	if p != nil {
		return p
	}
	e, ok := a.Store.Snapshot().Get(key)
	if !ok {
		return missing(key)
	}
	b, err := resource.EncodeJSON(e.Resource)
	if err != nil {
		return unreadable(key, err)
	}
	tag := etag(e.Revision)
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	writeJSON(w, http.StatusOK, json.RawMessage(b))
	return nil
}

func missing(k resource.Key) *problem {
	return newProblem(http.StatusNotFound, "not_found", k.String()+" does not exist", "list the kind to see what there is")
}

func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

// precondition checks If-Match and If-None-Match against what is stored.
func precondition(r *http.Request, e store.Entry, exists bool) *problem {
	failed := func(what string) *problem {
		return newProblem(http.StatusPreconditionFailed, "precondition_failed", what, "read the resource again and repeat with its ETag")
	}
	if m := r.Header.Get("If-Match"); m != "" && (!exists || m != "*" && !listed(m, etag(e.Revision))) {
		return failed("the resource is not at the revision of If-Match")
	}
	if m := r.Header.Get("If-None-Match"); m != "" && exists && (m == "*" || listed(m, etag(e.Revision))) {
		return failed("the resource exists already at the revision of If-None-Match")
	}
	return nil
}

func listed(header, tag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		if strings.TrimSpace(one) == tag {
			return true
		}
	}
	return false
}

func (a *api) put(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	kind, key, p := a.key(r)
	if p == nil {
		p = writable(kind, key, who)
	}
	if p != nil {
		return p
	}
	leave, p := a.bounds.carry(w, r, who)
	if p != nil {
		return p
	}
	defer leave()
	body, _, p := readBody(r)
	if p != nil {
		return p
	}
	batch := resource.Decode("body", body, resource.Options{DefaultMesh: key.Mesh, RefuseProxy: true, Schema: a.Schema})
	if len(batch.Violations) > 0 {
		return invalid(batch.Violations)
	}
	if len(batch.Resources) != 1 || batch.Resources[0].Key != key {
		return invalid([]resource.Violation{{File: "body", Message: "the body is not " + key.String(), Hint: "send one document with the route's type, mesh and name"}})
	}
	return a.single(w, r, who, plan{message: "put " + key.String(), puts: batch.Resources, notes: batch.Notes}, key)
}

func (a *api) delete(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	kind, key, p := a.key(r)
	if p == nil {
		p = writable(kind, key, who)
	}
	if p != nil {
		return p
	}
	return a.single(w, r, who, plan{message: "delete " + key.String(), deletes: []resource.Key{key}}, key)
}

// single carries out a change of one resource under the request's preconditions.
func (a *api) single(w http.ResponseWriter, r *http.Request, who Principal, pl plan, key resource.Key) *problem {
	pl.check = func(s *store.Snapshot) *problem {
		e, ok := s.Get(key)
		if p := precondition(r, e, ok); p != nil {
			return p
		}
		if !ok && len(pl.deletes) > 0 {
			return missing(key)
		}
		return nil
	}
	res, p := a.carryOut(r.Context(), who, pl)
	if p != nil {
		return p
	}
	status := http.StatusOK
	if len(res.Created) > 0 {
		status = http.StatusCreated
	}
	if e, ok := a.Store.Snapshot().Get(key); ok {
		w.Header().Set("ETag", etag(e.Revision))
	}
	writeJSON(w, status, res)
	return nil
}

// writable says whether a principal may write a key by the API.
func writable(kind *resource.Kind, key resource.Key, who Principal) *problem {
	if why, hint := ownedElsewhere(kind); why != "" {
		return newProblem(http.StatusForbidden, "read_only_kind", why, hint)
	}
	if !who.mayWrite(key) {
		return newProblem(http.StatusForbidden, "forbidden", "not allowed to write "+key.String(), "use a token of an admin, or of a writer of the mesh")
	}
	return nil
}

func ownedElsewhere(kind *resource.Kind) (why, hint string) {
	switch kind.Writer {
	case resource.WriterSystem:
		return kind.Name + " is written by control planes only", "leave it out, the control plane keeps it"
	case resource.WriterProxy:
		return kind.Name + " is written by proxies only", "present it to the zone when the proxy starts"
	}
	return "", ""
}
