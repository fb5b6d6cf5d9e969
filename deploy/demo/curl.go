package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// commandTime bounds a command of the tour.
const commandTime = 20 * time.Second

// curl is one request by HTTP.
type curl struct {
	method string
	url    string
	header [][2]string
	body   string
	// priorKnowledge is HTTP/2 without TLS, quic HTTP/3 alone; else the protocol is HTTP/1.1, or what the server chooses by TLS.
	priorKnowledge bool
	quic           bool
	// roots and identity are files with PEM: who signs servers, and the client's certificate with its key.
	roots    string
	identity string
	// resolve is HOST:PORT:ADDRESS, of which HOST may be *.
	resolve string
}

func parseCurl(words []string) (command, error) {
	out := curl{method: http.MethodGet}
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		var value string
		var err error
		switch w {
		case "-i", "-s", "-is":
		case "--http2-prior-knowledge":
			out.priorKnowledge = true
		case "--http3-only":
			out.quic = true
		case "--cacert":
			out.roots, err = option(&words, w)
		case "--cert":
			out.identity, err = option(&words, w)
		case "--resolve":
			out.resolve, err = option(&words, w)
		case "-X":
			out.method, err = option(&words, w)
		case "-H":
			value, err = option(&words, w)
			name, v, ok := strings.Cut(value, ": ")
			if err == nil && !ok {
				err = errors.New("a header is NAME: VALUE")
			}
			out.header = append(out.header, [2]string{name, v})
		case "-u":
			value, err = option(&words, w)
			out.header = append(out.header, [2]string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(value))})
		case "-d", "--json":
			out.body, err = option(&words, w)
			if out.method == http.MethodGet {
				out.method = http.MethodPost
			}
			kind := "application/x-www-form-urlencoded"
			if w == "--json" {
				kind = "application/json"
			}
			// In front of what -H says, which takes its place.
			out.header = append([][2]string{{"Content-Type", kind}}, out.header...)
		default:
			if !strings.HasPrefix(w, "http://") && !strings.HasPrefix(w, "https://") || out.url != "" {
				err = fmt.Errorf("%q is not known to the tour", w)
			}
			out.url = w
		}
		if err != nil {
			return nil, err
		}
	}
	if out.url == "" {
		return nil, errors.New("no URL")
	}
	return out, nil
}

func (c curl) send(ctx context.Context) reply {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	transport, end, err := c.transport()
	if err != nil {
		return reply{failed: err}
	}
	defer end()
	req, err := http.NewRequestWithContext(ctx, c.method, c.url, strings.NewReader(c.body))
	if err != nil {
		return reply{failed: err}
	}
	for _, h := range c.header {
		if strings.EqualFold(h[0], "Host") {
			req.Host = h[1]
			continue
		}
		req.Header.Set(h[0], h[1])
	}
	began := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return reply{failed: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return reply{
		proto: strings.TrimSuffix(resp.Proto, ".0"), status: resp.Status, code: resp.StatusCode, header: resp.Header, body: string(text),
		took: time.Since(began), failed: err,
	}
}

// transport follows no redirect and decompresses nothing, so that answers are shown as they come. Each request has a connection of
// its own, which end closes.
func (c curl) transport() (t http.RoundTripper, end func(), err error) {
	config, err := tlsConfig(c.roots, c.identity)
	if err != nil {
		return nil, nil, err
	}
	if c.quic {
		t := &http3.Transport{TLSClientConfig: config, DisableCompression: true, Dial: func(ctx context.Context, address string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, c.resolved(address), t, q)
		}}
		return t, func() { _ = t.Close() }, nil
	}
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(c.priorKnowledge)
	protocols.SetHTTP1(!c.priorKnowledge)
	protocols.SetHTTP2(!c.priorKnowledge)
	h := &http.Transport{
		TLSClientConfig: config, Protocols: protocols, DisableCompression: true, Proxy: nil,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, c.resolved(address))
		},
	}
	return h, h.CloseIdleConnections, nil
}

// resolved is the address to dial for host:port.
func (c curl) resolved(address string) string {
	name, to, ok := strings.Cut(c.resolve, ":")
	port, to, more := strings.Cut(to, ":")
	host, wanted, err := net.SplitHostPort(address)
	if !ok || !more || err != nil || wanted != port || name != "*" && name != host {
		return address
	}
	return net.JoinHostPort(to, port)
}

// tlsConfig trusts the roots in a file, and shows the certificate in another, where they are named.
func tlsConfig(roots, identity string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if roots != "" {
		pem, err := os.ReadFile(roots)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", roots)
		}
	}
	if identity != "" {
		pair, err := tls.LoadX509KeyPair(identity, identity)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
