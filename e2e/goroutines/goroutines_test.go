package goroutines

import (
	"strings"
	"testing"
	"time"
)

func left(begun chan<- struct{}, end <-chan struct{}) {
	close(begun)
	<-end
}

// TestAwait has a goroutine that stays, and ends while it is waited for.
func TestAwait(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	go left(begun, end)
	<-begun
	if err := await(0); err == nil || !strings.Contains(err.Error(), "goroutines.left") {
		t.Fatalf("one that stays: %v", err)
	}
	time.AfterFunc(time.Second, func() { close(end) })
	if err := await(patience); err != nil {
		t.Fatal(err)
	}
}
