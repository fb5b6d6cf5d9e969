package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/zoneforge/zoneforge/config"
	"github.com/zoneforge/zoneforge/resource"
)

const (
	// requestTimeout is for all requests but those that watch; it is longer than global takes to say that it can't.
	requestTimeout = 45 * time.Second
	// maxAttempts and maxWait bound how often and how late a request is repeated that global was asked for too often.
	maxAttempts, maxWait = 5, 10 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 256 << 20
)

// client speaks to global's REST. It never follows a redirect: the token is for the configured address alone.
type client struct {
	base  string
	host  string
	token string
	http  *http.Client
	// configured is false where the address is only the default.
	configured bool
}

// verb gives a command the flags of the client and, when it runs, the client itself. What run returns is a refusal, unless
// it is an error of usage.
func verb(cmd *cobra.Command, run func(ctx context.Context, c *client, args []string) error) *cobra.Command {
	config.ClientFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd.Flags())
		if err != nil {
			return err
		}
		err = run(cmd.Context(), c, args)
		var usage usageError
		if err == nil || errors.As(err, &usage) {
			return err
		}
		return refusal{err}
	}
	return cmd
}

// usageError is a mistake on the command line that cobra doesn't see.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func newClient(flags *pflag.FlagSet) (*client, error) {
	settings, configured, err := config.LoadClient(flags)
	if err != nil {
		return nil, err
	}
	token, err := settings.ReadToken()
	if err != nil {
		return nil, refusal{err}
	}
	address := settings.Address
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return nil, usagef("address %q: write it as https://HOST:PORT; tokens are sent over TLS alone", settings.Address)
	}
	if u.Port() == "" {
		u.Host += ":5682"
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if settings.CA != "" {
		roots, err := os.ReadFile(settings.CA)
		if err != nil {
			return nil, refusal{fmt.Errorf("read the CA file: %w", err)}
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(roots) {
			return nil, refusal{fmt.Errorf("CA file %s holds no certificate in PEM; it is tls/server-ca.crt in global's data directory", settings.CA)}
		}
	}
	return &client{
		base: strings.TrimSuffix(u.String(), "/"), host: u.Host, token: token, configured: configured,
		http: &http.Client{
			Transport:     &http.Transport{TLSClientConfig: tlsConfig, Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// path joins segments, each escaped.
func path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// pathOf is the route of one resource.
func pathOf(kind *resource.Kind, mesh, name string) string {
	if kind.Global() {
		return path("v1", kind.Plural, name)
	}
	return path("v1", "meshes", mesh, kind.Plural, name)
}

func (c *client) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, nil, into)
}

// do sends a request, with body as JSON where there is one, and decodes the answer unless into is nil.
func (c *client) do(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return c.explain(err)
	}
	if len(data) > maxAnswer {
		return fmt.Errorf("the answer of %s is larger than %d MiB", c.host, maxAnswer>>20)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("the answer of %s to %s %s is not what global says: %w; is that the address of global's REST?", c.host, method, path, err)
	}
	return nil
}

// send gives an answer of success, whose body the caller closes; all others are errors.
func (c *client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var b bytes.Buffer
	if body != nil {
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(body); err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
	}
	for attempt := 1; ; attempt++ {
		response, err := c.sendOnce(ctx, method, path, b.Bytes())
		var p *problem
		if err == nil || attempt == maxAttempts || !errors.As(err, &p) || p.Status != http.StatusTooManyRequests {
			return response, err
		}
		// Nothing was done, so it may be repeated.
		select {
		case <-time.After(p.wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// sendOnce sends a request, with a body in JSON where it isn't empty.
func (c *client) sendOnce(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	var reader io.Reader
	if len(body) > 0 {
		reader = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "zoneforge/"+Version)
	request.Header.Set("Accept", "application/json, application/x-ndjson, application/problem+json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(err)
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	return nil, c.problem(response)
}

// problem is RFC 9457's problem details, as global sends them.
type problem struct {
	Status     int                  `json:"status"`
	Detail     string               `json:"detail"`
	Code       string               `json:"code"`
	Mend       string               `json:"mend"`
	Violations []resource.Violation `json:"violations"`

	// wait is how long global asks to be left alone.
	wait time.Duration
}

// Error is what is wrong, how to mend it and, a line each, the violations.
func (p *problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Detail)
	if p.Mend != "" {
		b.WriteString("; " + p.Mend)
	}
	fmt.Fprintf(&b, " [%s]", p.Code)
	for _, v := range p.Violations {
		b.WriteString("\n  " + v.String())
	}
	return b.String()
}

func (c *client) problem(response *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return c.explain(err)
	}
	var p problem
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if media != "application/problem+json" || json.Unmarshal(data, &p) != nil || p.Code == "" {
		return fmt.Errorf("%s answers %s, and not as global does; is that the address of global's REST?", c.host, response.Status)
	}
	p.Status = response.StatusCode
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		p.wait = min(time.Duration(seconds)*time.Second, maxWait)
	}
	if p.Status == http.StatusUnauthorized {
		if c.token == "" {
			p.Mend = "give a token with --token-file, ZONEFORGE_TOKEN or `zoneforge config set --token-file`"
		} else {
			p.Mend = "the token is wrong, expired, revoked or of another federation: ask an admin for a new one"
		}
	}
	return &p
}

// explain says in words for people why there is no answer.
func (c *client) explain(err error) error {
	var (
		unknown  x509.UnknownAuthorityError
		name     x509.HostnameError
		invalid  x509.CertificateInvalidError
		record   tls.RecordHeaderError
		dns      *net.DNSError
		urlError *url.Error
	)
	if errors.As(err, &urlError) {
		err = urlError.Err // the words below name the address already
	}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer in time: %w", c.host, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s refuses the connection: %w; is global running there? Its address is set by --address, ZONEFORGE_ADDRESS or `zoneforge config set`", c.host, err)
	case errors.As(err, &dns):
		return fmt.Errorf("%s cannot be found: %w; set global's address by --address, ZONEFORGE_ADDRESS or `zoneforge config set`", c.host, err)
	case errors.As(err, &unknown):
		return fmt.Errorf("%s is not proven by the CA: %w; give global's tls/server-ca.crt with --ca, ZONEFORGE_CA or `zoneforge config set`", c.host, err)
	case errors.As(err, &name):
		return fmt.Errorf("%s is not in global's certificate: %w; use a name that is, or add this one to global's hosts", c.host, err)
	case errors.As(err, &invalid):
		return fmt.Errorf("the certificate of %s cannot be used: %w; check both clocks", c.host, err)
	case errors.As(err, &record), strings.Contains(err.Error(), "gave HTTP response to HTTPS"):
		return fmt.Errorf("%s does not speak TLS: %w; is that the address of global's REST?", c.host, err)
	}
	return fmt.Errorf("%s: %w", c.host, err)
}
