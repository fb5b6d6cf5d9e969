// Package cli owns the verbs that people and scripts call: it reads files, prints results and maps errors to exit codes.
// It never reaches into a control plane: it speaks REST only, what it validates offline it leaves to package resource, and
// the commands that run processes are handed to it.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// Exit codes, on which scripts may rely.
const (
	ExitDone    = 0
	ExitRefused = 1 // refused or failed
	ExitUsage   = 2
)

// Version is the software's version; the build sets it.
var Version = "unknown"

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// errReported marks a failure whose words are printed already.
var errReported = errors.New("reported")

// refusal is a failure of the work itself, against one of usage.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// Exit gives a command's error an exit code; without one a command's error is one of usage. A nil error stays nil.
func Exit(code int, err error) error {
	if err == nil {
		return nil
	}
	return exitError{err, code}
}

// Main runs one command line, without the program's name, and returns its exit code. Commands are those that this package
// doesn't own.
func Main(ctx context.Context, streams Streams, args []string, commands ...*cobra.Command) int {
	root := newRoot(streams)
	root.AddCommand(commands...)
	if args == nil {
		args = []string{} // for cobra nil means the program's own arguments
	}
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintf(streams.Err, "zoneforge: %v\n", err)
	}
	var exit exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	var refused refusal
	if errors.As(err, &refused) {
		return ExitRefused
	}
	fmt.Fprintln(streams.Err, "Run zoneforge --help for what can be said.")
	return ExitUsage
}

func newRoot(streams Streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "zoneforge",
		Short:         "A multi-zone control plane for Envoy gateways and service meshes",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newApply(streams), newAudit(streams), newBackup(streams), newCA(streams), newConfig(streams), newDelete(streams), newDiff(streams), newDoctor(streams), newGet(streams), newHistory(streams),
		newInspect(streams), newKEK(streams), newRollback(streams), newShow(streams), newToken(streams), newValidate(streams), newVersion(streams))
	return root
}
