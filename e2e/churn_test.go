package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.yaml.in/yaml/v3"
)

// strange is an answer that no configuration explains.
type strange struct{ function, request, told string }

// churnClient keeps connections, and believes whatever certificate it is shown.
func churnClient() *http.Client {
	return &http.Client{Timeout: answerTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: "api.example.com", InsecureSkipVerify: true}}}
}

// TestEveryAnswerIsExplained changes functions of the gateway 500 times, one after the other, while requests go on over kept
// connections. Each answer must be one that the configuration before or after explains: of a function that is not being changed, its own.
func TestEveryAnswerIsExplained(t *testing.T) {
	const changes = 500
	f := startEdge(t)
	all := churns(f)
	var first []string
	for _, c := range all {
		first = append(first, c.documents[0])
	}
	f.apply(first...)
	plain, client := "http://"+f.at(10, 8080), churnClient()
	defer client.CloseIdleConnections()
	for _, c := range all {
		f.await(c.name, func() error {
			r, a, err := c.ask(client, plain, "first")
			if err == nil && c.seen(r, a) != c.want[0] {
				err = fmt.Errorf("%s, want %s", c.seen(r, a), c.want[0])
			}
			return err
		})
	}

	// state holds, for each function, which configuration is in force: 0, 1, or both while it may be either.
	const either = 2
	state := make([]atomic.Int32, len(all))
	var requests atomic.Int64
	var mu sync.Mutex
	var unexplained []strange
	var changing atomic.Value
	changing.Store("nothing had changed")
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for s := range 3 {
		senders.Go(func() {
			// Connections are kept, so that one that a change ended would show.
			client := churnClient()
			defer client.CloseIdleConnections()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				i := n % len(all)
				c := all[i]
				id := fmt.Sprintf("%d-%d", s, n)
				before, during := state[i].Load(), changing.Load()
				r, a, err := c.ask(client, plain, id)
				after := state[i].Load()
				requests.Add(1)
				got := ""
				if err == nil {
					got = c.seen(r, a)
					if (before != 1 || after != 1) && got == c.want[0] || (before != 0 || after != 0) && got == c.want[1] {
						continue
					}
				}
				mu.Lock()
				unexplained = append(unexplained, strange{c.name, id,
					fmt.Sprintf("%q %v %q, with the state %d before and %d after, when %v", got, err, a.Text, before, after, during)})
				mu.Unlock()
			}
		})
	}
	now := make([]int, len(all))
	// Envoy's workers take a change over a moment after it was acknowledged, so a function counts as changing until the next ones are.
	var settling []int
	for n := range changes {
		i := n % len(all)
		state[i].Store(either)
		next := 1 - now[i]
		changing.Store(fmt.Sprintf("change %d was on its way, of %s to %d", n, all[i].name, next))
		f.live(f.post(all[i].documents[next], all[i].documents[now[i]]))
		now[i] = next
		settling = append(settling, i)
		if len(settling) > 3 {
			state[settling[0]].Store(int32(now[settling[0]]))
			settling = settling[1:]
		}
	}
	close(stop)
	senders.Wait()
	t.Logf("%d changes, %d requests", changes, requests.Load())
	if len(unexplained) > 0 {
		f.end("edge") // writes what is left of the log
		lines, err := fileLines(f.churnLog())
		told := map[string]int{}
		for _, u := range unexplained {
			if told[u.function]++; told[u.function] > 5 {
				continue
			}
			t.Errorf("%s: %s", u.function, u.told)
			for _, l := range lines {
				if strings.HasPrefix(l, u.request+" ") {
					t.Log("Envoy says of it:", l)
				}
			}
		}
		t.Errorf("%d of %d answers are not explained (log: %v)", len(unexplained), requests.Load(), err)
	}
	if requests.Load() < 2*changes {
		t.Errorf("%d requests are too few to tell", requests.Load())
	}
}

// live waits until a change is on every proxy: what a zone said of its proxies may be older than what it took.
func (f *federation) live(change int64) {
	f.t.Helper()
	f.await(fmt.Sprintf("change %d", change), func() error {
		code, body, err := f.rest(http.MethodGet, fmt.Sprintf("/v1/changes/%d/status", change), nil)
		var receipt struct{ Live bool }
		if err == nil {
			err = json.Unmarshal(body, &receipt)
		}
		if err == nil && (code != http.StatusOK || !receipt.Live) {
			err = fmt.Errorf("status %d: %s", code, body)
		}
		return err
	})
}

// post applies a document by REST, and deletes in the same change what the one before held and it doesn't.
func (f *federation) post(document, before string) (change int64) {
	f.t.Helper()
	type key struct {
		Kind string `json:"kind"`
		Mesh string `json:"mesh"`
		Name string `json:"name"`
	}
	read := func(text string) (list []map[string]any, keys []key) {
		for _, part := range strings.Split(text, "---\n") {
			var one map[string]any
			if err := yaml.Unmarshal([]byte(part), &one); err != nil {
				f.t.Fatal(err)
			}
			list = append(list, one)
			keys = append(keys, key{fmt.Sprint(one["type"]), fmt.Sprint(one["mesh"]), fmt.Sprint(one["name"])})
		}
		return list, keys
	}
	body := struct {
		Resources []map[string]any `json:"resources"`
		Deletes   []key            `json:"deletes,omitempty"`
	}{}
	var has []key
	body.Resources, has = read(document)
	_, had := read(before)
	for _, k := range had {
		gone := true
		for _, h := range has {
			gone = gone && h != k
		}
		if gone {
			body.Deletes = append(body.Deletes, k)
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	code, answer, err := f.rest(http.MethodPost, "/v1/changes", bytes.NewReader(text))
	var done struct{ Change int64 }
	if err == nil {
		err = json.Unmarshal(answer, &done)
	}
	if err != nil || code/100 != 2 {
		f.t.Fatalf("change: %d %s %v\n%s", code, answer, err, text)
	}
	return done.Change
}
