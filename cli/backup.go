package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/backup"
)

// silence is how long global may say nothing in the middle of a backup.
const silence = 90 * time.Second

func newBackup(streams Streams) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "backup --out FILE", Short: "Write everything that global holds into a file, while it runs", Args: cobra.NoArgs,
		Long: "Write everything that global holds into a file, while it runs: resources, history, and the keys of certificates and tokens, which\n" +
			"stay sealed. The file is checked while it comes, and there only once it is whole. To restore it, the key file of global (kek in its\n" +
			"data directory) is needed, which is not in it: keep both, apart from each other. An admin's token is needed.",
		Example: "  zoneforge backup --out global-$(date +%F).backup",
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write, for its owner alone; one that is there is replaced (required)")
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		if out == "" {
			return usagef("--out names no file")
		}
		head, counts, err := c.backup(ctx, out)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(streams.Out, "%s: revision %d, %s and %s\n", out, head.Revision, count(int(counts.Resources), "resource"), count(int(counts.Changes), "change"))
		return err
	})
}

// backup writes a file in one step, and only when it is whole.
func (c *client) backup(ctx context.Context, path string) (head backup.Head, counts backup.Counts, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := c.send(ctx, http.MethodGet, "/v1/backup", nil)
	if err != nil {
		return head, counts, err
	}
	defer response.Body.Close()
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // for the owner alone
	if err != nil {
		return head, counts, fmt.Errorf("write the backup: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buffered := bufio.NewWriterSize(f, 64<<10)
	watched := &watchdog{in: response.Body, timer: time.AfterFunc(silence, cancel)}
	defer watched.timer.Stop()
	head, counts, err = backup.Check(io.TeeReader(watched, buffered))
	switch {
	case watched.failed != nil && ctx.Err() == nil:
		return head, counts, fmt.Errorf("the backup broke off: %w", c.explain(watched.failed))
	case watched.failed != nil:
		return head, counts, fmt.Errorf("the backup broke off: %w", context.Cause(ctx))
	case err != nil:
		return head, counts, err
	}
	if err = errors.Join(buffered.Flush(), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return head, counts, fmt.Errorf("write the backup: %w", err)
	}
	return head, counts, nil
}

// watchdog ends a stream that goes silent, and remembers how a stream failed.
type watchdog struct {
	in     io.Reader
	timer  *time.Timer
	failed error
}

func (w *watchdog) Read(p []byte) (int, error) {
	n, err := w.in.Read(p)
	if n > 0 {
		w.timer.Reset(silence)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		w.failed = err
	}
	return n, err
}
