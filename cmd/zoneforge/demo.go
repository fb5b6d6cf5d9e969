package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/cli"
	"github.com/zoneforge/zoneforge/deploy/demo"
)

func newDemo(streams cli.Streams) *cobra.Command {
	options := demo.Options{Out: streams.Out}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a whole federation on this machine",
		Long: "Run a whole federation on this machine: global with its own etcd, zones with gateways, zone ingresses and workloads,\n" +
			"all real processes with real Envoys on loopback, and print what runs where and what to try.\n" +
			"With --check, send the demo's requests, print a result a line, and exit 0 or 1 with nothing left running.\n" +
			"With --tour, apply the policies of each function of the gateway in turn, and show its requests and their answers.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			binary, err := os.Executable()
			if err != nil {
				return cli.Exit(cli.ExitRefused, err)
			}
			options.Binary = binary
			return cli.Exit(cli.ExitRefused, demo.Run(cmd.Context(), options))
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Zones, "zones", 2, "zones to run, 2 to 8")
	flags.BoolVar(&options.Check, "check", false, "send the demo's requests and end")
	flags.BoolVar(&options.Tour, "tour", false, "show each function of the gateway with its request and answer, and end; with --check a line each")
	flags.StringVar(&options.Dir, "dir", "", "folder for everything that is kept (default: a temporary one, removed in the end)")
	flags.StringVar(&options.Network, "network", "127.0", "first two numbers of the loopback addresses to use")
	flags.StringVar(&options.Envoy, "envoy", "", "path of Envoy (default: .tools/bin/envoy, then PATH)")
	cmd.AddCommand(newEcho())
	return cmd
}

// newEcho is the demo's workload; it is a process of its own, as workloads are.
func newEcho() *cobra.Command {
	var echo demo.Echo
	cmd := &cobra.Command{
		Use:    "echo",
		Short:  "Run a workload of the demo",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.Exit(cli.ExitRefused, echo.Serve(cmd.Context()))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&echo.Listen, "listen", "127.0.0.1:8080", "address to listen on")
	flags.StringVar(&echo.Who.Service, "service", "echo", "name of the service")
	flags.StringVar(&echo.Who.Version, "version", "", "version of the service")
	flags.StringVar(&echo.Who.Zone, "zone", "", "zone it runs in")
	flags.StringVar(&echo.Who.Proxy, "proxy", "", "name of its proxy")
	flags.StringVar(&echo.GRPC, "grpc", "", "address for gRPC, where it speaks that too")
	flags.StringVar(&echo.Lines, "lines", "", "address for lines over TCP")
	flags.StringVar(&echo.TLS, "tls", "", "address for lines over TLS")
	flags.StringVar(&echo.Certificate, "certificate", "", "file of the certificate and the key for TLS")
	return cmd
}
