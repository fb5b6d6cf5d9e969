package demo

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// reply is what came back.
type reply struct {
	// proto, status, code and header are those of HTTP, where it was spoken.
	proto  string
	status string
	code   int
	header http.Header
	body   string
	took   time.Duration
	// failed says why there is no answer, or that it broke off.
	failed error
}

// expectation is one line of what is expected of the answers to a command.
type expectation struct {
	text string
	// proto with status, a status alone, a header with its value, a text that the body holds or lacks, a failure, or a time
	// that the answer takes at least.
	proto  string
	status int
	header string
	value  string
	holds  string
	lacks  string
	fails  bool
	after  time.Duration
	// least and most bound how many of the answers meet this; without them the last must.
	least, most int
	// same is a text: the lines with it are equal in all answers.
	same string
}

var (
	protoLine  = regexp.MustCompile(`^(HTTP/[0-9.]+) ([0-9]{3})$`)
	timesLine  = regexp.MustCompile(`^([0-9]+)(?:-([0-9]+))? times (.+)$`)
	headerLine = regexp.MustCompile(`^([A-Za-z0-9-]+): (.*)$`)
)

// parseExpectation reads what follows #, > and a space:
//
//	200                   the status
//	HTTP/2 200            the protocol and the status
//	x-cache: HIT          a header with its value; with none it must not be there
//	~ "version": "v2"     a text in the body
//	! "client"            a text that isn't in the body
//	fails                 no answer, or one that breaks off
//	after 1s              an answer that takes at least so long
//	3 times 200           so many of the answers meet what follows
//	55-98 times ~ "v1"    and so many at least and at most
//	same "proxy"          the line with this text is the same in all answers
func parseExpectation(text string) (expectation, error) {
	if m := timesLine.FindStringSubmatch(text); m != nil {
		out, err := parseExpectation(m[3])
		if err != nil {
			return out, err
		}
		out.text = text
		if out.least, err = strconv.Atoi(m[1]); err != nil {
			return out, err
		}
		out.most = out.least
		if m[2] != "" {
			out.most, err = strconv.Atoi(m[2])
		}
		if err == nil && (out.most < out.least || out.most == 0) {
			err = fmt.Errorf("%q is no number of answers", text)
		}
		return out, err
	}
	out := expectation{text: text}
	var err error
	switch m, h := protoLine.FindStringSubmatch(text), headerLine.FindStringSubmatch(text); {
	case m != nil:
		out.proto = m[1]
		out.status, err = strconv.Atoi(m[2])
	case strings.HasPrefix(text, "~ "):
		out.holds = strings.TrimPrefix(text, "~ ")
	case strings.HasPrefix(text, "! "):
		out.lacks = strings.TrimPrefix(text, "! ")
	case text == "fails":
		out.fails = true
	case strings.HasPrefix(text, "after "):
		out.after, err = time.ParseDuration(strings.TrimPrefix(text, "after "))
	case strings.HasPrefix(text, "same "):
		out.same = strings.TrimPrefix(text, "same ")
	case h != nil:
		out.header, out.value = h[1], h[2]
	default:
		out.status, err = strconv.Atoi(text)
	}
	if err != nil {
		return out, fmt.Errorf("%q is nothing that can be expected: %w", text, err)
	}
	return out, nil
}

func (e expectation) metBy(r reply) bool {
	switch {
	case e.fails:
		return r.failed != nil
	case r.failed != nil:
		return false
	case e.status != 0:
		return r.code == e.status && (e.proto == "" || r.proto == e.proto)
	case e.header != "":
		return strings.Join(r.header.Values(e.header), ", ") == e.value
	case e.lacks != "":
		return !strings.Contains(r.body, e.lacks)
	case e.after != 0:
		return r.took >= e.after
	default:
		return strings.Contains(r.body, e.holds)
	}
}

// count is how many answers meet an expectation.
func (e expectation) count(replies []reply) int {
	n := 0
	for _, r := range replies {
		if e.metBy(r) {
			n++
		}
	}
	return n
}

// checkReplies holds the answers to a command, of which there is one at least, against what is expected of them.
func checkReplies(replies []reply, all []expectation) error {
	last := replies[len(replies)-1]
	for _, e := range all {
		switch n := e.count(replies); {
		case e.most > 0 && (n < e.least || n > e.most):
			return fmt.Errorf("want %s, got it %d times of %d; the last is %s", e.text, n, len(replies), last.short())
		case e.most > 0:
		case e.same != "":
			first, found := lineWith(replies[0], e.same)
			for _, r := range replies {
				if line, ok := lineWith(r, e.same); !found || !ok || line != first {
					return fmt.Errorf("want the %s, got %q and %s", e.text, first, r.short())
				}
			}
		case !e.metBy(last):
			return fmt.Errorf("want %s, got %s", e.text, last.short())
		}
	}
	return nil
}

func lineWith(r reply, text string) (string, bool) {
	for line := range strings.Lines(r.body) {
		if strings.Contains(line, text) {
			return line, true
		}
	}
	return "", false
}

// short is a reply in a line of an error.
func (r reply) short() string {
	if r.failed != nil {
		return fmt.Sprintf("no answer: %v", r.failed)
	}
	body := fmt.Sprintf("%.500s", strings.TrimSpace(r.body))
	if r.status == "" {
		return body
	}
	return fmt.Sprintf("%s %s after %s %v: %s", r.proto, r.status, r.took, r.header, body)
}

// show writes the last answer as the command does, with those headers of which something is expected, and a body that is a text.
func show(replies []reply, expected []expectation) string {
	r := replies[len(replies)-1]
	var b strings.Builder
	if r.status != "" {
		fmt.Fprintf(&b, "%s %s\n", r.proto, r.status)
	}
	for _, e := range expected {
		if e.header != "" {
			fmt.Fprintf(&b, "%s: %s\n", e.header, strings.Join(r.header.Values(e.header), ", "))
		}
	}
	body := strings.TrimSpace(r.body)
	switch {
	case body == "":
	case r.header.Get("Content-Encoding") != "":
		fmt.Fprintf(&b, "(%d bytes, %s)\n", len(r.body), r.header.Get("Content-Encoding"))
	default:
		fmt.Fprintf(&b, "%.1500s\n", body)
	}
	if r.failed != nil {
		fmt.Fprintf(&b, "(no answer: %v)\n", r.failed)
	}
	for _, e := range expected {
		_, what, _ := strings.Cut(e.text, " times ")
		switch {
		case e.most > 0:
			fmt.Fprintf(&b, "(%d of %d: %s)\n", e.count(replies), len(replies), what)
		case e.after > 0:
			fmt.Fprintf(&b, "(after %.1f s)\n", r.took.Seconds())
		case e.same != "":
			fmt.Fprintf(&b, "(%d of %d: %s as here)\n", len(replies), len(replies), e.same)
		}
	}
	return b.String()
}
