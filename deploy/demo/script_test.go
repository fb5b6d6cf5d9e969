package demo

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/resource"
)

// theTour reads the stops of a federation that does not run.
func theTour(t *testing.T) []stop {
	t.Helper()
	f := &federation{dir: t.TempDir(), sites: plan("127.0", 2)}
	g, err := f.newGuide()
	if err != nil {
		t.Fatal(err)
	}
	all, err := stops(g.explain)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestEveryStopOfTheTour reads each file as the tour does: its commands, and its policies as apply would.
func TestEveryStopOfTheTour(t *testing.T) {
	for _, s := range theTour(t) {
		batch := resource.Decode(s.file, []byte(s.document), resource.Options{RefuseProxy: true})
		if err := batch.Err(); err != nil || len(batch.Resources) == 0 || len(batch.Notes) > 0 {
			t.Errorf("%s: %d resources, %v, %v", s.file, len(batch.Resources), batch.Notes, err)
		}
		if word := regexp.MustCompile(`\$([A-Z_]+|\{(certificate|authority|descriptor).*)`).FindString(s.document); word != "" {
			t.Errorf("%s: nothing takes the place of %s", s.file, word)
		}
	}
}

// TestTheTourStopsAtEachFunction holds the tour against the list of functions: each page is shown by a stop.
func TestTheTourStopsAtEachFunction(t *testing.T) {
	const folder = "docs/functions"
	list, err := os.ReadFile(filepath.Join("..", "..", folder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]bool{} // whether a stop shows it
	for _, m := range regexp.MustCompile(`(?m)^- \[[^]]+\]\(([a-z0-9-]+\.md)\)`).FindAllStringSubmatch(string(list), -1) {
		pages[folder+"/"+m[1]] = false
	}
	if len(pages) < 30 {
		t.Errorf("%s/README.md lists %d functions", folder, len(pages))
	}
	for _, s := range theTour(t) {
		if len(s.docs) == 0 {
			t.Errorf("%s names no page of %s (# docs: %s/routing.md)", s.file, folder, folder)
		}
		for _, page := range s.docs {
			if _, listed := pages[page]; !listed {
				t.Errorf("%s: %s is no page that %s/README.md lists", s.file, page, folder)
			}
			pages[page] = true
		}
	}
	for page, shown := range pages {
		if !shown {
			t.Errorf("no stop of the tour shows %s: add one to deploy/demo/tour", page)
		}
	}
}

func TestScript(t *testing.T) {
	got, err := parseStop("f", "# A title: with more\n# of it\n# docs: a.md, b.md\n# $ watch 3x curl -i -X PUT -H 'X-A: b c' -u me:it \"http://g/a?b=c&d\" --json '{}'\n"+
		"# > 201\n# > x-b: c, d\n# > ~ x: y\n# > ! z\n# > HTTP/2 200\n# > fails\n# > after 1.5s\n# > 2-3 times ~ v\n# > same \"p\"\ntype: Mesh\n# $no command\n")
	want := []ask{{
		text: `watch 3x curl -i -X PUT -H 'X-A: b c' -u me:it "http://g/a?b=c&d" --json '{}'`, times: 3, watch: true,
		run: curl{method: "PUT", url: "http://g/a?b=c&d", body: "{}", header: [][2]string{{"Content-Type", "application/json"}, {"X-A", "b c"}, {"Authorization", "Basic bWU6aXQ="}}},
		expect: []expectation{
			{text: "201", status: 201}, {text: "x-b: c, d", header: "x-b", value: "c, d"}, {text: "~ x: y", holds: "x: y"}, {text: "! z", lacks: "z"},
			{text: "HTTP/2 200", proto: "HTTP/2", status: 200}, {text: "fails", fails: true}, {text: "after 1.5s", after: 1500 * time.Millisecond},
			{text: "2-3 times ~ v", holds: "v", least: 2, most: 3}, {text: `same "p"`, same: `"p"`},
		},
	}}
	if err != nil || got.title != "A title: with more" || !slices.Equal(got.docs, []string{"a.md", "b.md"}) || !reflect.DeepEqual(got.asks, want) {
		t.Errorf("got  %+v %v\nwant %+v", got, err, want)
	}
	for command, want := range map[string]command{
		"curl --cacert c --cert d --resolve *:1:2 --http3-only https://a": curl{method: "GET", url: "https://a", roots: "c", identity: "d", resolve: "*:1:2", quic: true},
		"curl --http2-prior-knowledge -d x http://a":                      curl{method: "POST", url: "http://a", body: "x", header: [][2]string{{"Content-Type", "application/x-www-form-urlencoded"}}, priorKnowledge: true},
		"echo a | nc h 1": netcat{word: "a", address: "h:1"},
		"echo a | openssl s_client -quiet -verify_return_error -CAfile c -servername n -connect h:1": netcat{word: "a", roots: "c", name: "n", address: "h:1"},
		"echo a | websocat ws://h/p": websocat{word: "a", url: "ws://h/p"},
		"tail -n 2 f":                lastLines{file: "f", n: 2},
	} {
		if got, err := parseAsk(command); err != nil || !reflect.DeepEqual(got.run, want) {
			t.Errorf("%s: %+v %v, want %+v", command, got.run, err, want)
		}
	}
	if got, err := parseAsk(`grpcurl -plaintext -d '{"a": 1}' h:1 grpc.health.v1.Health/Check`); err != nil || got.run.(grpcurl).in != `{"a": 1}` || got.run.(grpcurl).target != "h:1" || got.run.(grpcurl).method.Name() != "Check" {
		t.Errorf("grpcurl: %+v %v", got, err)
	}
	for text, want := range map[string]string{
		"# T\n":                                                                  "needs a title and a command",
		"# T\n# > 200\n":                                                         "f:2: expects something of no command",
		"# T\n# $ curl http://g/\n":                                              "nothing is expected",
		"# T\n# $ wget http://g/\n# > 200\n":                                     "no command of the tour",
		"# T\n# $ curl -k http://g/\n# > 200\n":                                  `"-k" is not known`,
		"# T\n# $ curl ftp://a/\n# > 200\n":                                      "is not known to the tour",
		"# T\n# $ curl 'http://g/\n# > 200\n":                                    "a quote is not closed",
		"# T\n# $ 0x curl http://g/\n# > 200\n":                                  "no number of commands",
		"# T\n# $ curl -H x http://g/\n# > 200\n":                                "a header is NAME: VALUE",
		"# T\n# $ curl http://g/ -H\n# > 200\n":                                  "-H has no value",
		"# T\n# $ curl -i\n# > 200\n":                                            "no URL",
		"# T\n# $ \n# > 200\n":                                                   "the command is empty",
		"# T\n# $ watch\n# > 200\n":                                              "no command of the tour",
		"# T\n# $ curl http://g/\n# > good\n":                                    "nothing that can be expected",
		"# T\n# $ curl http://g/\n# > 3-2 times 200\n":                           "no number of answers",
		"# T\n# $ echo a b\n# > 200\n":                                           "one word into another command",
		"# T\n# $ echo a | cat x\n# > 200\n":                                     `"cat" is no command for a word`,
		"# T\n# $ echo a | nc h\n# > 200\n":                                      "nc is sent to HOST PORT",
		"# T\n# $ echo a | websocat http://h\n# > 200\n":                         "websocat is sent to ws://",
		"# T\n# $ echo a | openssl s_client -connect h:1\n# > 200\n":             "openssl is s_client -quiet",
		"# T\n# $ tail -f x\n# > 200\n":                                          "tail is -n LINES FILE",
		"# T\n# $ tail -n none x\n# > 200\n":                                     "no number of lines",
		"# T\n# $ grpcurl h:1 a.B/C\n# > 200\n":                                  "a call is -plaintext",
		"# T\n# $ grpcurl -plaintext h:1 a.B/C\n# > 200\n":                       "a.B/C: proto:",
		"# T\n# $ grpcurl -plaintext h:1 grpc.health.v1.Health/Watch\n# > 200\n": "no method with one answer",
	} {
		if _, err := parseStop("f", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestReplies holds expectations against answers that meet them, and others that don't.
func TestReplies(t *testing.T) {
	answer := func(body string) reply {
		return reply{proto: "HTTP/2", status: "200 OK", code: 200, header: map[string][]string{"X-B": {"c", "d"}}, body: body, took: time.Second}
	}
	two := []reply{answer("x: y\n\"p\": 1\n"), answer("x: z\n\"p\": 1\n")}
	broken := []reply{{failed: errors.New("reset")}}
	for _, c := range []struct {
		replies []reply
		text    string
		met     bool
	}{
		{two, "200", true}, {two, "201", false}, {two, "HTTP/2 200", true}, {two, "HTTP/1.1 200", false}, {two, "HTTP/2 201", false},
		{two, "x-b: c, d", true}, {two, "x-b: c", false}, {two, "x-c: ", true}, {two, "x-b: ", false},
		{two, "~ x: z", true}, {two, "~ x: y", false}, {two, "! x: y", true}, {two, "! x: z", false},
		{two, "after 1s", true}, {two, "after 2s", false}, {two, "fails", false},
		{two, "2 times 200", true}, {two, "1 times 200", false}, {two, "1 times ~ x: y", true}, {two, "0-1 times ~ x: y", true}, {two, "2 times ~ x: y", false},
		{two, `same "p"`, true}, {two, "same x", false}, {two, "same q", false},
		{broken, "fails", true}, {broken, "! x", false}, {broken, "x-c: ", false}, {broken, "0-1 times 200", true}, {broken, "same x", false},
	} {
		e, err := parseExpectation(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkReplies(c.replies, []expectation{e}); (err == nil) != c.met {
			t.Errorf("%s: %v", c.text, err)
		}
	}
	if got, want := show(two, []expectation{{header: "x-b"}, {text: "1-2 times 200", status: 200, least: 1, most: 2}, {text: "after 1s", after: 1}}),
		"HTTP/2 200 OK\nx-b: c, d\nx: z\n\"p\": 1\n(2 of 2: 200)\n(after 1.0 s)\n"; got != want {
		t.Errorf("shown as %q, want %q", got, want)
	}
}

// TestEchoTellsFailuresApart asks a workload for what the tour's stops need: failures of the first requests or of one version, and counts.
func TestEchoTellsFailuresApart(t *testing.T) {
	e := &Echo{Who: Answer{Version: "v1"}, paths: map[string]int{}}
	for _, c := range []struct {
		target string
		status int
		seen   int
	}{
		{"/a?status=503&fails=2&seen=/a", 503, 1}, {"/a?status=503&fails=2&seen=/a", 503, 2}, {"/a?status=503&fails=2&seen=/a", 200, 3},
		{"/b?seen=/a", 200, 3}, {"/b?status=503&ill=v1&seen=/b", 503, 2}, {"/b?status=503&ill=v2&seen=/none", 200, 0},
	} {
		status, answer := askEcho(t, e, c.target)
		if status != c.status || answer.Seen == nil || *answer.Seen != c.seen {
			t.Errorf("%s: %d %+v, want %d, seen %d", c.target, status, answer, c.status, c.seen)
		}
	}
}

func askEcho(t *testing.T, e *Echo, target string) (int, Answer) {
	t.Helper()
	w := httptest.NewRecorder()
	e.answer(w, httptest.NewRequest("GET", target, nil))
	var answer Answer
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return w.Code, answer
}
