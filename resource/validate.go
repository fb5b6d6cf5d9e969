package resource

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Validate checks a resource that comes from no document, such as one that a program made. The violations carry no
// position and are ordered by path.
func Validate(r *Resource) []Violation {
	kind, ok := Lookup(r.Kind)
	if !ok {
		return []Violation{{Path: "type", Message: fmt.Sprintf("unknown kind %q", r.Kind)}}
	}
	budget := maxNodes
	w := &walker{budget: &budget, places: map[string]place{}}
	s := newScope(w)
	checkKey(s, r)
	if kind.validate != nil {
		kind.validate(s, r)
	}
	return sortViolations(w.violations)
}

// scope is a place in a spec about which a validator speaks.
type scope struct {
	w      *walker
	prefix string
	path   []string
}

func newScope(w *walker) scope { return scope{w: w} }

// at descends to a field, by its canonical names.
func (s scope) at(fields ...string) scope {
	s.path = append(slices.Clip(s.path), fields...)
	return s
}

// index descends to an item of a list.
func (s scope) index(i int) scope { return s.at("[" + strconv.Itoa(i) + "]") }

// key descends to an entry of a map.
func (s scope) key(k string) scope { return s.at("[" + k + "]") }

// errorf reports a violation, unless decoding already reported one in the same branch of the document.
func (s scope) errorf(hint, format string, args ...any) {
	for _, b := range s.w.broken {
		n := min(len(b), len(s.path))
		if slices.Equal(b[:n], s.path[:n]) {
			return
		}
	}
	var p place
	rest := s.path
	known := len(s.path)
	for ; known >= 0; known-- {
		if q, ok := s.w.places[pathKey(s.path[:known])]; ok {
			p, rest = q, s.path[known:]
			break
		}
	}
	if known < 0 && s.prefix != "" {
		p.display = s.prefix
	}
	for _, seg := range rest {
		switch {
		case strings.HasPrefix(seg, "["):
			p.display += seg
		case !strings.HasPrefix(seg, "\x00"):
			p.display = join(p.display, seg)
		}
	}
	s.w.violations = append(s.w.violations, Violation{
		File: s.w.file, Line: s.w.line + p.line, Column: p.column, Path: p.display, Message: fmt.Sprintf(format, args...), Hint: hint,
	})
}

var (
	dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	tagValue = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
	tagKey   = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$`)
	token    = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")
)

func isDNSLabel(s string) bool { return len(s) <= 63 && dnsLabel.MatchString(s) }

func isDNSSubdomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, l := range strings.Split(s, ".") {
		if !isDNSLabel(l) {
			return false
		}
	}
	return true
}

// checkKey checks the names; the mesh's and the zone's are parts of server names, hence labels of DNS.
func checkKey(s scope, r *Resource) {
	name := s.at("\x00name")
	const dns = "use lower-case letters, digits and hyphens"
	switch {
	case r.Name == "":
		name.errorf("", "the document has no name")
	case r.Kind == "Mesh" || r.Kind == "Zone":
		if !isDNSLabel(r.Name) {
			name.errorf(dns+", at most 63", "%q is no name for a %s", r.Name, r.Kind)
		}
	case !isDNSSubdomain(r.Name):
		name.errorf(dns+", in parts of at most 63 between dots", "%q is no name", r.Name)
	}
	if r.Mesh != "" && !isDNSLabel(r.Mesh) {
		s.at("\x00mesh").errorf(dns+", at most 63", "%q is no name for a mesh", r.Mesh)
	}
}

func checkPort(s scope, port uint32) {
	if port < 1 || port > 65535 {
		s.errorf("", "a port is a number from 1 to 65535")
	}
}

func checkIP(s scope, ip string, required bool) {
	if ip == "" {
		if required {
			s.errorf("", "needs an IP address")
		}
		return
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		s.errorf("", "%q is no IP address", ip)
	}
}

// checkTags checks keys and values; wildcard says whether a value may be *.
func checkTags(s scope, tags map[string]string, wildcard bool) {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		v := tags[k]
		switch {
		case len(k) > 253 || !tagKey.MatchString(k):
			s.key(k).errorf("", "%q is no name for a tag", k)
		case wildcard && v == AnyValue:
		case v == AnyValue:
			s.key(k).errorf("", "a wildcard selects and cannot stand here")
		case len(v) > 253 || !tagValue.MatchString(v):
			s.key(k).errorf("use letters, digits, '-', '_' and '.'", "%q is no value for a tag", v)
		}
	}
}

// checkOwnTags checks the tags of a proxy or of a destination, which name a service.
func checkOwnTags(s scope, tags map[string]string) {
	checkTags(s, tags, false)
	if tags[TagService] == "" {
		s.errorf("", "needs the tag %s", TagService)
	}
}

func checkSelectors(parent scope, field string, selectors []*meshv1.Selector, only ...string) {
	s := parent.at(field)
	if len(selectors) == 0 {
		parent.errorf("", "needs %s", field)
	}
	for i, sel := range selectors {
		at := s.index(i)
		if len(sel.GetMatch()) == 0 {
			at.errorf(`to select everything, write match: {kuma.io/service: "*"}`, "needs match with a tag")
		}
		checkTags(at.at("match"), sel.GetMatch(), true)
		if len(only) == 0 {
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(sel.GetMatch())) {
			if !slices.Contains(only, k) {
				at.at("match").key(k).errorf("select by "+strings.Join(only, " or "), "a certificate doesn't prove the tag %s", k)
			}
		}
	}
}

// maxRegexProgram bounds what a regular expression compiles to. Proxies take far larger ones, so that none that passes here is
// refused there, where it would hold up all that its proxy is to be told.
const maxRegexProgram = 4096

func checkRegex(s scope, expression string) {
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		s.errorf("write it in RE2's syntax", "bad regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		return
	}
	size := 0
	if program, err := syntax.Compile(parsed.Simplify()); err == nil {
		for _, i := range program.Inst {
			// Envoy compares bytes: of a class it has the ranges below 256.
			ranges := 0
			for j := 0; j+1 < len(i.Rune) && i.Rune[j] <= 0xff; j += 2 {
				ranges++
			}
			size += max(1, ranges)
		}
	}
	if size == 0 || size > maxRegexProgram {
		s.errorf("count less, or match a prefix", "the regular expression is too large: it compiles to %d steps, and may to %d", size, maxRegexProgram)
	}
}

func checkStringMatcher(s scope, m *meshv1.StringMatcher) {
	switch v := m.GetMatcher().(type) {
	case *meshv1.StringMatcher_Regex:
		checkRegex(s.at("regex"), v.Regex)
	case nil:
		s.errorf("", "needs one of exact, prefix and regex")
	}
}

func checkHeaderName(s scope, name string) {
	if !token.MatchString(name) || strings.HasPrefix(name, ":") {
		s.errorf("", "%q is no name for a header", name)
	}
}

// maxHeader is how long a name or value may be that a proxy is told to write.
const maxHeader = 16384

func checkHeaderChange(s scope, c *meshv1.HeaderChange) {
	if c == nil {
		return
	}
	if len(c.GetSet())+len(c.GetAdd())+len(c.GetRemove()) == 0 {
		s.errorf("", "needs one of set, add and remove")
	}
	check := func(at scope, values []*meshv1.HeaderValue) {
		for i, h := range values {
			checkChangedHeader(at.index(i).at("name"), h.GetName())
			checkHeaderValue(at.index(i).at("value"), h.GetValue())
		}
	}
	check(s.at("set"), c.GetSet())
	check(s.at("add"), c.GetAdd())
	for i, h := range c.GetRemove() {
		checkChangedHeader(s.at("remove").index(i), h)
	}
}

// checkChangedHeader checks the name of a header that a proxy is told to change.
func checkChangedHeader(s scope, name string) {
	if checkHeaderName(s, name); strings.EqualFold(name, "host") {
		s.errorf("", "the header %s leads the request and cannot be changed", name)
	}
	if len(name) > maxHeader {
		s.errorf("", "longer than %d bytes", maxHeader)
	}
}

// checkHeaderValue checks a value that a proxy is told to write.
func checkHeaderValue(s scope, value string) {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == '\x7f' }) {
		s.errorf("", "a header's value is one line without control characters")
	}
	// The percent sign is written twice to proxies.
	if len(value)+strings.Count(value, "%") > maxHeader {
		s.errorf("", "longer than %d bytes", maxHeader)
	}
}

// longestDuration bounds what proxies are told: they refuse durations beyond 292 years, and multiply some of them.
const longestDuration = 10 * 365 * 24 * time.Hour

// checkDuration wants d within its bounds when it is there; the upper bound is longestDuration when most is 0.
func checkDuration(s scope, d *durationpb.Duration, least, most time.Duration) {
	if d == nil {
		return
	}
	v := d.AsDuration()
	if most == 0 {
		most = longestDuration
	}
	switch {
	case d.CheckValid() != nil:
		s.errorf("", "no duration this version can hold")
	case v < least && least == time.Nanosecond:
		s.errorf("", "must be above 0s")
	case v < least:
		s.errorf("", "must be at least %s", least)
	case v > most:
		s.errorf("", "must be at most %s", most)
	}
}
