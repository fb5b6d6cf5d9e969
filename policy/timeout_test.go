package policy

import (
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

var defaultTimeouts = Timeouts{
	Connect: 5 * time.Second, TCPIdle: time.Hour, Request: 15 * time.Second, HTTPIdle: time.Hour, StreamIdle: 30 * time.Minute,
}

func TestMergeTimeout(t *testing.T) {
	with := func(f func(*Timeouts)) Timeouts {
		out := defaultTimeouts
		f(&out)
		return out
	}
	d := durationpb.New
	for _, c := range []struct {
		name string
		conf *meshv1.Timeout_Conf
		want Timeouts
	}{
		{"nothing", nil, defaultTimeouts},
		{"empty sections", &meshv1.Timeout_Conf{Tcp: &meshv1.Timeout_Tcp{}, Http: &meshv1.Timeout_Http{}}, defaultTimeouts},
		{"all", &meshv1.Timeout_Conf{
			ConnectTimeout: d(1), Tcp: &meshv1.Timeout_Tcp{IdleTimeout: d(2)},
			Http: &meshv1.Timeout_Http{RequestTimeout: d(3), IdleTimeout: d(4), StreamIdleTimeout: d(5), MaxStreamDuration: d(6)},
		}, Timeouts{1, 2, 3, 4, 5, 6}},
		{"zero turns off", &meshv1.Timeout_Conf{
			Tcp:  &meshv1.Timeout_Tcp{IdleTimeout: d(0)},
			Http: &meshv1.Timeout_Http{RequestTimeout: d(0), IdleTimeout: d(0), StreamIdleTimeout: d(0)},
		}, Timeouts{Connect: 5 * time.Second}},
		{"but not connecting", &meshv1.Timeout_Conf{ConnectTimeout: d(0)}, defaultTimeouts},
		{"negative", &meshv1.Timeout_Conf{ConnectTimeout: d(-1), Http: &meshv1.Timeout_Http{RequestTimeout: d(-1)}}, defaultTimeouts},
		{"malformed", &meshv1.Timeout_Conf{Tcp: &meshv1.Timeout_Tcp{IdleTimeout: &durationpb.Duration{Seconds: 1 << 60}}}, defaultTimeouts},
		{"one", &meshv1.Timeout_Conf{Http: &meshv1.Timeout_Http{RequestTimeout: d(time.Minute)}},
			with(func(t *Timeouts) { t.Request = time.Minute })},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := MergeTimeout(&meshv1.Timeout{Conf: c.conf}); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestGRPCTimeouts(t *testing.T) {
	unbound := defaultTimeouts
	unbound.Request = 0
	if got := GRPCTimeouts(nil); got != unbound {
		t.Errorf("without a policy: %+v", got)
	}
	if got := GRPCTimeouts(&meshv1.Timeout{Conf: &meshv1.Timeout_Conf{Http: &meshv1.Timeout_Http{}}}); got != unbound {
		t.Errorf("with a policy that says nothing of requests: %+v", got)
	}
	spec := &meshv1.Timeout{Conf: &meshv1.Timeout_Conf{
		Http: &meshv1.Timeout_Http{RequestTimeout: durationpb.New(time.Second), StreamIdleTimeout: durationpb.New(2 * time.Second), MaxStreamDuration: durationpb.New(3 * time.Second)},
		Grpc: &meshv1.Timeout_Grpc{MaxStreamDuration: durationpb.New(0)}}}
	want := defaultTimeouts
	want.Request, want.StreamIdle = time.Second, 2*time.Second
	if got := GRPCTimeouts(spec); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := MergeTimeout(spec); got.MaxStream != 3*time.Second {
		t.Errorf("other HTTP is bound by %+v", got)
	}
}

// A less specific Timeout adds nothing, so that one resource tells all.
func TestMostSpecificTimeout(t *testing.T) {
	from, to := service("web"), service("api")
	in := []*resource.Resource{
		timeout("all", []tags{service("*")}, []tags{service("*")}, &meshv1.Timeout_Conf{ConnectTimeout: durationpb.New(time.Second)}),
		timeout("api", []tags{service("*")}, []tags{to}, &meshv1.Timeout_Conf{
			Http: &meshv1.Timeout_Http{RequestTimeout: durationpb.New(time.Minute)},
		}),
		timeout("zz", []tags{service("*")}, []tags{to}, &meshv1.Timeout_Conf{ConnectTimeout: durationpb.New(time.Hour)}),
	}
	want := defaultTimeouts
	want.Request = time.Minute // and nothing of the two others
	for range 10 {
		got := MergeTimeout(MostSpecificForConnection(in, "default", from, to).Spec.(*meshv1.Timeout))
		if got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		rand.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
	}
}
