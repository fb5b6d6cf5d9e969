package rest

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/zoneforge/zoneforge/resource"
)

// problem is RFC 9457's problem details, with a stable code and how to mend it.
type problem struct {
	Type       string      `json:"type"`
	Title      string      `json:"title"`
	Status     int         `json:"status"`
	Detail     string      `json:"detail"`
	Code       string      `json:"code"`
	Mend       string      `json:"mend,omitempty"`
	Violations []violation `json:"violations,omitempty"`
}

type violation struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func newProblem(status int, code, detail, mend string) *problem {
	return &problem{Type: "urn:zoneforge:problem:" + code, Title: http.StatusText(status), Status: status, Detail: detail, Code: code, Mend: mend}
}

func noRoute() *problem {
	return newProblem(http.StatusNotFound, "unknown_route", "there is no such route",
		"use /v1/{plural} for global kinds and /v1/meshes/{mesh}/{plural} for kinds of a mesh")
}

func invalid(vs []resource.Violation) *problem {
	p := newProblem(http.StatusUnprocessableEntity, "invalid", "the change has violations, nothing was applied", "mend all violations and repeat")
	for _, v := range vs {
		p.Violations = append(p.Violations, violation(v))
	}
	return p
}

func (p *problem) write(w http.ResponseWriter) { send(w, p.Status, "application/problem+json", p) }

func writeJSON(w http.ResponseWriter, status int, body any) {
	send(w, status, "application/json", body)
}

func send(w http.ResponseWriter, status int, contentType string, body any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		http.Error(w, "the answer cannot be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A client that hung up needs no answer.
	_, _ = w.Write(b.Bytes())
}
