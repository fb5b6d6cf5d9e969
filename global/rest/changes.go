package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/global/store"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	"github.com/zoneforge/zoneforge/resource"
)

// plan is a change that is decoded but not yet checked against the state.
type plan struct {
	message string
	puts    []*resource.Resource
	deletes []resource.Key
	dryRun  bool
	// notes are what the author should know that is no error.
	notes []resource.Note
	// check is asked, when set, about the state that the change meets.
	check func(*store.Snapshot) *problem
}

type keyJSON struct {
	Kind string `json:"kind"`
	Mesh string `json:"mesh,omitempty"`
	Name string `json:"name"`
}

// result says what a change did, or would do.
type result struct {
	Change    int64     `json:"change"`
	Revision  int64     `json:"revision"`
	DryRun    bool      `json:"dryRun,omitempty"`
	Created   []keyJSON `json:"created"`
	Updated   []keyJSON `json:"updated"`
	Unchanged []keyJSON `json:"unchanged"`
	Deleted   []keyJSON `json:"deleted"`
	// Notes say what was skipped, and what will not work as it stands.
	Notes []noteJSON `json:"notes,omitempty"`
}

type noteJSON struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Text string `json:"text"`
}

// readBody reads the whole body and tells YAML from JSON.
func readBody(r *http.Request) (body []byte, isYAML bool, p *problem) {
	switch media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media {
	case "application/json":
	case "application/yaml":
		isYAML = true
	default:
		return nil, false, newProblem(http.StatusUnsupportedMediaType, "unsupported_media_type", "the content type is not supported",
			"send application/json or application/yaml")
	}
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, false, newProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is larger than %d bytes", maxBody), "split the change")
	}
	if err != nil {
		return nil, false, newProblem(http.StatusBadRequest, "bad_body", "the body cannot be read to its end", "repeat the request")
	}
	return body, isYAML, nil
}

func (a *api) apply(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	var pl plan
	switch r.URL.Query().Get("dryRun") {
	case "", "false":
	case "true":
		pl.dryRun = true
	default:
		return newProblem(http.StatusBadRequest, "bad_query", "dryRun is neither true nor false", "use dryRun=true")
	}
	// Whoever may write nothing learns nothing of what a document should be, nor costs its decoding.
	if !who.mayWriteSome() {
		return newProblem(http.StatusForbidden, "forbidden", "not allowed to write", "use a token of an admin, or of a writer of the mesh")
	}
	leave, p := a.bounds.carry(w, r, who)
	if p != nil {
		return p
	}
	defer leave()
	body, isYAML, p := readBody(r)
	if p != nil {
		return p
	}
	opt := resource.Options{RefuseProxy: true, Schema: a.Schema}
	var vs []resource.Violation
	if isYAML {
		batch := resource.Decode("body", body, opt)
		pl.message, pl.puts, pl.notes, vs = r.URL.Query().Get("message"), batch.Resources, batch.Notes, batch.Violations
	} else {
		var in struct {
			Message   string            `json:"message"`
			Resources []json.RawMessage `json:"resources"`
			Deletes   []keyJSON         `json:"deletes"`
		}
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.DisallowUnknownFields()
		err := dec.Decode(&in)
		if err == nil {
			if _, end := dec.Token(); end != io.EOF {
				err = errors.New("something follows the object")
			}
		}
		if err == nil && len(bytes.TrimSpace(body)) > 0 && bytes.TrimSpace(body)[0] != '{' {
			err = errors.New("it is no object")
		}
		if err != nil {
			return newProblem(http.StatusBadRequest, "bad_body", err.Error(), "send {message, resources: [...], deletes: [{kind, mesh, name}]}")
		}
		pl.message = in.Message
		for i, raw := range in.Resources {
			place := fmt.Sprintf("resources[%d]", i)
			batch := resource.Decode(place, raw, opt)
			if len(batch.Resources)+len(batch.Violations)+len(batch.Notes) == 0 {
				vs = append(vs, resource.Violation{File: place, Message: "holds no resource", Hint: "write an object with type and name"})
			}
			pl.puts, vs = append(pl.puts, batch.Resources...), append(vs, batch.Violations...)
			pl.notes = append(pl.notes, batch.Notes...)
		}
		for _, k := range in.Deletes {
			pl.deletes = append(pl.deletes, resource.Key(k))
		}
	}
	noteOf(r.Context()).plan(pl)
	for _, key := range pl.keys() {
		if kind, ok := resource.Lookup(key.Kind); ok && kind.Writer == resource.WriterUser && !who.mayWrite(key) {
			return writable(kind, key, who)
		}
	}
	vs = append(vs, pl.shape()...)
	if len(vs) > 0 {
		return invalid(vs)
	}
	for _, key := range pl.keys() {
		kind, _ := resource.Lookup(key.Kind)
		if p := writable(kind, key, who); p != nil {
			return p
		}
	}
	res, p := a.carryOut(r.Context(), who, pl)
	if p != nil {
		return p
	}
	writeJSON(w, http.StatusOK, res)
	return nil
}

func (pl plan) keys() []resource.Key {
	var keys []resource.Key
	for _, r := range pl.puts {
		keys = append(keys, r.Key)
	}
	return append(keys, pl.deletes...)
}

// shape finds what is wrong with a plan whatever the state: repeated keys, and deletes of what no user owns.
func (pl plan) shape() []resource.Violation {
	var vs []resource.Violation
	seen := map[resource.Key]bool{}
	for _, k := range pl.keys() {
		if seen[k] {
			vs = append(vs, resource.Violation{Message: k.String() + " is in the change twice", Hint: "name each resource once"})
		}
		seen[k] = true
	}
	for i, k := range pl.deletes {
		path := fmt.Sprintf("deletes[%d]", i)
		kind, ok := resource.Lookup(k.Kind)
		if !ok {
			vs = append(vs, resource.Violation{Path: path + ".kind", Message: fmt.Sprintf("%q is no kind", k.Kind), Hint: "write it as in type:"})
			continue
		}
		if why, hint := ownedElsewhere(kind); why != "" {
			vs = append(vs, resource.Violation{Path: path + ".kind", Message: why, Hint: hint})
		}
		if kind.Global() != (k.Mesh == "") {
			vs = append(vs, resource.Violation{Path: path + ".mesh", Message: "mesh does not fit " + k.Kind, Hint: "a mesh is named for kinds of a mesh only"})
		}
	}
	return vs
}

// carryOut checks a plan against the newest state and commits what differs.
func (a *api) carryOut(ctx context.Context, who Principal, pl plan) (*result, *problem) {
	n := noteOf(ctx)
	n.plan(pl)
	n.dry = pl.dryRun
	select {
	case a.writing <- struct{}{}:
		defer func() { <-a.writing }()
	case <-ctx.Done():
		return nil, newProblem(http.StatusServiceUnavailable, "busy", "another change took too long", "retry later")
	}
	snap := a.Store.Snapshot()
	if pl.check != nil {
		if p := pl.check(snap); p != nil {
			return nil, p
		}
	}
	vs, notes := references(snap, a.References, pl, a.Now())
	vs = append(vs, beyond(snap, pl)...)
	if len(vs) > 0 {
		return nil, invalid(vs)
	}
	res := &result{Revision: snap.Revision(), DryRun: pl.dryRun, Created: []keyJSON{}, Updated: []keyJSON{}, Unchanged: []keyJSON{}, Deleted: []keyJSON{}}
	for _, n := range slices.Concat(pl.notes, notes) {
		res.Notes = append(res.Notes, noteJSON(n))
	}
	var ops []store.Op
	for _, r := range pl.puts {
		b, err := resource.Marshal(r)
		if err != nil {
			return nil, invalid([]resource.Violation{{Message: err.Error()}})
		}
		e, ok := snap.Get(r.Key)
		switch {
		case ok && e.Hash == resource.HashOf(r.Key, b):
			res.Unchanged = append(res.Unchanged, keyJSON(r.Key))
			continue
		case ok:
			res.Updated = append(res.Updated, keyJSON(r.Key))
		default:
			res.Created = append(res.Created, keyJSON(r.Key))
		}
		ops = append(ops, store.Op{Key: r.Key, Put: r, IfRevision: &e.Revision})
	}
	for _, k := range pl.deletes {
		e, ok := snap.Get(k)
		if !ok { // already as wanted
			res.Unchanged = append(res.Unchanged, keyJSON(k))
			continue
		}
		res.Deleted = append(res.Deleted, keyJSON(k))
		ops = append(ops, store.Op{Key: k, Delete: true, IfRevision: &e.Revision})
		if k.Kind == "Zone" {
			ops = append(ops, removal(k.Name, a.Now()))
		}
	}
	for _, keys := range [][]keyJSON{res.Created, res.Updated, res.Unchanged, res.Deleted} {
		slices.SortFunc(keys, func(x, y keyJSON) int { return resource.Key(x).Compare(resource.Key(y)) })
	}
	if pl.dryRun || len(ops) == 0 {
		return res, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	done, err := a.Store.Commit(ctx, store.Change{Author: who.Name, Message: pl.message, Time: a.Now(), Ops: ops})
	if err != nil {
		return nil, a.storeProblem(err)
	}
	res.Change, res.Revision = done.Seq, done.Revision
	n.Change = done.Seq
	// The writer's next read must see the change; when this fails the change still stands.
	_, _ = a.Store.Wait(ctx, done.Revision)
	return res, nil
}

// removal remembers that a Zone was deleted, in the change that deletes it: tokens and certificates of the zone are good no more.
func removal(zone string, now time.Time) store.Op {
	r := &resource.Resource{Key: resource.Key{Kind: "RemovedZone", Name: zone}, Spec: &federationv1.RemovedZone{Removed: timestamppb.New(now)}}
	return store.Op{Key: r.Key, Put: r}
}

// beyond finds what would be lost by a change: what newer software wrote and this version doesn't know.
func beyond(snap *store.Snapshot, pl plan) (vs []resource.Violation) {
	for _, r := range pl.puts {
		e, ok := snap.Get(r.Key)
		if !ok {
			continue
		}
		if unknown := resource.Unknown(e.Resource.Spec); len(unknown) > 0 {
			vs = append(vs, resource.Violation{Message: fmt.Sprintf("%s holds what this version doesn't know and would drop: %s", r.Key, unknown[0]),
				Hint: "apply it by the newer version that wrote it, or delete it first"})
		}
	}
	return vs
}

type infoJSON struct {
	Change   int64     `json:"change"`
	Revision int64     `json:"revision"`
	Author   string    `json:"author"`
	Message  string    `json:"message"`
	Time     time.Time `json:"time"`
	Count    int       `json:"count"`
}

func info(c store.ChangeInfo) infoJSON {
	return infoJSON{c.Seq, c.Revision, c.Author, c.Message, c.Time.UTC(), c.Count}
}

func (a *api) history(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	limit, before, p := page(r)
	if p != nil {
		return p
	}
	list, err := a.Store.History(r.Context(), limit, before)
	if err != nil {
		return a.storeProblem(err)
	}
	items := []infoJSON{}
	for _, c := range list {
		items = append(items, info(c))
	}
	writeJSON(w, http.StatusOK, map[string]any{"items": items})
	return nil
}

func (a *api) showChange(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	seq, err := strconv.ParseInt(r.PathValue("seq"), 10, 64)
	if err != nil || seq < 1 {
		return newProblem(http.StatusNotFound, "not_found", "a change is named by its number", "list the changes to see their numbers")
	}
	c, err := a.Store.ShowChange(r.Context(), seq)
	if err != nil {
		return a.storeProblem(err)
	}
	type item struct {
		keyJSON
		Before json.RawMessage `json:"before,omitempty"`
		After  json.RawMessage `json:"after,omitempty"`
	}
	out := struct {
		infoJSON
		Keys []item `json:"keys"`
	}{info(c.ChangeInfo), []item{}}
	for _, k := range c.Keys {
		if kind, ok := resource.Lookup(k.Key.Kind); ok && kind.Writer == resource.WriterSystem {
			continue // what global did beside what was asked for
		}
		it := item{keyJSON: keyJSON(k.Key)}
		// The hashes are left out: that of a short secret would let it be guessed.
		for _, side := range []struct {
			r  *resource.Resource
			to *json.RawMessage
		}{{k.Before, &it.Before}, {k.After, &it.After}} {
			if side.r == nil {
				continue
			}
			b, err := resource.EncodeJSON(side.r)
			if err != nil {
				return unreadable(k.Key, err)
			}
			*side.to = b
		}
		out.Keys = append(out.Keys, it)
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}
