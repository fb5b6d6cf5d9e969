// Command zoneforge is the one binary of the product. This package only wires: it turns signals into a context, settings
// into the configuration of a process, and the result of a command into an exit code. It never holds behaviour of its own.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/cli"
)

func main() {
	os.Exit(run(cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:]))
}

func run(streams cli.Streams, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second signal ends the process at once: a person who presses Ctrl-C again means it.
	defer context.AfterFunc(ctx, stop)()
	return cli.Main(ctx, streams, args, newDataplane(streams), newGlobal(streams), newRestore(streams), newZone(streams), newDemo(streams))
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(commands...)
	return cmd
}
