package xds

import (
	_ "embed"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// luaListener has no script. A script that changes headers doesn't make Envoy choose the route again by that alone: what was
// checked before was checked for the route that it has.
var luaListener = &luav3.Lua{ClearRouteCache: wrapperspb.Bool(false)}

// luaGuard runs a script so that neither one that fails while it is loaded, for which Envoy would refuse the whole route table, nor
// one that fails at a message lets through what it should have seen.
//
//go:embed lua_guard.lua
var luaGuard string

func routeLua(r *ir.Route) (validated, error) {
	l := r.Filters.Lua
	if l == nil {
		return nil, nil
	}
	script := strings.NewReplacer("{{script}}", longString(l.Script), "{{open}}", fmt.Sprint(l.FailOpen)).Replace(luaGuard)
	return &luav3.LuaPerRoute{Override: &luav3.LuaPerRoute_SourceCode{SourceCode: inlineText(script)}}, nil
}

// longString writes a text in Lua, where a bracket with enough signs can't be closed by the text. The first line end is none of the text.
func longString(s string) string {
	level := ""
	for strings.Contains(s, "]"+level) {
		level += "="
	}
	return "[" + level + "[\n" + s + "]" + level + "]"
}

func inlineText(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}
