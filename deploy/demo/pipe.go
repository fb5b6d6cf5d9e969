package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// parseWord reads what follows echo: a word, a bar, and the program that sends the word.
func parseWord(words []string) (command, error) {
	if len(words) < 3 || words[1] != "|" {
		return nil, errors.New("echo sends one word into another command")
	}
	word, program, words := words[0], words[2], words[3:]
	switch program {
	case "nc":
		if len(words) != 2 {
			return nil, errors.New("nc is sent to HOST PORT")
		}
		return netcat{word: word, address: net.JoinHostPort(words[0], words[1])}, nil
	case "websocat":
		if len(words) != 1 || !strings.HasPrefix(words[0], "ws://") {
			return nil, errors.New("websocat is sent to ws://HOST:PORT/PATH")
		}
		return websocat{word: word, url: words[0]}, nil
	case "openssl":
		// What openssl says of itself is left out with -quiet, and -verify_return_error makes of it what the demo's own does.
		want := []string{"s_client", "-quiet", "-verify_return_error", "-CAfile", "", "-servername", "", "-connect", ""}
		if len(words) != len(want) {
			return nil, fmt.Errorf("openssl is %s", strings.Join(want, " "))
		}
		for i, w := range want {
			if w != "" && words[i] != w {
				return nil, fmt.Errorf("openssl is %s", strings.Join(want, " "))
			}
		}
		return netcat{word: word, roots: words[4], name: words[6], address: words[8]}, nil
	default:
		return nil, fmt.Errorf("%q is no command for a word", program)
	}
}

// netcat sends a word to an address, by TLS where a name of the server is given, and shows what comes until the end.
type netcat struct {
	word    string
	address string
	name    string
	roots   string
}

func (n netcat) send(ctx context.Context) reply {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	conn, err := n.dial(ctx)
	if err != nil {
		return reply{failed: err}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	if _, err := io.WriteString(conn, n.word+"\n"); err != nil {
		return reply{failed: err}
	}
	got, err := io.ReadAll(io.LimitReader(conn, 1<<16))
	if err == nil && len(got) == 0 {
		err = errors.New("closed without an answer")
	}
	return reply{body: string(got), failed: err}
}

func (n netcat) dial(ctx context.Context) (net.Conn, error) {
	if n.name == "" {
		return (&net.Dialer{}).DialContext(ctx, "tcp", n.address)
	}
	config, err := tlsConfig(n.roots, "")
	if err != nil {
		return nil, err
	}
	config.ServerName = n.name
	return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", n.address)
}

// websocat sends a word as a message of a WebSocket and shows the first that comes.
type websocat struct {
	word string
	url  string
}

func (w websocat) send(ctx context.Context) reply {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, w.url, nil)
	if err != nil {
		return reply{failed: err}
	}
	defer conn.CloseNow()
	if err := conn.Write(ctx, websocket.MessageText, []byte(w.word)); err != nil {
		return reply{failed: err}
	}
	_, got, err := conn.Read(ctx)
	if err == nil {
		err = conn.Close(websocket.StatusNormalClosure, "")
	}
	return reply{body: string(got), failed: err}
}

// lastLines shows the end of a file.
type lastLines struct {
	file string
	n    int
}

func parseTail(words []string) (command, error) {
	if len(words) != 3 || words[0] != "-n" {
		return nil, errors.New("tail is -n LINES FILE")
	}
	n, err := strconv.Atoi(words[1])
	if err != nil || n < 1 {
		return nil, fmt.Errorf("%q is no number of lines", words[1])
	}
	return lastLines{file: words[2], n: n}, nil
}

func (l lastLines) send(context.Context) reply {
	text, err := os.ReadFile(l.file)
	if err != nil {
		return reply{failed: err}
	}
	lines := slices.Collect(strings.Lines(string(text)))
	return reply{body: strings.Join(lines[max(0, len(lines)-l.n):], "")}
}
