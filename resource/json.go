package resource

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxJSONDepth bounds how deep objects and lists of plain JSON stand in each other; what is deeper is left to YAML's parser, and its limits.
const maxJSONDepth = 64

// plainJSON reads a text that is one JSON object of ASCII and nothing else, as proxies present theirs: thousands of them at once when a
// zone starts, and YAML's parser takes ten times as long. What it gives is what that would; nil says that it may not be, which is no
// error yet.
func plainJSON(text []byte) *yaml.Node {
	j := jsonReader{rest: text, line: 1, column: 1}
	j.space()
	if j.next() != '{' {
		return nil
	}
	n := j.value(0)
	if j.space(); n == nil || len(j.rest) > 0 {
		return nil
	}
	return n
}

type jsonReader struct {
	rest         []byte
	line, column int
}

// next is the next byte, 0 at the end.
func (j *jsonReader) next() byte {
	if len(j.rest) == 0 {
		return 0
	}
	return j.rest[0]
}

// skip goes on within a line.
func (j *jsonReader) skip(n int) {
	j.rest, j.column = j.rest[n:], j.column+n
}

// space skips what may stand between two tokens. Tabs are left to YAML, which has views on them.
func (j *jsonReader) space() {
	for {
		switch j.next() {
		case ' ':
			j.skip(1)
		case '\n':
			j.rest, j.line, j.column = j.rest[1:], j.line+1, 1
		default:
			return
		}
	}
}

// value reads one value, and gives nil for what is none or not plain.
func (j *jsonReader) value(depth int) *yaml.Node {
	n := &yaml.Node{Line: j.line, Column: j.column}
	switch c := j.next(); {
	case c == '{' || c == '[':
		if depth == maxJSONDepth {
			return nil
		}
		n.Kind, n.Tag, n.Style = yaml.MappingNode, "!!map", yaml.FlowStyle
		end := byte('}')
		if c == '[' {
			n.Kind, n.Tag, end = yaml.SequenceNode, "!!seq", ']'
		}
		if j.skip(1); !j.list(n, end, depth+1) {
			return nil
		}
	case c == '"':
		text, ok := j.text()
		if !ok {
			return nil
		}
		n.Kind, n.Tag, n.Style, n.Value = yaml.ScalarNode, "!!str", yaml.DoubleQuotedStyle, text
	default:
		word := j.word()
		if word == "" {
			return nil
		}
		n.Kind, n.Value = yaml.ScalarNode, word
		n.Tag = n.ShortTag()
	}
	return n
}

// list reads what stands in an object or a list, and its end.
func (j *jsonReader) list(n *yaml.Node, end byte, depth int) bool {
	if j.space(); j.next() == end {
		j.skip(1)
		return true
	}
	for {
		j.space()
		if end == '}' {
			if j.next() != '"' {
				return false
			}
			key := j.value(depth)
			if key == nil || len(key.Value) > 256 { // YAML allows 1,024 up to the colon
				return false
			}
			if j.next() != ':' {
				return false
			}
			j.skip(1)
			j.space()
			n.Content = append(n.Content, key)
		}
		v := j.value(depth)
		if v == nil {
			return false
		}
		n.Content = append(n.Content, v)
		j.space()
		switch j.next() {
		case ',':
			j.skip(1)
		case end:
			j.skip(1)
			return true
		default:
			return false
		}
	}
}

// text reads a quoted text of visible ASCII without escapes; all else is left to YAML.
func (j *jsonReader) text() (string, bool) {
	end := bytes.IndexByte(j.rest[1:], '"')
	if end < 0 {
		return "", false
	}
	text := j.rest[1 : 1+end]
	for _, c := range text {
		if c < ' ' || c > '~' || c == '\\' {
			return "", false
		}
	}
	j.skip(end + 2)
	return string(text), true
}

// word reads true, false, null or a whole number without a sign that has no more than eighteen digits.
func (j *jsonReader) word() string {
	end := 0
	for end < len(j.rest) && (j.rest[end] >= 'a' && j.rest[end] <= 'z' || j.rest[end] >= '0' && j.rest[end] <= '9') {
		end++
	}
	word := string(j.rest[:end])
	switch {
	case word == "true" || word == "false" || word == "null" || word == "0":
	case end == 0 || end > 18 || word[0] == '0':
		return ""
	default:
		for _, c := range word {
			if c < '0' || c > '9' {
				return ""
			}
		}
	}
	// A word may be the beginning of a number that is not whole.
	if rest := j.rest[end:]; len(rest) > 0 && strings.IndexByte(",]} \n", rest[0]) < 0 {
		return ""
	}
	j.skip(end)
	return word
}
