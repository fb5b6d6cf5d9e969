package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// Client is how the command line reaches global.
type Client struct {
	Address   string `name:"address" default:"https://localhost:5682" usage:"URL or host:port of global's REST"`
	CA        string `name:"ca" usage:"file of the PEM roots that prove global: tls/server-ca.crt in its data directory"`
	TokenFile string `name:"token-file" usage:"file of the user's token"`
	Token     Secret `name:"token" flag:"no" usage:"the user's token itself"`
}

// clientFlag names the flag and, in capitals, the variable that name the file of the client's settings.
const clientFlag = "client-config"

// ClientFlags defines the flags of the client's settings, and --client-config for their file.
func ClientFlags(flags *pflag.FlagSet) {
	flags.String(clientFlag, "", "file of the client's settings ("+EnvPrefix+"CLIENT_CONFIG); default: client.yaml in the user's folder of zoneforge")
	for _, s := range settings(&Client{}) {
		if !s.noFlag {
			// No default is shown: the variable and the file come first.
			flags.String(s.name, "", s.usage+" ("+s.env()+")")
		}
	}
}

// ClientFile is the path of the client's settings: as --client-config or ZONEFORGE_CLIENT_CONFIG say, or in the user's
// folder. It need not exist.
func ClientFile(flags *pflag.FlagSet) (path string, err error) {
	v := viper.New()
	if err := errors.Join(v.BindEnv(clientFlag, EnvPrefix+"CLIENT_CONFIG"), v.BindPFlag(clientFlag, flags.Lookup(clientFlag))); err != nil {
		return "", err
	}
	if path := v.GetString(clientFlag); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the client's settings: %w; name their file with --%s", err, clientFlag)
	}
	return filepath.Join(dir, "zoneforge", "client.yaml"), nil
}

// LoadClient gives the client's settings, and whether anybody set its address. A token file that is named by a flag beats
// a token in the environment.
func LoadClient(flags *pflag.FlagSet) (c Client, configured bool, err error) {
	path, err := ClientFile(flags)
	if err != nil {
		return Client{}, false, err
	}
	file := path
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && !flags.Changed(clientFlag) {
		file = "" // nothing was set yet
	}
	v := viper.New()
	if err := load(v, &c, flags, file); err != nil {
		return Client{}, false, err
	}
	if flags.Changed("token-file") || lookupEnv(EnvPrefix+"TOKEN") == "" && lookupEnv(EnvPrefix+"TOKEN_FILE") != "" {
		c.Token = ""
	}
	return c, flags.Changed("address") || lookupEnv(EnvPrefix+"ADDRESS") != "" || v.InConfig("address"), nil
}

// ReadClient gives what the file itself sets, without variables, flags and defaults; a missing file sets nothing.
func ReadClient(path string) (Client, error) {
	var c Client
	all := settings(&c)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	entries, err := readFile(path, all)
	if err != nil {
		return Client{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, e := range entries {
		for _, s := range all {
			if s.name == e.name {
				if err := s.assign(e.value); err != nil {
					return Client{}, fmt.Errorf("%w: %s: %s: %w", ErrInvalid, e.at, e.name, err)
				}
			}
		}
	}
	return c, nil
}

// WriteClient replaces the file in one step, for its owner alone, and makes its folder. Paths become absolute, since the
// next command may run elsewhere.
func WriteClient(path string, c Client) (err error) {
	root := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, s := range settings(&c) {
		value := s.value.String()
		if s.value.Type().Name() == "Secret" {
			value = string(c.Token)
		}
		if value == "" {
			continue
		}
		if s.name == "ca" || s.name == "token-file" {
			if value, err = filepath.Abs(value); err != nil {
				return fmt.Errorf("write %s: %w", path, err)
			}
		}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s.name},
			&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value})
	}
	var content bytes.Buffer
	if len(root.Content) > 0 {
		if err := yaml.NewEncoder(&content).Encode(root); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write the client's settings: %w", err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // for the owner alone
	if err != nil {
		return fmt.Errorf("write the client's settings: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content.Bytes())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the client's settings: %w", err)
	}
	return nil
}

// ReadToken is the user's token: the setting itself, or what its file holds; "" when there is neither.
func (c Client) ReadToken() (string, error) {
	if c.Token != "" {
		return strings.TrimSpace(string(c.Token)), nil
	}
	if c.TokenFile == "" {
		return "", nil
	}
	data, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if token := strings.TrimSpace(string(data)); token != "" && !strings.ContainsAny(token, " \n\r\t") {
		return token, nil
	}
	return "", fmt.Errorf("%s holds no token; it must hold one line", c.TokenFile)
}
