package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// receipt says how far a change has come.
type receipt struct {
	Change     int64         `json:"change"`
	Revision   int64         `json:"revision"`
	Live       bool          `json:"live"`
	LiveSince  *time.Time    `json:"liveSince,omitempty"`
	Complete   bool          `json:"complete"`
	Proxies    int           `json:"proxies"`
	Acked      int           `json:"acked"`
	ZonesLive  int           `json:"zonesLive"`
	ZonesTotal int           `json:"zonesTotal"`
	Zones      []zoneReceipt `json:"zones"`
}

type zoneReceipt struct {
	Zone      string      `json:"zone"`
	Connected bool        `json:"connected"`
	Taken     bool        `json:"taken"`
	Live      bool        `json:"live"`
	Refused   bool        `json:"refused,omitempty"`
	LiveSince *time.Time  `json:"liveSince,omitempty"`
	Proxies   int         `json:"proxies"`
	Acked     int         `json:"acked"`
	Nacks     []nack      `json:"nacks,omitempty"`
	Rejected  []rejection `json:"rejected,omitempty"`
}

// nack is a proxy's refusal, in Envoy's words.
type nack struct {
	Mesh     string     `json:"mesh,omitempty"`
	Proxy    string     `json:"proxy,omitempty"`
	TypeURL  string     `json:"typeUrl"`
	Names    []string   `json:"names,omitempty"`
	Revision int64      `json:"revision,omitempty"`
	Error    string     `json:"error"`
	Time     *time.Time `json:"time,omitempty"`
}

func (n nack) String() string {
	_, kind, _ := strings.Cut(n.TypeURL, "/")
	if i := strings.LastIndexByte(kind, '.'); i >= 0 {
		kind = kind[i+1:]
	}
	var b strings.Builder
	if name := n.Proxy; name != "" {
		if n.Mesh != "" && !strings.Contains(name, "/") {
			name = n.Mesh + "/" + name
		}
		b.WriteString("proxy " + name + " refuses ")
	}
	b.WriteString(cmp.Or(kind, "its configuration"))
	if len(n.Names) > 0 {
		b.WriteString(" " + strings.Join(n.Names, ", "))
	}
	if n.Revision > 0 {
		fmt.Fprintf(&b, " of revision %d", n.Revision)
	}
	return b.String() + ": " + oneLine(n.Error)
}

// rejection is a resource that a zone cannot use.
type rejection struct {
	Kind   string `json:"kind"`
	Mesh   string `json:"mesh,omitempty"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

func (r rejection) String() string {
	return keyOf{r.Kind, r.Mesh, r.Name}.String() + ": " + oneLine(r.Reason)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (z zoneReceipt) state() string {
	switch {
	case z.Refused:
		return "refused"
	case z.Live:
		return "live"
	case !z.Connected:
		return "not connected"
	case z.Taken:
		return "reaching proxies"
	}
	return "sent"
}

func (z zoneReceipt) line() string {
	if !z.Connected {
		return fmt.Sprintf("zone %s: %s", z.Zone, z.state())
	}
	return fmt.Sprintf("zone %s: %s, %d of %s", z.Zone, z.state(), z.Acked, proxies(z.Proxies))
}

func proxies(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return fmt.Sprintf("%d proxies", n)
}

func (z zoneReceipt) reasons() []string {
	var out []string
	for _, r := range z.Rejected {
		out = append(out, "  "+r.String())
	}
	for _, n := range z.Nacks {
		out = append(out, "  "+n.String())
	}
	return out
}

// retryPause parts two attempts to go on watching, such as while a replica of global restarts.
const retryPause = 200 * time.Millisecond

// absentGrace is how long a zone that is not connected is waited for, from when it is missed.
const absentGrace = 10 * time.Second

// errRefused voids a receipt: what is wrong stands in the lines before.
var errRefused = errors.New("not live everywhere")

// follower shows a change on its way.
type follower struct {
	out io.Writer
	// inPlace rewrites the zones' lines, as a terminal can.
	inPlace bool
	// drawn is the number of lines that are to be rewritten; told holds the line that was last printed for a zone.
	drawn int
	told  map[string]string
	// missed holds since when zones that must take the change are not connected.
	missed map[string]time.Time
}

// follow shows how far a change has come until it is complete or time is up. The last receipt that came is returned with
// the error, too.
func (f *follower) follow(ctx context.Context, client *client, seq int64, timeout time.Duration) (*receipt, error) {
	f.told, f.missed = map[string]string{}, map[string]time.Time{}
	deadline := time.Now().Add(timeout)
	// Global ends the watch by itself; this is for one that doesn't answer any more.
	watch, cancel := context.WithDeadline(ctx, deadline.Add(3*time.Second))
	defer cancel()
	var last *receipt
	for {
		left := time.Until(deadline)
		if left < time.Second && last == nil {
			left = time.Second
		}
		complete, err := f.watch(watch, client, seq, left, &last)
		var p *problem
		switch {
		case ctx.Err() != nil:
			return last, ctx.Err()
		case err == nil && complete && f.settled(last, time.Now()), errors.As(err, &p):
		case time.Now().Before(deadline):
			// The change stands; only our view of it is gone.
			select {
			case <-time.After(retryPause):
			case <-watch.Done():
			}
			continue
		}
		if err != nil && last == nil {
			return nil, fmt.Errorf("change %d is committed, but how far it has come cannot be learnt: %w", seq, err)
		}
		return last, f.finish(last, timeout)
	}
}

// miss notes which zones are not connected as of a receipt.
func (f *follower) miss(r receipt, now time.Time) {
	before := f.missed
	f.missed = map[string]time.Time{}
	for _, z := range r.Zones {
		if z.Connected || z.Live {
			continue
		}
		f.missed[z.Zone] = now
		if since, ok := before[z.Zone]; ok {
			f.missed[z.Zone] = since
		}
	}
}

// settled says whether nothing more is to be expected of the zones. A watch that ends before was cut short, such as by a
// replica that stops. Zones that are absent only count as such once they had time to come back, such as to a replica that has just
// started.
func (f *follower) settled(r *receipt, now time.Time) bool {
	waited := true
	for _, since := range f.missed {
		waited = waited && now.Sub(since) >= absentGrace
	}
	if r.Complete && waited {
		return true
	}
	for _, z := range r.Zones {
		if !z.Live && !z.Refused {
			return false
		}
	}
	return true
}

// watch reads receipts until the stream ends; complete says that it ended in order.
func (f *follower) watch(ctx context.Context, client *client, seq int64, left time.Duration, last **receipt) (complete bool, err error) {
	if left <= 0 {
		return *last != nil, nil
	}
	route := fmt.Sprintf("/v1/changes/%d/status?watch=true&timeout=%s", seq, left.Round(time.Millisecond))
	response, err := client.send(ctx, http.MethodGet, route, nil)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 16<<20)
	seen := false
	for lines.Scan() {
		var r receipt
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return false, fmt.Errorf("a receipt of %s cannot be read: %w", client.host, err)
		}
		*last, seen = &r, true
		f.miss(r, time.Now())
		f.show(r)
	}
	if err := lines.Err(); err != nil {
		return false, client.explain(err)
	}
	if !seen {
		return false, fmt.Errorf("%s told nothing of change %d", client.host, seq)
	}
	return true, nil
}

// show prints the zones' lines: all of them anew on a terminal, those that changed otherwise.
func (f *follower) show(r receipt) {
	if f.inPlace {
		var b strings.Builder
		if f.drawn > 0 {
			fmt.Fprintf(&b, "\x1b[%dA", f.drawn)
		}
		for _, z := range r.Zones {
			b.WriteString("\x1b[2K" + z.line() + "\n")
		}
		// A zone that was deleted meanwhile leaves a line behind.
		b.WriteString("\x1b[J")
		f.drawn = len(r.Zones)
		_, _ = io.WriteString(f.out, b.String())
		return
	}
	for _, z := range r.Zones {
		if line := z.line(); f.told[z.Zone] != line {
			f.told[z.Zone] = line
			fmt.Fprintln(f.out, line)
		}
	}
}

// finish prints why a change isn't live, and the receipt as the last line.
func (f *follower) finish(r *receipt, timeout time.Duration) error {
	var refused, absent, late []string
	for _, z := range r.Zones {
		for _, reason := range z.reasons() {
			fmt.Fprintf(f.out, "%s: %s\n", z.Zone, strings.TrimSpace(reason))
		}
		switch {
		case z.Refused:
			refused = append(refused, z.Zone)
		case z.Live:
		case !z.Connected:
			absent = append(absent, z.Zone)
		default:
			late = append(late, z.Zone)
		}
	}
	line := fmt.Sprintf("revision %d is live on %d of %s in %d of %s", r.Revision, r.Acked, proxies(r.Proxies), r.ZonesLive, count(r.ZonesTotal, "zone"))
	if r.Live && r.LiveSince != nil {
		line += " since " + r.LiveSince.UTC().Format(time.RFC3339Nano)
	}
	fmt.Fprintln(f.out, line)
	if r.Live {
		return nil
	}
	var why []string
	if len(r.Zones) == 0 {
		why = append(why, "there is no enabled zone yet, and zones take it when they connect")
	}
	if len(refused) > 0 {
		why = append(why, "refused in "+strings.Join(refused, ", "))
	}
	if len(late) > 0 {
		why = append(why, "not through in "+strings.Join(late, ", ")+" after "+timeout.String())
	}
	if len(absent) > 0 {
		why = append(why, strings.Join(absent, ", ")+" not connected, to take it on return")
	}
	return fmt.Errorf("change %d is committed but %w: %s", r.Change, errRefused, strings.Join(why, "; "))
}
