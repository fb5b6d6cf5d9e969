package gossip

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"go.uber.org/zap"
)

// ReadKeys reads AES keys of 16, 24 or 32 bytes from a file: in base64, one a line. The first encrypts, all decrypt. Errors never
// quote the file.
func ReadKeys(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("gossip: keys: %w", err)
	}
	var keys [][]byte
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if n := len(key); err != nil || n != 16 && n != 24 && n != 32 {
			return nil, fmt.Errorf("gossip: keys: line %d of %s is no key of 16, 24 or 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64", len(keys)+1, path)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("gossip: keys: %s holds none; make one with: head -c 32 /dev/urandom | base64", path)
	}
	return keys, nil
}

// FollowKeys looks at a file of keys from time to time and rotates to what it holds, until ctx ends. What can't be used is told
// once, and the last keys stay.
func (g *Gossip) FollowKeys(ctx context.Context, path string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last, failing := g.config.Keys, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		keys, err := ReadKeys(path)
		if err == nil && reflect.DeepEqual(keys, last) {
			failing = false
			continue
		}
		if err == nil {
			err = g.Rotate(keys)
		}
		if err != nil {
			if !failing {
				g.config.Logger.Error("keys of the replicas cannot be read", zap.Error(err))
			}
			failing = true
			continue
		}
		last, failing = keys, false
		g.config.Logger.Info("keys of the replicas rotated", zap.Int("count", len(keys)))
	}
}
