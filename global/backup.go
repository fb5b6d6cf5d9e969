package global

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/zoneforge/zoneforge/backup"
	"github.com/zoneforge/zoneforge/global/rest"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki/certfile"
)

// backedUp are the files of the data directory that a backup holds: by them zones and clients know global, so that a new disk needs
// nothing of theirs.
var backedUp = []struct {
	name string
	mode os.FileMode
}{{path.Join(tlsName, certfile.CAKeyFile), 0o600}, {path.Join(tlsName, certfile.CAFile), 0o644}}

// backup makes what writes backups. An operator's server certificate is left to the operator.
func (g *Global) backup(s *store.Store) rest.Backup {
	return func(ctx context.Context, out io.Writer) error {
		var files []backup.File
		for _, f := range backedUp {
			content, err := os.ReadFile(filepath.Join(g.cfg.DataDir, filepath.FromSlash(f.name)))
			if errors.Is(err, fs.ErrNotExist) || g.cfg.TLSCertFile != "" {
				continue
			}
			if err != nil {
				return fmt.Errorf("global: backup: %w", err)
			}
			files = append(files, backup.File{Name: f.name, Content: content})
		}
		_, err := s.Backup(ctx, out, backup.Head{Software: g.cfg.Version, Domain: g.cfg.Domain}, files)
		return err
	}
}

// Restore puts a backup in place of the state of a federation: into the etcd of the data directory, whose global must not run, or into
// the cluster, whose replicas end then and are to be started again. The state gets a new epoch, so that zones accept what they
// had before. A store that holds something is replaced only if replace says so. It comes into force whole or not at all.
func (g *Global) Restore(ctx context.Context, in io.ReadSeeker, replace bool) (store.Restored, error) {
	// All of it is read before anything is touched.
	head, _, err := backup.Check(in)
	if err != nil {
		return store.Restored{}, fmt.Errorf("global: %w", err)
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return store.Restored{}, fmt.Errorf("global: %w", err)
	}
	if head.Domain != g.cfg.Domain {
		return store.Restored{}, fmt.Errorf("global: the backup is of the federation %q, not %q; set domain to %q, as all identities end in it", head.Domain, g.cfg.Domain, head.Domain)
	}
	if _, err := openDir(g.cfg.DataDir); err != nil {
		return store.Restored{}, err
	}
	if _, err := os.Lstat(g.cfg.KeyEncryptionKeyFile); errors.Is(err, fs.ErrNotExist) {
		return store.Restored{}, fmt.Errorf("global: there is no key file %s, and the backup's secrets are sealed with one; put the key file of the global that made the backup there",
			g.cfg.KeyEncryptionKeyFile)
	}
	key, err := store.OpenKeyFile(g.cfg.KeyEncryptionKeyFile)
	if err != nil {
		return store.Restored{}, err
	}
	cfg, _, err := g.storeConfig(key)
	if err != nil {
		return store.Restored{}, err
	}
	done, err := store.Restore(ctx, cfg, in, replace)
	if errors.Is(err, context.DeadlineExceeded) && len(g.cfg.EtcdEndpoints) > 0 {
		err = fmt.Errorf("etcd at %s does not answer; check etcd-endpoints, its certificate files and the cluster: %w", strings.Join(g.cfg.EtcdEndpoints, ", "), err)
	}
	if err != nil {
		return store.Restored{}, fmt.Errorf("global: %w", err)
	}
	return done, g.restoreFiles(done.Files)
}

// restoreFiles writes the files that a data directory lacks.
func (g *Global) restoreFiles(files []backup.File) error {
	if g.cfg.TLSCertFile != "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(g.cfg.DataDir, tlsName, certfile.CAFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil // clients trust what is there
	}
	if err := os.MkdirAll(filepath.Join(g.cfg.DataDir, tlsName), 0o700); err != nil {
		return fmt.Errorf("global: the state is restored, but not the authority of the server certificate: %w", err)
	}
	for _, known := range backedUp {
		for _, f := range files {
			if f.Name != known.name {
				continue
			}
			if err := certfile.Write(filepath.Join(g.cfg.DataDir, filepath.FromSlash(f.Name)), f.Content, known.mode); err != nil {
				return fmt.Errorf("global: the state is restored, but not %s: %w", f.Name, err)
			}
		}
	}
	return nil
}
