package demo

import (
	"reflect"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/resource"
)

// TestEveryStopOfTheTour reads each file as the tour does: its requests, and its policies as apply would.
func TestEveryStopOfTheTour(t *testing.T) {
	all, err := stops()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		text, err := tour.ReadFile("tour/" + s.file)
		if err != nil {
			t.Fatal(err)
		}
		batch := resource.Decode(s.file, []byte(strings.ReplaceAll(string(text), "$NETWORK", "127.0.1")), resource.Options{RefuseProxy: true})
		if err := batch.Err(); err != nil || len(batch.Resources) == 0 || len(batch.Notes) > 0 {
			t.Errorf("%s: %d resources, %v, %v", s.file, len(batch.Resources), batch.Notes, err)
		}
	}
}

func TestScript(t *testing.T) {
	got, err := parseStop("f", "# A title: with more\n# of it\n# $ 3x curl -i -X PUT -H 'X-A: b c' -u me:it \"$GATEWAY/a?b=c&d\" -d '{}'\n# > 201\n# > x-b: c, d\n# > ~ x: y\n# > ! z\ntype: Mesh\n# $no request\n")
	want := stop{file: "f", title: "A title: with more", asks: []ask{{
		command: `3x curl -i -X PUT -H 'X-A: b c' -u me:it "$GATEWAY/a?b=c&d" -d '{}'`, times: 3, method: "PUT", target: "/a?b=c&d", body: "{}",
		header: [][2]string{{"X-A", "b c"}, {"Authorization", "Basic bWU6aXQ="}},
		expect: []expectation{{text: "201", status: 201}, {text: "x-b: c, d", header: "x-b", value: "c, d"}, {text: "~ x: y", holds: "x: y"}, {text: "! z", lacks: "z"}},
	}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v %v\nwant %+v", got, err, want)
	}
	for text, want := range map[string]string{
		"# T\n":                                   "needs a title and a request",
		"# T\n# > 200\n":                          "f:2: expects something of no request",
		"# T\n# $ curl $GATEWAY/\n":               "nothing is expected",
		"# T\n# $ wget $GATEWAY/\n# > 200\n":      "no request with curl",
		"# T\n# $ curl -k $GATEWAY/\n# > 200\n":   `"-k" is not known`,
		"# T\n# $ curl https://a/\n# > 200\n":     "is not known to the tour",
		"# T\n# $ curl '$GATEWAY/\n# > 200\n":     "a quote is not closed",
		"# T\n# $ 0x curl $GATEWAY/\n# > 200\n":   "no number of requests",
		"# T\n# $ curl -H x $GATEWAY/\n# > 200\n": "a header is NAME: VALUE",
		"# T\n# $ curl -i $GATEWAY\n# > 200\n":    "asks for no path",
		"# T\n# $ \n# > 200\n":                    "the command is empty",
	} {
		if _, err := parseStop("f", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	r := reply{status: "200 OK", code: 200, header: map[string][]string{"X-B": {"c", "d"}}, body: "x: y"}
	if err := r.meets(want.asks[0].expect[1:]); err != nil {
		t.Error(err)
	}
	for _, e := range []expectation{{text: "201", status: 201}, {text: "x-b", header: "x-b", value: "c"}, {text: "q", holds: "q"}, {text: "y", lacks: "y"}} {
		if r.meets([]expectation{e}) == nil {
			t.Errorf("%+v is met", e)
		}
	}
}
