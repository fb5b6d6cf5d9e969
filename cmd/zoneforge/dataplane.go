package main

import (
	"errors"
	"math"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/cli"
	"github.com/zoneforge/zoneforge/config"
	"github.com/zoneforge/zoneforge/dataplane"
)

// Exit codes of `dataplane run` beyond those of all commands.
const (
	exitInput = 3
	exitEnvoy = 4
)

func newDataplane(streams cli.Streams) *cobra.Command {
	var settings config.Dataplane
	cmd := &cobra.Command{
		Use:   "run --file DOCUMENT --zone HOST:PORT --ca FILE --token-file FILE",
		Short: "Run Envoy beside a workload, as a gateway or as a zone ingress",
		Long: "Run Envoy as the proxy that a document of a Dataplane or ZoneIngress describes, configured by its zone.\n" +
			"Envoy is restarted when it crashes. SIGTERM drains: Envoy ends when no connection is left, or when the drain is over.\n" +
			"Exits 0 after an orderly stop, 1 when it failed, 2 on wrong usage, 3 when document, CA or token cannot be used,\n" +
			"4 when there is no Envoy of the series " + dataplane.EnvoyVersion + ".",
		Example: "  zoneforge dataplane run --file web-1.yaml --zone zone.example.com:5678 --ca zone-ca.crt --token-file web.token",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := config.Load(&settings, cmd.Flags()); err != nil {
				return err
			}
			log, err := newLogger(streams.Err, settings.Log)
			if err != nil {
				return err
			}
			drain := settings.Drain
			if drain == 0 {
				drain = -1 // the launcher's word for not at all
			}
			err = dataplane.Launch{
				File: settings.File, Select: settings.Select, In: streams.In,
				Zone: settings.Zone, CAFile: settings.CAFile, ServerName: settings.ServerName, TokenFile: settings.TokenFile,
				Envoy: settings.Envoy, EnvoyLog: settings.EnvoyLog, WorkDir: settings.WorkDir, Drain: drain,
				MaxConnections: uint32(min(settings.MaxConns, math.MaxUint32)), Version: cli.Version, Stdout: streams.Out, Stderr: streams.Err, Log: log,
			}.Run(cmd.Context())
			switch {
			case errors.Is(err, dataplane.ErrInput):
				return cli.Exit(exitInput, err)
			case errors.Is(err, dataplane.ErrEnvoy):
				return cli.Exit(exitEnvoy, err)
			}
			return cli.Exit(cli.ExitRefused, err)
		},
	}
	config.Flags(cmd.Flags(), &settings)
	return group("dataplane", "Run Envoy beside a workload", cmd)
}
