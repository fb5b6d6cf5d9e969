package zone

import (
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/gossip"
)

// A replica steps aside only while it is cut off from global and another one that lives is not, and has what it lacks.
func TestWhoIsBehindStepsAside(t *testing.T) {
	said := map[string]introduction{"b": {Replica: "b", Epoch: "e", Revision: 7, Connected: true}, "d": {Replica: "d", Epoch: "e", Revision: 9}}
	cut := introduction{Epoch: "e", Revision: 6}
	for _, c := range []struct {
		name    string
		self    introduction
		members []string
		want    bool
	}{
		{"behind one that has global", cut, []string{"b"}, true},
		{"alone", cut, nil, false},
		{"behind one that is cut off, too", cut, []string{"d"}, false},
		{"as far as the other", introduction{Epoch: "e", Revision: 7}, []string{"b", "d"}, false},
		{"of another epoch", introduction{Epoch: "f", Revision: 99}, []string{"b"}, true},
		{"catching up by itself", introduction{Epoch: "e", Revision: 6, Connected: true}, []string{"b"}, false},
	} {
		a := aside{log: zap.NewNop()}
		var members []gossip.Member
		for _, m := range c.members {
			members = append(members, gossip.Member{Name: m})
		}
		now := time.Unix(1, 0)
		a.judge(c.self, members, said, now)
		a.judge(c.self, members, said, now.Add(behindFor-1))
		if a.on.Load() {
			t.Errorf("%s: it steps aside at once", c.name)
		}
		a.judge(c.self, members, said, now.Add(behindFor))
		if a.on.Load() != c.want {
			t.Errorf("%s: aside is %v", c.name, a.on.Load())
		}
		a.judge(introduction{Epoch: "e", Revision: 7, Connected: true}, members, said, now.Add(behindFor))
		if a.on.Load() {
			t.Errorf("%s: it stays aside when it has global again", c.name)
		}
	}
}

func TestAsideLetsNobodyIn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := aside{log: zap.NewNop()}
	a.on.Store(true)
	accepted := make(chan net.Conn)
	go func() {
		conn, err := asideListener{l, &a}.Accept()
		if err == nil {
			accepted <- conn
		}
	}()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := out.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection while it is aside ends with %v", err)
	}
	a.on.Store(false)
	in, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	select {
	case conn := <-accepted:
		_ = conn.Close()
	case <-time.After(time.Minute):
		t.Error("nobody is let in again")
	}
}
