package dataplane

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// ErrInput says that the document, the token or the roots of a proxy cannot be used.
var ErrInput = errors.New("the proxy cannot be started")

// maxDocument bounds a file of documents, in bytes. The zone gets the document in each stream's first message.
const maxDocument = 1 << 20

// ReadDocument reads the Dataplane or ZoneIngress that a proxy presents, from the file at path, or from in when path is
// "-". Where the file holds several, name says which; other kinds in it are left alone. The error wraps ErrInput and
// holds all violations, a line each.
func ReadDocument(path, name string, in io.Reader) (*resource.Resource, error) {
	shown := path
	if path == "-" {
		shown = "<stdin>"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("%w: read the document: %w", ErrInput, err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%w: read the document: %w", ErrInput, err)
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrInput, shown, maxDocument)
	}
	batch := resource.Decode(shown, data, resource.Options{})
	if err := batch.Err(); err != nil {
		return nil, fmt.Errorf("%w:\n%w", ErrInput, err)
	}
	var found []*resource.Resource
	var names []string
	for _, r := range batch.Resources {
		if r.Kind != kindDataplane && r.Kind != kindZoneIngress {
			continue
		}
		names = append(names, r.Name)
		if name == "" || r.Name == name {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(names) == 0:
		return nil, fmt.Errorf("%w: %s holds no Dataplane and no ZoneIngress", ErrInput, shown)
	case len(found) == 0:
		return nil, fmt.Errorf("%w: %s holds no proxy %q, but %s", ErrInput, shown, name, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("%w: %s holds %s: say by --select which one this proxy is, or give each a file of its own",
		ErrInput, shown, strings.Join(names, ", "))
}

// serviceOf names the cluster of Envoy's node: the first service of a sidecar, that of a gateway, or the ingress's name.
func serviceOf(r *resource.Resource) string {
	if d, ok := r.Spec.(*meshv1.Dataplane); ok {
		if service := d.GetNetworking().GetGateway().GetTags()[resource.TagService]; service != "" {
			return service
		}
		for _, in := range d.GetNetworking().GetInbound() {
			if service := in.GetTags()[resource.TagService]; service != "" {
				return service
			}
		}
	}
	return r.Name
}
