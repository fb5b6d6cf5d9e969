package resource

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/yuin/gopher-lua/ast"
	"github.com/yuin/gopher-lua/parse"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// maxScript bounds a script, which every route that has it carries, in bytes.
const maxScript = 64 << 10

// luaHooks are the functions that a proxy calls.
var luaHooks = []string{"envoy_on_request", "envoy_on_response"}

func checkLua(s scope, l *meshv1.Lua) {
	at := s.at("script")
	switch {
	case strings.TrimSpace(l.GetScript()) == "":
		at.errorf("", "is empty")
		return
	case len(l.GetScript()) > maxScript:
		at.errorf("write a module for wasm, or a service for extProc", "the script has %d bytes, more than %d", len(l.GetScript()), maxScript)
		return
	case strings.ContainsRune(l.GetScript(), 0):
		at.errorf("", "a script is text, and holds no zero byte")
		return
	}
	statements, err := parseLua(l.GetScript())
	if err != nil {
		at.errorf("write Lua 5.1", "%s", err)
		return
	}
	if !slices.ContainsFunc(statements, definesHook) {
		at.errorf("begin with function envoy_on_request(handle)", "defines neither %s, and so would do nothing", strings.Join(luaHooks, " nor "))
	}
}

// parseLua reads a script; the error says the line.
func parseLua(script string) ([]ast.Stmt, error) {
	statements, err := parse.Parse(strings.NewReader(script), "script")
	if err == nil {
		return statements, nil
	}
	var bad *parse.Error
	if !errors.As(err, &bad) {
		return nil, err
	}
	if bad.Pos.Line == parse.EOF {
		return nil, errors.New("ends in the middle: " + bad.Message)
	}
	return nil, errors.New(strings.TrimSpace(spaces.ReplaceAllString(err.Error(), " ")))
}

var spaces = regexp.MustCompile(`\s+`)

func definesHook(statement ast.Stmt) bool {
	hook := func(e ast.Expr) bool {
		name, ok := e.(*ast.IdentExpr)
		return ok && slices.Contains(luaHooks, name.Value)
	}
	switch v := statement.(type) {
	case *ast.FuncDefStmt:
		return v.Name.Func != nil && hook(v.Name.Func)
	case *ast.AssignStmt:
		return slices.ContainsFunc(v.Lhs, hook)
	}
	return false
}
