package xds

import (
	apikeyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/api_key_auth/v3"

	"github.com/zoneforge/zoneforge/ir"
)

const apiKeyFilter = "envoy.filters.http.api_key_auth"

// routeAPIKeyChain brings the filter along only where keys are asked for: Envoy warns of it in its log wherever it stands, as its
// schema may still change.
func routeAPIKeyChain(r *ir.Route) (validated, error) {
	if r.Filters.APIKey == nil {
		return nil, nil
	}
	return ownChain([]namedFilter{{apiKeyFilter, &apikeyv3.ApiKeyAuth{}}})
}

// routeAPIKey is for the filter in that chain, which finds it under its own name, as only a route can say which clients may pass. It
// holds the keys themselves, as Envoy knows no hashes of them. Envoy shows them in no dump of its configuration, nor does Redacted.
func routeAPIKey(r *ir.Route) (validated, error) {
	k := r.Filters.APIKey
	if k == nil {
		return nil, nil
	}
	out := &apikeyv3.ApiKeyAuthPerRoute{
		AllowedClients: k.Allowed,
		Forwarding:     &apikeyv3.Forwarding{Header: k.ClientHeader, HideCredentials: k.Hide},
	}
	for _, key := range k.Keys {
		out.Credentials = append(out.Credentials, &apikeyv3.Credential{Key: key.Key, Client: key.Client})
	}
	for _, p := range k.Places {
		out.KeySources = append(out.KeySources, &apikeyv3.KeySource{Header: p.Header, Query: p.Query, Cookie: p.Cookie})
	}
	return out, nil
}
