package demo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// stop is one stop of the tour, read from a file of policies whose comments show what to ask and what to expect:
//
//	# CORS: browsers of other origins may read the answers.
//	# docs: headers-cors
//	# $ curl -i -H 'Origin: https://app.example.com' $GATEWAY/tour/cors
//	# > 200
//	# > access-control-allow-origin: https://app.example.com
//	# > ~ "path": "/tour/cors"
//
// A line with $ is a command, with 11x before it so many of them. Where watch stands before it, it is repeated until it is answered
// as expected, for what takes a moment to come. Lines with > say what is expected, see parseExpectation. The line with docs names the
// pages of docs/functions of which this is a picture.
type stop struct {
	file     string
	document string
	title    string
	docs     []string
	asks     []ask
}

// ask is one command with what is expected of its answers.
type ask struct {
	text   string
	times  int
	watch  bool
	run    command
	expect []expectation
}

// command is what a line with $ runs. The demo has its own of each, so that nothing has to be installed, and takes the part of their
// words that the tour uses.
type command interface {
	send(ctx context.Context) reply
}

func parseStop(file string, text string) (stop, error) {
	out := stop{file: file, document: text}
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
				return wrong(errors.New("expects something of no command"))
			}
			e, err := parseExpectation(strings.TrimPrefix(line, "> "))
			if err != nil {
				return wrong(err)
			}
			last := &out.asks[len(out.asks)-1]
			last.expect = append(last.expect, e)
		case strings.HasPrefix(line, "docs: "):
			out.docs = strings.Split(strings.TrimPrefix(line, "docs: "), ", ")
		case out.title == "":
			out.title = line
		}
	}
	if out.title == "" || len(out.asks) == 0 {
		return stop{}, fmt.Errorf("%s: needs a title and a command", file)
	}
	for _, a := range out.asks {
		if len(a.expect) == 0 {
			return stop{}, fmt.Errorf("%s: nothing is expected of %s", file, a.text)
		}
	}
	return out, nil
}

func parseAsk(text string) (ask, error) {
	out := ask{text: text, times: 1}
	words, err := shellWords(text)
	if err != nil {
		return ask{}, err
	}
	if words[0] == "watch" && len(words) > 1 {
		out.watch, words = true, words[1:]
	}
	if n, ok := strings.CutSuffix(words[0], "x"); ok && len(words) > 1 {
		if out.times, err = strconv.Atoi(n); err != nil || out.times < 1 {
			return ask{}, fmt.Errorf("%q is no number of commands", words[0])
		}
		words = words[1:]
	}
	parse := map[string]func([]string) (command, error){"curl": parseCurl, "grpcurl": parseGRPCurl, "echo": parseWord, "tail": parseTail}[words[0]]
	if parse == nil {
		return ask{}, fmt.Errorf("%q is no command of the tour: it has curl, grpcurl, tail, and echo into nc, openssl or websocat", text)
	}
	if out.run, err = parse(words[1:]); err != nil {
		return ask{}, fmt.Errorf("%q: %w", text, err)
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

// option takes the value of an option off the words that follow it.
func option(words *[]string, name string) (string, error) {
	if len(*words) == 0 {
		return "", fmt.Errorf("%s has no value", name)
	}
	value := (*words)[0]
	*words = (*words)[1:]
	return value, nil
}
