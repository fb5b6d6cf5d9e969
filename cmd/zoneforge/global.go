package main

import (
	"context"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/cli"
	"github.com/zoneforge/zoneforge/config"
	"github.com/zoneforge/zoneforge/global"
	"github.com/zoneforge/zoneforge/xds"
)

func newGlobal(streams cli.Streams) *cobra.Command {
	var settings config.Global
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a replica of the global control plane",
		Long: "Run a replica of the global control plane: the REST API, and the streams of zones.\n" +
			"On the first start a token of an admin is written to admin-token in the data directory; clients are given tls/server-ca.crt.\n" +
			"Exits 0 after an orderly stop, 1 when it failed, 2 on wrong usage.",
		Example: "  zoneforge global run --data-dir /var/lib/zoneforge/global --hosts global.example.com",
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
			return cli.Exit(cli.ExitRefused, runGlobal(cmd.Context(), settings, log))
		},
	}
	config.Flags(cmd.Flags(), &settings)
	return group("global", "Run the global control plane", cmd)
}

func runGlobal(ctx context.Context, c config.Global, log *zap.Logger) error {
	g, err := newGlobalOf(c, log)
	if err != nil {
		return err
	}
	return g.Run(ctx)
}

// newGlobalOf makes a replica from its settings.
func newGlobalOf(c config.Global, log *zap.Logger) (*global.Global, error) {
	return global.New(global.Config{
		DataDir:       c.DataDir,
		EtcdEndpoints: c.EtcdEndpoints,
		EtcdTLS:       global.EtcdTLS{CA: c.EtcdCAFile, Cert: c.EtcdCertFile, Key: c.EtcdKeyFile},
		EtcdUsername:  c.EtcdUsername, EtcdPassword: string(c.EtcdPassword),
		KeyEncryptionKeyFile: c.KeyEncryptionKeyFile,
		RESTAddress:          c.RESTAddress, KDSAddress: c.KDSAddress,
		Hosts: c.Hosts, TLSCertFile: c.TLSCertFile, TLSKeyFile: c.TLSKeyFile,
		Domain: c.Domain, TrustLoopback: c.TrustLoopback, Replica: c.Replica, Version: cli.Version, RootSettle: c.RootSettle, Logger: log,
		Gossip: global.Gossip{Address: c.GossipAddress, Advertise: c.GossipAdvertise, Join: c.GossipJoin, KeyFile: c.GossipKeyFile}, PeerAddress: c.PeerAddress,
		HeartbeatInterval: c.HeartbeatInterval, Schema: xds.Schema{},
		Limits: global.Limits{RESTRate: c.RESTRate, RESTConcurrency: c.RESTConcurrency, RESTConnections: c.RESTConnections, KDSConnections: c.KDSConnections, StreamRate: c.StreamRate},
	})
}
