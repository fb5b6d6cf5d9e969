package global

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki/certfile"
)

// Names in the data directory.
const (
	markName       = "zoneforge.json"
	kekName        = "kek"
	adminTokenName = "admin-token"
	tlsName        = "tls"
	storeName      = "store"
)

const role = "global"

// zoneFile is what a zone's data directory holds.
const zoneFile = "state.db"

// ErrDataDir says that a data directory belongs to something else.
var ErrDataDir = errors.New("data directory is not this control plane's")

// mark says whose directory it is.
type mark struct {
	Role   string `json:"role"`
	Epoch  string `json:"epoch"`
	Domain string `json:"domain"`
	// Revision of the epoch that was seen, by which a store that a backup was restored to is found.
	Revision int64 `json:"revision,omitempty"`
}

// openDir makes the data directory, and reads its mark; nil when it is new.
func openDir(dir string) (*mark, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("global: make data directory: %w; choose one that is writable", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, markName))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, zoneFile)); err == nil {
			return nil, fmt.Errorf("global: %s: %w: it holds a zone's state; choose another data-dir", dir, ErrDataDir)
		}
		return nil, closeDir(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("global: data directory: %w", err)
	}
	var m mark
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("global: %s is damaged: %w; delete it when the directory is this control plane's", filepath.Join(dir, markName), err)
	}
	if m.Role != role {
		return nil, fmt.Errorf("global: %s: %w: it is that of a %s; choose another data-dir", dir, ErrDataDir, m.Role)
	}
	return &m, closeDir(dir)
}

// closeDir closes the directory to others.
func closeDir(dir string) error {
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("global: close data directory to others: %w; choose one that belongs to this user", err)
	}
	return nil
}

// fits compares the mark with what is to be run from the directory. A store that was restored is also its ancestors'.
func (m *mark) fits(dir string, snap *store.Snapshot, domain string) error {
	if m.Domain != domain {
		return fmt.Errorf("global: %s: %w: it is of the federation %q, not %q; set domain to %q, or choose another data-dir",
			dir, ErrDataDir, m.Domain, domain, m.Domain)
	}
	if !snap.Follows(m.Epoch) {
		return fmt.Errorf("global: %s: %w: it belongs to the store of epoch %s, but the store here is of epoch %s; choose another data-dir or "+
			"another etcd, or delete %s when the store is meant to be this one", dir, ErrDataDir, m.Epoch, snap.Epoch(), markName)
	}
	return nil
}

func (m mark) write(dir string) error {
	b, err := json.Marshal(m)
	if err == nil {
		err = certfile.Write(filepath.Join(dir, markName), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("global: %w", err)
	}
	return nil
}

// rememberEvery is how often the mark is written at most.
const rememberEvery = time.Second

// remember keeps the newest state of the store in the mark until ctx ends, and then returns nil. That it can't be written only
// means that a backup that is restored is found later.
func (g *Global) remember(ctx context.Context, s *store.Store) error {
	failing := false
	for {
		snap := s.Snapshot()
		err := mark{Role: role, Epoch: snap.Epoch(), Domain: g.cfg.Domain, Revision: snap.Revision()}.write(g.cfg.DataDir)
		if err != nil && !failing {
			g.log.Error("revision of the store cannot be noted", zap.Error(err))
		}
		failing = err != nil
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-snap.Stale():
			rest := time.NewTimer(rememberEvery)
			select {
			case <-ctx.Done():
				rest.Stop()
			case <-rest.C:
			}
		}
	}
}

// openKey opens the key-encryption key, and makes it in a new directory; made tells so. A key that is gone is not replaced,
// as nothing could be opened by a new one.
func openKey(path string, known bool) (key *store.KeyFile, made bool, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if known {
			return nil, false, fmt.Errorf("global: key file %s is gone, and the secrets in the store cannot be read without it; restore it from a backup", path)
		}
		made = true
	}
	key, err = store.OpenKeyFile(path)
	return key, made, err
}
