package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/backup"
	"github.com/zoneforge/zoneforge/cli"
	"github.com/zoneforge/zoneforge/config"
	"github.com/zoneforge/zoneforge/global/store"
)

func newRestore(streams cli.Streams) *cobra.Command {
	var settings config.Global
	var replace, check bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in place of global's state",
		Long: "Put a backup in place of global's state. It is told where that is as `global run` is: by the same file, variables and flags.\n" +
			"A global with an etcd of its own must be stopped; replicas on a cluster end by themselves and are to be started again. The state gets\n" +
			"a new epoch, so that zones go back to it. It comes into force whole or, when this is interrupted, not at all.\n" +
			"The key file of the global that made the backup must be there. What belongs to the data directory and is in it stays.\n" +
			"Exits 0 when it is done, 1 when it was refused or failed, 2 on wrong usage.",
		Example: "  zoneforge restore --data-dir /var/lib/zoneforge/global global-2026-11-26.backup",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check {
				return cli.Exit(cli.ExitRefused, checkBackup(streams, args[0]))
			}
			if err := config.Load(&settings, cmd.Flags()); err != nil {
				return err
			}
			log, err := newLogger(streams.Err, settings.Log)
			if err != nil {
				return err
			}
			return cli.Exit(cli.ExitRefused, restore(cmd.Context(), streams, settings, log, args[0], replace))
		},
	}
	config.Flags(cmd.Flags(), &settings)
	cmd.Flags().BoolVar(&replace, "replace", false, "give up what the store holds; without it only an empty one is filled")
	cmd.Flags().BoolVar(&check, "check", false, "only read the file and say what it is; nothing else is needed or touched")
	return cmd
}

func restore(ctx context.Context, streams cli.Streams, c config.Global, log *zap.Logger, path string, replace bool) error {
	g, err := newGlobalOf(c, log)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	done, err := g.Restore(ctx, f, replace)
	if errors.Is(err, store.ErrNotEmpty) {
		return fmt.Errorf("%w; make a backup of it if it is worth one, and say --replace to give it up", err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Fprintf(streams.Out, "restored %s: %s\n", path, describe(done.From, done.Counts))
	if done.Replaced > 0 {
		fmt.Fprintf(streams.Out, "it replaces revision %d of epoch %s\n", done.Replaced, done.ReplacedEpoch)
	}
	_, err = fmt.Fprintf(streams.Out, "the store is at revision %d of the new epoch %s; start global. Tokens that were revoked after the backup are valid again: revoke them\n", done.Revision, done.Epoch)
	return err
}

func checkBackup(streams cli.Streams, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head, counts, err := backup.Check(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	_, err = fmt.Fprintf(streams.Out, "%s is whole: %s\n", path, describe(head, counts))
	return err
}

func describe(h backup.Head, n backup.Counts) string {
	return fmt.Sprintf("made on %s by version %s, revision %d of epoch %s, federation %s, %d resources, %d changes",
		h.Time.Format(time.RFC3339), h.Software, h.Revision, h.Epoch, h.Domain, n.Resources, n.Changes)
}
