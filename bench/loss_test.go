package main

import (
	"strings"
	"testing"
	"time"
)

func TestExplain(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	moves := []move{
		{service: "echo", zone: "east", sent: at(0), live: at(10)},
		{service: "backend", zone: "west", sent: at(100), live: at(110)},
		{service: "echo", zone: "east", sent: at(200), live: at(210)},
	}
	for name, c := range map[string]struct {
		s    sighting
		want string
	}{
		"in force":                   {sighting{at(50), at(51), 0, "echo", "east"}, ""},
		"old while the next is sent": {sighting{at(105), at(108), 0, "echo", "east"}, ""},
		"new before its receipt":     {sighting{at(101), at(103), 1, "backend", "west"}, ""},
		"newest for ever":            {sighting{at(90000), at(90001), 2, "echo", "east"}, ""},
		"workers just after":         {sighting{at(150), at(151), 0, "echo", "east"}, ""},
		"old after the next is live": {sighting{at(250), at(251), 0, "echo", "east"}, "after the next was live"},
		"new before it was sent":     {sighting{at(98), at(99), 1, "backend", "west"}, "before it was sent"},
		"other service":              {sighting{at(50), at(51), 0, "backend", "west"}, "answered"},
		"other zone":                 {sighting{at(50), at(51), 0, "echo", "west"}, "answered"},
		"no such move":               {sighting{at(50), at(51), 3, "echo", "east"}, "never made"},
	} {
		err := explain(moves, c.s)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if got := late(moves, sighting{began: at(115), mark: 0}); got != 5*time.Millisecond {
		t.Errorf("late by %s, want 5ms", got)
	}
}
