package main

import (
	"context"
	"runtime/debug"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/cli"
	"github.com/zoneforge/zoneforge/config"
	"github.com/zoneforge/zoneforge/zone"
)

func newZone(streams cli.Streams) *cobra.Command {
	var settings config.Zone
	cmd := &cobra.Command{
		Use:   "run --name ZONE --global HOST:PORT --global-ca FILE --token-file FILE",
		Short: "Run a zone control plane",
		Long: "Run a zone control plane: it takes policies from global and configures the Envoys of its zone.\n" +
			"What it has is kept in its data directory, so that it serves without global. Proxies are given tls/server-ca.crt.\n" +
			"Exits 0 after an orderly stop, 1 when it failed, 2 on wrong usage.",
		Example: "  zoneforge zone run --name east --global global.example.com:5685 --global-ca global-ca.crt --token-file east.token",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := config.Load(&settings, cmd.Flags()); err != nil {
				return err
			}
			log, err := newLogger(streams.Err, settings.Log)
			if err != nil {
				return err
			}
			stop, err := profile(settings.DebugAddress, log)
			if err != nil {
				return cli.Exit(cli.ExitRefused, err)
			}
			defer stop()
			return cli.Exit(cli.ExitRefused, runZone(cmd.Context(), settings, log))
		},
	}
	config.Flags(cmd.Flags(), &settings)
	return group("zone", "Run a zone control plane", cmd)
}

func runZone(ctx context.Context, c config.Zone, log *zap.Logger) error {
	z, err := zone.New(zone.Config{
		Name: c.Name, DataDir: c.DataDir, GlobalAddresses: c.Global, GlobalCAFile: c.GlobalCAFile, TokenFile: c.TokenFile,
		XDSAddress: c.XDSAddress, RESTAddress: c.RESTAddress, MetricsTokenFile: c.MetricsToken,
		Hosts: c.Hosts, TLSCertFile: c.TLSCertFile, TLSKeyFile: c.TLSKeyFile,
		Version: cli.Version, Replica: c.Replica, Logger: log,
		Gossip: zone.Gossip{Address: c.GossipAddress, Advertise: c.GossipAdvertise, Join: c.GossipJoin, KeyFile: c.GossipKeyFile},
		Rests:  debug.FreeOSMemory, Returning: newGrowth().returning, EndpointGrace: c.EndpointGrace, SVIDLifetime: c.SVIDLifetime, Limits: zone.Limits{Connections: c.Connections, StreamRate: c.StreamRate},
	})
	if err != nil {
		return err
	}
	return z.Run(ctx)
}
