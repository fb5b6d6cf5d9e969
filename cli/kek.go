package cli

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// sealedBy is which keys seal the secrets of global.
type sealedBy struct {
	Keys []string `json:"keys"`
	Uses []struct {
		Key       string `json:"key"`
		Resources int    `json:"resources"`
		Changes   int    `json:"changes"`
	} `json:"uses"`
	Alone    bool                `json:"alone"`
	Replicas map[string][]string `json:"replicas"`
}

func newKEK(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "kek", Short: "See which keys seal secrets at rest, and replace them", Args: cobra.NoArgs,
		Long: "See which keys of its key file (kek) global seals secrets with, and replace them. Keys are named by what tells nothing of them. A key file holds\n" +
			"one key a line: the first seals, all open.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKEKStatus(streams), newKEKRotate(streams), newKEKReseal(streams), newKEKRetire(streams))
	return cmd
}

func newKEKStatus(streams Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show the keys, what each has sealed, and which replicas have it", Args: cobra.NoArgs}
	output := formatFlag(cmd)
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		var s sealedBy
		if err := c.get(ctx, "/v1/kek", &s); err != nil {
			return err
		}
		if *output != asTable {
			return printValue(streams.Out, *output, s)
		}
		t := &table{heading: []string{"KEY", "USE", "RESOURCES", "CHANGES", "REPLICAS"}}
		keys := slices.Clone(s.Keys)
		for _, u := range s.Uses {
			if !slices.Contains(keys, u.Key) {
				keys = append(keys, u.Key)
			}
		}
		for _, key := range keys {
			resources, changes := s.sealedWith(key)
			t.add(key, s.use(key), resources, changes, strings.Join(s.holders(key), ", "))
		}
		return t.print(streams.Out, "no keys")
	})
}

func (s sealedBy) sealedWith(key string) (resources, changes int) {
	for _, u := range s.Uses {
		if u.Key == key {
			return u.Resources, u.Changes
		}
	}
	return 0, 0
}

func (s sealedBy) use(key string) string {
	switch at := slices.Index(s.Keys, key); {
	case at < 0:
		return "MISSING"
	case at == 0:
		return "seals"
	}
	return "opens"
}

func (s sealedBy) holders(key string) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(s.Replicas)) {
		if slices.Contains(s.Replicas[name], key) {
			out = append(out, name)
		}
	}
	return out
}

func newKEKRotate(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate", Short: "Replace the key that seals secrets, and seal all of them anew", Args: cobra.NoArgs,
		Long: "Replace the key that seals secrets: global makes another one in its key file, seals all secrets, root keys, signing keys and the history\n" +
			"anew, and takes the former key out of the file once nothing needs it. When it was interrupted, it goes on from there. Backups of before\n" +
			"need the former key: keep it as long as them.\n\n" +
			"Where global runs on a cluster of etcd, and may have replicas, the key is made in the file of the one that is asked, where it only opens, and you are told how to go on.",
	}
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error {
		var s sealedBy
		if err := c.get(ctx, "/v1/kek", &s); err != nil {
			return err
		}
		if len(s.Keys) == 1 {
			var made struct{ Key string }
			if err := c.do(ctx, http.MethodPost, "/v1/kek/keys", map[string]any{}, &made); err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "key %s is in the key file\n", made.Key)
		}
		if !s.Alone {
			_, err := fmt.Fprintln(streams.Out, "it opens only: copy the key file to the other replicas, then put its line first in the file of each, wait until `zoneforge kek status`\n"+
				"shows that, `zoneforge kek reseal`, and take the former line out of each file")
			return err
		}
		if err := c.reseal(ctx, streams); err != nil {
			return err
		}
		if err := c.get(ctx, "/v1/kek", &s); err != nil {
			return err
		}
		for _, key := range s.Keys[1:] {
			if err := c.do(ctx, http.MethodDelete, path("v1", "kek", "keys", key), nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "key %s is retired; backups of before need it\n", key)
		}
		return nil
	})
}

// reseal asks until all is sealed with the first key.
func (c *client) reseal(ctx context.Context, streams Streams) error {
	total := 0
	for more := true; more; {
		var did struct {
			Resealed int
			More     bool
		}
		if err := c.do(ctx, http.MethodPost, "/v1/kek/reseal", map[string]any{}, &did); err != nil {
			return err
		}
		total, more = total+did.Resealed, did.More
	}
	_, err := fmt.Fprintf(streams.Out, "%s sealed anew\n", count(total, "value"))
	return err
}

func newKEKReseal(streams Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "reseal", Short: "Seal all secrets with the first key of the key file", Args: cobra.NoArgs,
		Long: "Seal all secrets with the first key of the key file, which all replicas of global must have first. When it was interrupted, it goes on from there."}
	return verb(cmd, func(ctx context.Context, c *client, _ []string) error { return c.reseal(ctx, streams) })
}

func newKEKRetire(streams Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "retire KEY", Short: "Take a key that nothing needs out of the key file", Args: cobra.ExactArgs(1),
		Long: "Take a key that nothing needs out of the key file of the replica that is asked. One with which anything is still sealed stays. Backups of\nbefore need it: keep it as long as them."}
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		if err := c.do(ctx, http.MethodDelete, path("v1", "kek", "keys", args[0]), nil, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(streams.Out, "the key is retired")
		return err
	})
}
