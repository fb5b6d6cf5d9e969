// Command zoneforge is the one binary of the product. This package only wires: it turns signals into a context and the
// result of a command into an exit code. It never holds behaviour of its own.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/zoneforge/zoneforge/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}
