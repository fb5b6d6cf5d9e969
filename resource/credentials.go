package resource

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// APIKey is a key of a client. It must not be printed.
type APIKey struct {
	Client string
	Key    string
}

// String redacts.
func (k APIKey) String() string { return "key of " + k.Client + " (redacted)" }

// GoString redacts.
func (k APIKey) GoString() string { return k.String() }

// maxClient bounds the name of a client or user, which is written into a header.
const maxClient = 256

var (
	// clientName may stand in a header.
	clientName = regexp.MustCompile(`^[!-~]([ -~]*[!-~])?$`)
	// keyText may stand in a header, a query and a cookie (RFC 6265, cookie-octet).
	keyText = regexp.MustCompile(`^[!#-+\--:<-[\]-~]+$`)
)

// APIKeys reads what a Secret of keys holds, ordered by client, then by place. No key is there twice. An error quotes no key.
func APIKeys(data []byte) ([]APIKey, error) {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	err := dec.Decode(&doc)
	if err == nil {
		if again := dec.Decode(new(yaml.Node)); !errors.Is(again, io.EOF) {
			err = errors.New("more than one document")
		}
	}
	if err != nil || doc.Kind != yaml.DocumentNode || doc.Content[0].Kind != yaml.MappingNode {
		// The parser's own words could quote a key.
		return nil, errors.New("it is no mapping of clients to keys: write lines such as `acme: KEY`")
	}
	var out []APIKey
	lines, owners := map[string]int{}, map[string]string{}
	clients := doc.Content[0].Content
	for i := 0; i+1 < len(clients); i += 2 {
		name, value := clients[i], clients[i+1]
		if name.Kind != yaml.ScalarNode || !clientName.MatchString(name.Value) || len(name.Value) > maxClient {
			return nil, fmt.Errorf("line %d: the name of a client is a text of at most %d visible ASCII characters and spaces between them", name.Line, maxClient)
		}
		if other, twice := lines[name.Value]; twice {
			return nil, fmt.Errorf("line %d: client %s is there already, on line %d: give it a list of keys", name.Line, name.Value, other)
		}
		lines[name.Value] = name.Line
		keys := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			keys = value.Content
		}
		if len(keys) == 0 {
			return nil, fmt.Errorf("line %d: client %s has no key: give it one, or take it out", name.Line, name.Value)
		}
		for _, key := range keys {
			switch owner, taken := owners[key.Value]; {
			case key.Kind != yaml.ScalarNode || key.ShortTag() == "!!null" || !keyText.MatchString(key.Value):
				return nil, fmt.Errorf("line %d: a key of client %s can't stand in a header, query or cookie: use visible ASCII characters but for quotes, commas, semicolons and backslashes", key.Line, name.Value)
			case taken && owner == name.Value:
				return nil, fmt.Errorf("line %d: client %s has this key already", key.Line, name.Value)
			case taken:
				return nil, fmt.Errorf("line %d: clients %s and %s have the same key: give each its own", key.Line, owner, name.Value)
			}
			owners[key.Value] = name.Value
			out = append(out, APIKey{Client: name.Value, Key: key.Value})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("it names no client: write lines such as `acme: KEY`")
	}
	slices.SortStableFunc(out, func(x, y APIKey) int { return cmp.Compare(x.Client, y.Client) })
	return out, nil
}

// hashNames are the beginnings of password hashes that Envoy doesn't know.
var hashNames = []struct{ prefix, name string }{
	{"$2a$", "bcrypt"}, {"$2b$", "bcrypt"}, {"$2y$", "bcrypt"}, {"$apr1$", "MD5 (apr1)"}, {"$1$", "MD5"}, {"$5$", "SHA-256"}, {"$6$", "SHA-512"},
	{"$y$", "yescrypt"}, {"$argon2", "Argon2"}, {"{SSHA}", "salted SHA-1"}, {"{SHA256}", "SHA-256"}, {"{SHA512}", "SHA-512"},
}

const (
	shaPrefix = "{SHA}"
	shaHint   = "make it with `htpasswd -s`"
)

// Htpasswd reads what a Secret of users holds, and gives it as lines USER:{SHA}HASH, ordered by user. An error quotes no hash.
func Htpasswd(data []byte) (string, error) {
	lines := map[string]int{}
	var out []string
	for i, line := range strings.Split(string(data), "\n") {
		n := i + 1
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok {
			return "", fmt.Errorf("line %d: it is not USER:{SHA}HASH: %s", n, shaHint)
		}
		if !clientName.MatchString(user) || len(user) > maxClient {
			return "", fmt.Errorf("line %d: the name of a user is a text of at most %d visible ASCII characters and spaces between them", n, maxClient)
		}
		if other, twice := lines[user]; twice {
			return "", fmt.Errorf("line %d: user %s is there already, on line %d: keep one of them", n, user, other)
		}
		lines[user] = n
		if err := checkHash(hash); err != nil {
			return "", fmt.Errorf("line %d: the password of user %s %w: %s", n, user, err, shaHint)
		}
		out = append(out, user+":"+hash)
	}
	if len(out) == 0 {
		return "", errors.New("it names no user: write lines USER:{SHA}HASH, which `htpasswd -s` makes")
	}
	slices.Sort(out)
	return strings.Join(out, "\n") + "\n", nil
}

func checkHash(hash string) error {
	for _, h := range hashNames {
		if strings.HasPrefix(hash, h.prefix) {
			return fmt.Errorf("is hashed by %s, which Envoy doesn't know", h.name)
		}
	}
	encoded, ok := strings.CutPrefix(hash, shaPrefix)
	if !ok {
		return errors.New("is no {SHA} hash")
	}
	if sum, err := base64.StdEncoding.DecodeString(encoded); err != nil || len(sum) != 20 {
		return errors.New("is a damaged {SHA} hash")
	}
	return nil
}
