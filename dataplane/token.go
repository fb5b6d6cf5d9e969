package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
)

// tokenInterval is how often a token file is looked at. A token is renewed long before its end, so this is on no path
// that anybody waits for.
const tokenInterval = 2 * time.Second

// tokenCopy keeps a copy of a token without the white space around it: Envoy sends its file as it is, and a line's end
// in a header breaks the stream, with no word that tells why.
type tokenCopy struct {
	from, to string
	log      *zap.Logger
	// last is what from held when it was last looked at, good or bad, so that each change is told of once.
	last []byte
}

// update copies a token that has changed. The error wraps ErrInput, and leaves the copy as it is.
func (c *tokenCopy) update() error {
	data, err := os.ReadFile(c.from)
	if err != nil {
		return fmt.Errorf("%w: token file: %w", ErrInput, err)
	}
	if c.last != nil && bytes.Equal(data, c.last) {
		return nil
	}
	c.last = data
	token := strings.TrimSpace(string(data))
	if err := checkToken(token); err != nil {
		return fmt.Errorf("%w: token file %s %w", ErrInput, c.from, err)
	}
	f, err := os.CreateTemp(filepath.Dir(c.to), ".token-*") // for the owner alone
	if err != nil {
		return fmt.Errorf("copy the token: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(token)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), c.to)
	}
	if err != nil {
		return fmt.Errorf("copy the token: %w", err)
	}
	return nil
}

// follow copies each new token until ctx ends. A token that cannot be used leaves the one before in force.
func (c *tokenCopy) follow(ctx context.Context) {
	ticker := time.NewTicker(tokenInterval)
	defer ticker.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch err := c.update(); {
		case err == nil:
			told = ""
		case err.Error() != told:
			told = err.Error()
			c.log.Warn("the token file cannot be used, the token before stays", zap.Error(err))
		}
	}
}

func checkToken(token string) error {
	if token == "" || strings.ContainsAny(token, " \t\r\n\x00") {
		return errors.New("holds no token; it must hold one line, from `zoneforge token dataplane` or `zoneforge token zone-ingress`")
	}
	return nil
}
