package demo

import (
	"context"
	"embed"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"

	"github.com/zoneforge/zoneforge/deploy/demo/talk"
)

//go:embed services
var services embed.FS

// The ports of the workload that the tour adds to the second zone; services/dataplane.yaml says what its services are.
const (
	grpcPort  = 9000
	linesPort = 9001
	tlsPort   = 9002
)

// passed is the name for which that workload speaks TLS by itself.
const passed = "vault.example.com"

// clients are the names of clients' certificates, each with its key in a file of the tour's folder.
var clients = map[string]string{"ops.pem": "ops.example.com", "guest.pem": "guest.example.com"}

// guide is what the files of a tour take the place of their words from.
type guide struct {
	words     *strings.Replacer
	authority *authority
}

// newGuide explains words for a federation: where its gateways are, and the tour's folder.
func (f *federation) newGuide() (guide, error) {
	a, err := newAuthority()
	return guide{authority: a, words: strings.NewReplacer(
		"$GATEWAY", strings.TrimSuffix(f.first().url(""), "/"),
		"$OTHER_GATEWAY", strings.TrimSuffix(f.second().url(""), "/"),
		"$EDGE", f.first().gateway(),
		"$ECHO", address(f.first().workloads[0].host, workloadPort),
		"$SERVICES", f.second().services(),
		"$FOLDER", f.path("tour"),
	)}, err
}

// made stands in a document for base64 of what is made anew for each tour: a certificate for a name with its key, the authority
// of these, and the descriptor of the service orders.
var made = regexp.MustCompile(`\$\{(certificate|authority|descriptor)(?: ([a-z0-9.*-]+))?\}`)

// explain writes a text with its words replaced.
func (g guide) explain(text string) (string, error) {
	var wrong error
	out := made.ReplaceAllStringFunc(g.words.Replace(text), func(word string) string {
		var data []byte
		var err error
		switch m := made.FindStringSubmatch(word); m[1] {
		case "certificate":
			data, err = g.authority.issue(m[2])
		case "authority":
			data = g.authority.pem
		default:
			data, err = talk.HealthDescriptor("/tour/orders/{service}", "/tour/orders")
		}
		if err != nil {
			wrong = err
		}
		return base64.StdEncoding.EncodeToString(data)
	})
	return out, wrong
}

func (s site) services() string { return s.host(40) }

// startServices adds to the second zone what the tour speaks to besides requests: one workload for several services.
func (f *federation) startServices(ctx context.Context, g guide) error {
	certificates := map[string]string{"vault.pem": passed}
	for file, name := range clients {
		certificates[file] = name
	}
	for file, name := range certificates {
		pem, err := g.authority.issue(name)
		if err != nil {
			return err
		}
		if _, err := f.write("tour/"+file, string(pem)); err != nil {
			return err
		}
	}
	if _, err := f.write("tour/ca.pem", string(g.authority.pem)); err != nil {
		return err
	}
	permissions, err := services.ReadFile("services/permissions.yaml")
	if err != nil {
		return err
	}
	file, err := f.write("tour/services.yaml", string(permissions))
	if err != nil {
		return err
	}
	if _, err := f.cli(ctx, "apply", "--message", "the services of the tour", "-f", file); err != nil {
		return err
	}
	document, err := services.ReadFile("services/dataplane.yaml")
	if err != nil {
		return err
	}
	if err := f.token(ctx, "tour", "dataplane", "--mesh", mesh, "--service", "chat,orders,processor,limits,db,vault"); err != nil {
		return err
	}
	s := f.second()
	at := func(port int) string { return address(s.services(), port) }
	if err := f.run(s.name+"/tour/app", "demo", "echo", "--listen", at(workloadPort), "--service", "chat", "--zone", s.name, "--proxy", "tour",
		"--grpc", at(grpcPort), "--lines", at(linesPort), "--tls", at(tlsPort), "--certificate", f.path("tour", "vault.pem")); err != nil {
		return err
	}
	explained, err := g.explain(string(document))
	if err != nil {
		return fmt.Errorf("services/dataplane.yaml: %w", err)
	}
	return f.startProxy(s, "tour", explained, "tour")
}
