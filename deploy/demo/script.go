package demo

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// stop is one stop of the tour, read from a file of policies whose comments show what to ask and what to expect:
//
//	# CORS: browsers of other origins may read the answers.
//	# $ curl -i -H 'Origin: https://app.example.com' $GATEWAY/tour/cors
//	# > 200
//	# > access-control-allow-origin: https://app.example.com
//	# > ~ "path": "/tour/cors"
//
// A line with $ is a request, with 11x before curl so many of them, of which the last counts. Those with > say what is expected of
// its answer: a status, a header with its value, a text in the body (~), or one that isn't there (!).
type stop struct {
	file  string
	title string
	asks  []ask
}

// ask is one request with what is expected.
type ask struct {
	command string
	times   int
	method  string
	// target is the path with the query, at the gateway of the first zone.
	target string
	header [][2]string
	body   string
	expect []expectation
}

// expectation is one of them; exactly one member beside text is set.
type expectation struct {
	text   string
	status int
	header string
	value  string
	holds  string
	lacks  string
}

var headerLine = regexp.MustCompile(`^([A-Za-z0-9-]+): (.*)$`)

func parseStop(file string, text string) (stop, error) {
	out := stop{file: file}
	for n, line := range strings.Split(text, "\n") {
		line, comment := strings.CutPrefix(line, "# ")
		if !comment {
			continue
		}
		wrong := func(err error) (stop, error) { return stop{}, fmt.Errorf("%s:%d: %w", file, n+1, err) }
		switch {
		case strings.HasPrefix(line, "$ "):
			a, err := parseAsk(strings.TrimPrefix(line, "$ "))
			if err != nil {
				return wrong(err)
			}
			out.asks = append(out.asks, a)
		case strings.HasPrefix(line, "> "):
			if len(out.asks) == 0 {
				return wrong(errors.New("expects something of no request"))
			}
			last := &out.asks[len(out.asks)-1]
			last.expect = append(last.expect, parseExpectation(strings.TrimPrefix(line, "> ")))
		case out.title == "":
			out.title = line
		}
	}
	if out.title == "" || len(out.asks) == 0 {
		return stop{}, fmt.Errorf("%s: needs a title and a request", file)
	}
	for _, a := range out.asks {
		if len(a.expect) == 0 {
			return stop{}, fmt.Errorf("%s: nothing is expected of %s", file, a.command)
		}
	}
	return out, nil
}

func parseExpectation(text string) expectation {
	out := expectation{text: text}
	if status, err := strconv.Atoi(text); err == nil {
		out.status = status
	} else if holds, ok := strings.CutPrefix(text, "~ "); ok {
		out.holds = holds
	} else if lacks, ok := strings.CutPrefix(text, "! "); ok {
		out.lacks = lacks
	} else if m := headerLine.FindStringSubmatch(text); m != nil {
		out.header, out.value = m[1], m[2]
	} else {
		out.holds = text
	}
	return out
}

// gatewayWord stands for the URL of the first zone's gateway.
const gatewayWord = "$GATEWAY"

// parseAsk reads the part of curl's command line that the tour uses: -i, -s, -X, -H, -d and -u.
func parseAsk(command string) (ask, error) {
	out := ask{command: command, times: 1, method: "GET"}
	words, err := shellWords(command)
	if err != nil {
		return ask{}, err
	}
	if n, ok := strings.CutSuffix(words[0], "x"); ok {
		if out.times, err = strconv.Atoi(n); err != nil || out.times < 1 {
			return ask{}, fmt.Errorf("%q is no number of requests", words[0])
		}
		words = words[1:]
	}
	if len(words) == 0 || words[0] != "curl" {
		return ask{}, fmt.Errorf("%q is no request with curl", command)
	}
	for i := 1; i < len(words); i++ {
		value := func() string {
			if i++; i < len(words) {
				return words[i]
			}
			return ""
		}
		switch w := words[i]; {
		case w == "-i" || w == "-s" || w == "-is":
		case w == "-X":
			out.method = value()
		case w == "-H":
			name, v, ok := strings.Cut(value(), ": ")
			if !ok {
				return ask{}, fmt.Errorf("%q: a header is NAME: VALUE", command)
			}
			out.header = append(out.header, [2]string{name, v})
		case w == "-u":
			out.header = append(out.header, [2]string{"Authorization", basic(value())})
		case w == "-d":
			out.body = value()
			if out.method == "GET" {
				out.method = "POST"
			}
		case strings.HasPrefix(w, gatewayWord):
			out.target = strings.TrimPrefix(w, gatewayWord)
		default:
			return ask{}, fmt.Errorf("%q: %q is not known to the tour", command, w)
		}
	}
	if !strings.HasPrefix(out.target, "/") {
		return ask{}, fmt.Errorf("%q asks for no path of %s", command, gatewayWord)
	}
	return out, nil
}

// shellWords cuts a command into words as a shell does, with single and double quotes.
func shellWords(text string) ([]string, error) {
	var out []string
	var word strings.Builder
	var quote rune
	inWord := false
	for _, r := range text {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ':
			if inWord {
				out = append(out, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("%q: a quote is not closed", text)
	}
	if inWord {
		out = append(out, word.String())
	}
	if len(out) == 0 {
		return nil, errors.New("the command is empty")
	}
	return out, nil
}
