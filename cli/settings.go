package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/config"
)

func newConfig(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Keep how this client reaches global",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	set := &cobra.Command{
		Use:     "set",
		Short:   "Keep address, CA and token file for the next commands",
		Example: "  zoneforge config set --address https://global.example.com:5682 --ca global-ca.crt --token-file ~/ann.token",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := config.ClientFile(cmd.Flags())
			if err != nil {
				return refusal{err}
			}
			kept, err := config.ReadClient(path)
			if err != nil {
				return refusal{err}
			}
			changed := false
			for flag, to := range map[string]*string{"address": &kept.Address, "ca": &kept.CA, "token-file": &kept.TokenFile} {
				if f := cmd.Flags().Lookup(flag); f.Changed {
					*to, changed = f.Value.String(), true
				}
			}
			if !changed {
				return usagef("say what to keep: --address, --ca or --token-file; an empty value forgets it")
			}
			if cmd.Flags().Changed("token-file") {
				kept.Token = "" // else it would win
			}
			if err := config.WriteClient(path, kept); err != nil {
				return refusal{err}
			}
			_, err = fmt.Fprintf(streams.Out, "kept in %s\n", path)
			return err
		},
	}
	config.ClientFlags(set.Flags())
	show := &cobra.Command{
		Use:   "show",
		Short: "Print what holds for commands that are run here, without secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := config.ClientFile(cmd.Flags())
			if err != nil {
				return refusal{err}
			}
			settings, _, err := config.LoadClient(cmd.Flags())
			if err != nil {
				return err
			}
			t := &table{heading: []string{"file", path}}
			for _, e := range config.Entries(&settings) {
				t.add(e.Name, e.Value)
			}
			return t.print(streams.Out, "")
		},
	}
	config.ClientFlags(show.Flags())
	cmd.AddCommand(set, show)
	return cmd
}

// versionTimeout is short: the client's own version is what people mostly want to know.
const versionTimeout = 5 * time.Second

func newVersion(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program, and of global where one is configured",
		Args:  cobra.NoArgs,
	}
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		var server json.RawMessage
		var err error
		if *output == asTable {
			fmt.Fprintf(streams.Out, "zoneforge %s %s %s/%s\n", Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		}
		if c.configured {
			ctx, cancel := context.WithTimeout(ctx, versionTimeout)
			defer cancel()
			err = c.get(ctx, "/v1/version", &server)
		}
		if *output != asTable {
			value := map[string]any{"client": map[string]string{"version": Version, "go": runtime.Version()}}
			if server != nil {
				value["global"] = server
			}
			if printErr := printValue(streams.Out, *output, value); printErr != nil {
				return printErr
			}
			return err
		}
		if err != nil || server == nil {
			return err
		}
		var s struct{ Version, Epoch, Replica string }
		if err := json.Unmarshal(server, &s); err != nil {
			return fmt.Errorf("%s answers with what is no version: %w", c.host, err)
		}
		_, err = fmt.Fprintf(streams.Out, "global %s, replica %s, epoch %s\n", s.Version, s.Replica, s.Epoch)
		return err
	})
}
