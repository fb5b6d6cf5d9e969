package store

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// A disk without room costs changes, and neither what is there nor the process.
func TestFullDiskRefusesChanges(t *testing.T) {
	cfg := embedded(t)
	s := open(t, cfg)
	if _, err := s.Commit(testContext(t), Change{Ops: []Op{put("a", "1")}}); err != nil {
		t.Fatal(err)
	}
	s.roomToWrite = math.MaxUint64
	_, err := s.Commit(testContext(t), Change{Ops: []Op{put("b", "1")}})
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), cfg.DataDir) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("a change without room gives %v", err)
	}
	s.roomToWrite = roomToWrite
	if _, err := s.Commit(testContext(t), Change{Ops: []Op{put("b", "1")}}); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}
