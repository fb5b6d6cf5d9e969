package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/resource"
)

func newToken(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Issue and revoke tokens",
		Long:  "Issue and revoke tokens. A token goes to standard output alone, or into the file that --out names, for its owner only.",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenUser(streams), newTokenZone(streams), newTokenIngress(streams), newTokenDataplane(streams), newRevoke(streams), newRotateKey(streams), newRetireKey(streams))
	return cmd
}

// issue is a command that asks for a token of one sort; body gives what is asked for.
func issue(streams Streams, what, standard string, cmd *cobra.Command, body func(args []string) (map[string]any, error)) *cobra.Command {
	var ttl time.Duration
	var out string
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long it lives (default "+standard+")")
	cmd.Flags().StringVar(&out, "out", "", "file to write the token to, for its owner only")
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		request, err := body(args)
		if err != nil {
			return err
		}
		if ttl < 0 {
			return usagef("--ttl %s: a token lives longer than 0s", ttl)
		}
		if ttl > 0 {
			request["ttl"] = ttl.String()
		}
		var issued struct {
			Token   string     `json:"token"`
			ID      string     `json:"id"`
			Expires *time.Time `json:"expires"`
		}
		if err := c.do(ctx, http.MethodPost, path("v1", "tokens", what), request, &issued); err != nil {
			return err
		}
		if issued.Token == "" {
			return fmt.Errorf("%s answers without a token", c.host)
		}
		if out != "" {
			if err := writePrivate(out, issued.Token+"\n"); err != nil {
				return err
			}
			fmt.Fprintf(streams.Out, "token %s is written to %s; it lives until %s\n", issued.ID, out, moment(issued.Expires))
			return nil
		}
		fmt.Fprintf(streams.Err, "token %s lives until %s\n", issued.ID, moment(issued.Expires))
		_, err = fmt.Fprintln(streams.Out, issued.Token)
		return err
	})
}

// writePrivate replaces a file in one step, for its owner alone.
func writePrivate(path, content string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func newTokenUser(streams Streams) *cobra.Command {
	var role string
	var meshes []string
	cmd := &cobra.Command{
		Use: "user NAME --role ROLE", Short: "Issue a token for a person or a program that uses the API", Args: cobra.ExactArgs(1),
		Example: "  zoneforge token user ann --role writer --mesh default",
	}
	cmd.Flags().StringVar(&role, "role", "", "admin, writer or viewer (required)")
	cmd.Flags().StringSliceVarP(&meshes, "mesh", "m", nil, "mesh that a writer may write in (may be repeated)")
	return issue(streams, "user", "24h", cmd, func(args []string) (map[string]any, error) {
		if role == "" {
			return nil, usagef("say by --role what the token may do: admin, writer or viewer")
		}
		request := map[string]any{"name": args[0], "role": role}
		if len(meshes) > 0 {
			request["meshes"] = meshes
		}
		return request, nil
	})
}

func newTokenZone(streams Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "zone ZONE", Short: "Issue the token by which a zone control plane connects", Args: cobra.ExactArgs(1)}
	return issue(streams, "zone", "8760h", cmd, func(args []string) (map[string]any, error) {
		return map[string]any{"zone": args[0]}, nil
	})
}

func newTokenIngress(streams Streams) *cobra.Command {
	cmd := &cobra.Command{Use: "zone-ingress ZONE", Short: "Issue the token of a zone's ingress", Args: cobra.ExactArgs(1)}
	return issue(streams, "zone-ingress", "720h", cmd, func(args []string) (map[string]any, error) {
		return map[string]any{"zone": args[0]}, nil
	})
}

func newTokenDataplane(streams Streams) *cobra.Command {
	var mesh, zone string
	var services, tags []string
	cmd := &cobra.Command{
		Use: "dataplane", Short: "Issue the token of a sidecar or a gateway", Args: cobra.NoArgs,
		Long:    "Issue the token of a sidecar or a gateway. Without --service, --tag or --zone it isn't limited by them.",
		Example: "  zoneforge token dataplane --mesh default --service web --out web.token",
	}
	cmd.Flags().StringVarP(&mesh, "mesh", "m", resource.DefaultMesh, "mesh of the proxy")
	cmd.Flags().StringSliceVar(&services, "service", nil, "service that it may be (may be repeated)")
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "KEY=VALUE that its tags may have (may be repeated)")
	cmd.Flags().StringVar(&zone, "zone", "", "zone that it may connect to")
	return issue(streams, "dataplane", "720h", cmd, func([]string) (map[string]any, error) {
		request := map[string]any{"mesh": mesh}
		if len(services) > 0 {
			request["services"] = services
		}
		if zone != "" {
			request["zone"] = zone
		}
		allowed := map[string][]string{}
		for _, tag := range tags {
			key, value, ok := strings.Cut(tag, "=")
			if !ok || key == "" || value == "" {
				return nil, usagef("--tag %q: write it as KEY=VALUE", tag)
			}
			allowed[key] = append(allowed[key], value)
		}
		if len(allowed) > 0 {
			request["tags"] = allowed
		}
		return request, nil
	})
}

func newRevoke(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke FILE|-", Short: "Refuse a token from now on", Args: cobra.ExactArgs(1),
		Long: "Refuse a token from now on. The token is read from a file or from standard input, so that it is in no command's history.",
	}
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		var data []byte
		var err error
		if args[0] == "-" {
			data, err = readBounded("standard input", streams.In)
		} else {
			data, err = readFile(args[0])
		}
		if err != nil {
			return err
		}
		token := strings.TrimSpace(string(data))
		if token == "" || strings.ContainsAny(token, " \t\r\n") {
			return fmt.Errorf("%s holds no token; it must hold one line", cmp.Or(strings.TrimPrefix(args[0], "-"), "standard input"))
		}
		if err := c.do(ctx, http.MethodPost, "/v1/tokens/revocations", map[string]string{"token": token}, nil); err != nil {
			return err
		}
		_, err = fmt.Fprintln(streams.Out, "the token is revoked")
		return err
	})
}

func newRotateKey(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate-key PURPOSE", Short: "Make the key that signs tokens from now on", Args: cobra.ExactArgs(1),
		Long: "Make the key that signs tokens of a purpose (user, zone or dataplane) from now on, and print its id. Tokens of the keys before stay good\n" +
			"until those are retired: issue what is still needed anew, then retire them.",
		Example: "  zoneforge token rotate-key dataplane",
	}
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		var made struct{ ID string }
		if err := c.do(ctx, http.MethodPost, "/v1/tokens/keys", map[string]string{"purpose": args[0]}, &made); err != nil {
			return err
		}
		_, err := fmt.Fprintln(streams.Out, made.ID)
		return err
	})
}

func newRetireKey(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "retire-key ID", Short: "Refuse all tokens that a key signed", Args: cobra.ExactArgs(1),
		Long: "Refuse all tokens that a key signed, from now on. The newest key of a purpose can't be retired: rotate first. Ids and times are in\n" +
			"`zoneforge get signing-keys -o yaml`. Mind your own token: when the key of users is retired, take one of the new key before.",
	}
	return verb(cmd, func(ctx context.Context, c *client, args []string) error {
		if err := c.do(ctx, http.MethodDelete, "/v1/tokens/keys/"+url.PathEscape(args[0]), nil, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(streams.Out, "the key is retired")
		return err
	})
}
