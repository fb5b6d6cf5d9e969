package demo

import (
	"context"
	"embed"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/resource"
)

//go:embed tour
var tour embed.FS

// stops reads the tour, in the order of its files.
func stops() ([]stop, error) {
	files, err := fs.ReadDir(tour, "tour")
	if err != nil {
		return nil, err
	}
	var out []stop
	for _, file := range files {
		text, err := tour.ReadFile("tour/" + file.Name())
		if err != nil {
			return nil, err
		}
		s, err := parseStop(file.Name(), string(text))
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// takeTour applies the policies of each stop, sends its requests and takes the policies away again. Without brief it shows each
// request with its answer, else a line a stop. It goes on after a stop that fails, and fails in the end.
func (f *federation) takeTour(ctx context.Context, out io.Writer, brief bool) error {
	all, err := stops()
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	failed := 0
	for i, s := range all {
		began := time.Now()
		if !brief {
			fmt.Fprintf(out, "--- %d/%d %s\n    policies: %s\n", i+1, len(all), s.title, f.path("tour", s.file))
		}
		err := f.visit(ctx, s, out, brief)
		if err == nil {
			err = f.check()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			fmt.Fprintf(out, "FAIL %2d/%d %s: %v\n", i+1, len(all), s.title, err)
			continue
		}
		fmt.Fprintf(out, "ok   %2d/%d %s (%.1f s)\n", i+1, len(all), s.title, time.Since(began).Seconds())
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d stops of the tour", ErrCheck, failed, len(all))
	}
	return nil
}

func (f *federation) visit(ctx context.Context, s stop, out io.Writer, brief bool) error {
	text, err := tour.ReadFile("tour/" + s.file)
	if err != nil {
		return err
	}
	document := strings.ReplaceAll(string(text), "$NETWORK", f.first().network)
	file, err := f.write("tour/"+s.file, document)
	if err != nil {
		return err
	}
	batch := resource.Decode(s.file, []byte(document), resource.Options{})
	if err := batch.Err(); err != nil {
		return err
	}
	if _, err := f.cli(ctx, "apply", "--wait", "--timeout", "30s", "--message", "the tour: "+s.title, "-f", file); err != nil {
		return err
	}
	err = f.askAll(ctx, s, out, brief)
	for i := len(batch.Resources) - 1; i >= 0; i-- {
		r := batch.Resources[i]
		if _, gone := f.cli(ctx, "delete", r.Kind, r.Name, "-m", mesh); gone != nil && err == nil {
			err = gone
		}
	}
	return err
}

// askAll sends the requests of a stop. The first one is repeated until it is answered as expected, as Envoy's workers take a change
// over a moment after it was acknowledged.
func (f *federation) askAll(ctx context.Context, s stop, out io.Writer, brief bool) error {
	for i, a := range s.asks {
		var got reply
		send := func() error {
			for range a.times {
				var err error
				if got, err = f.send(ctx, a); err != nil {
					return err
				}
			}
			return got.meets(a.expect)
		}
		err := send()
		if err != nil && i == 0 && a.times == 1 {
			err = f.await(ctx, s.title, settleTime, send)
		}
		if !brief {
			fmt.Fprintf(out, "\n$ %s\n%s", strings.ReplaceAll(a.command, gatewayWord, strings.TrimSuffix(f.first().url(""), "/")), got.text(a.expect))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.command, err)
		}
	}
	if !brief {
		fmt.Fprintln(out)
	}
	return nil
}

// reply is what came back.
type reply struct {
	status string
	code   int
	header http.Header
	body   string
}

func (f *federation) send(ctx context.Context, a ask) (reply, error) {
	var body io.Reader
	if a.body != "" {
		body = strings.NewReader(a.body)
	}
	req, err := http.NewRequestWithContext(ctx, a.method, f.first().url(a.target), body)
	if err != nil {
		return reply{}, err
	}
	if a.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range a.header {
		if strings.EqualFold(h[0], "Host") {
			req.Host = h[1]
			continue
		}
		req.Header.Set(h[0], h[1])
	}
	resp, err := tourist.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return reply{resp.Status, resp.StatusCode, resp.Header, string(text)}, err
}

// tourist follows no redirect and decompresses nothing, so that answers are shown as they come.
var tourist = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, Proxy: nil},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (r reply) meets(all []expectation) error {
	for _, e := range all {
		ok := false
		switch {
		case e.status != 0:
			ok = r.code == e.status
		case e.header != "":
			ok = strings.Join(r.header.Values(e.header), ", ") == e.value
		case e.lacks != "":
			ok = !strings.Contains(r.body, e.lacks)
		default:
			ok = strings.Contains(r.body, e.holds)
		}
		if !ok {
			return fmt.Errorf("want %s, got %s %v: %.500s", e.text, r.status, r.header, strings.TrimSpace(r.body))
		}
	}
	return nil
}

// text shows a reply: the headers that something is expected of, and a body that is a text.
func (r reply) text(expected []expectation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %s\n", r.status)
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
	return b.String()
}

func basic(credentials string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}
