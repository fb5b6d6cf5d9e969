package resource

import "testing"

// tokenMessages are filters for tokens and logins with the errors they give, or none.
var tokenMessages = []struct{ name, filter, want string }{
	{"providers as a list", "{type: JWT, jwt: {providers: [{name: a, localJwks: {secret: s}}, {name: b, remoteJwks: {httpUri: https://a/k}}]}}", ""},
	{"no provider", "{jwt: {}}",
		"f:5:2: conf.http[0].filters[0].jwt: needs a provider (add providers: {NAME: {issuer, remoteJwks}})"},
	{"name of a provider", "{jwt: {providers: {'a b': {localJwks: {secret: s}}}}}",
		"f:5:20: conf.http[0].filters[0].jwt.providers[a b]: \"a b\" is no name for a provider (use letters, digits, '-', '_' and '.', at most 63)"},
	{"provider of a list twice", "{jwt: {providers: [{name: a, localJwks: {secret: s}}, {name: a, localJwks: {secret: s}}]}}",
		"f:5:62: conf.http[0].filters[0].jwt.providers.a: the key is there twice (remove one of them)"},
	{"no keys", "{jwt: {providers: {a: {issuer: i}}}}",
		"f:5:20: conf.http[0].filters[0].jwt.providers[a]: needs keys by which tokens are verified (add remoteJwks: {httpUri: {uri: https://HOST/PATH}}, or localJwks)"},
	{"keys twice", "{jwt: {providers: {a: {localJwks: {secret: s}, remoteJwks: {httpUri: https://a/k}}}}}",
		"f:5:20: conf.http[0].filters[0].jwt.providers[a]: remoteJwks excludes localJwks (keep one of them)"},
	{"no uri", "{jwt: {providers: {a: {remoteJwks: {httpUri: {cluster: c}}}}}}",
		"f:5:37: conf.http[0].filters[0].jwt.providers[a].remoteJwks.httpUri: needs uri (add uri: https://HOST/PATH)"},
	{"bad uri", "{jwt: {providers: {a: {remoteJwks: {httpUri: {uri: a/k, cluster: 'c d'}}}}}}",
		"f:5:52: conf.http[0].filters[0].jwt.providers[a].remoteJwks.httpUri.uri: \"a/k\" is no URL of http or https (write http://host:port/path or https://...)\n" +
			"f:5:66: conf.http[0].filters[0].jwt.providers[a].remoteJwks.httpUri.cluster: \"c d\" is no name of a service (write the value of its tag kuma.io/service)"},
	{"roots of a service", "{jwt: {providers: {a: {remoteJwks: {httpUri: {uri: https://a/k, cluster: c, caCert: {secret: s}}}}}}}",
		"f:5:77: conf.http[0].filters[0].jwt.providers[a].remoteJwks.httpUri.caCert: is for a uri without cluster (give it to the ExternalService)"},
	{"keys that don't parse", "{jwt: {providers: {a: {localJwks: {inlineString: '{'}}}}}",
		"f:5:24: conf.http[0].filters[0].jwt.providers[a].localJwks: no JSON of a key set: unexpected end of JSON input (write {\"keys\": [...]} as the issuer's jwks_uri gives it)"},
	{"no keys in the set", "{jwt: {providers: {a: {localJwks: {inlineString: '{\"keys\": []}'}}}}}",
		"f:5:24: conf.http[0].filters[0].jwt.providers[a].localJwks: the key set has no keys (write {\"keys\": [...]} as the issuer's jwks_uri gives it)"},
	{"a key without numbers", "{jwt: {providers: {a: {localJwks: {inlineString: '{\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-256\", \"x\": \"AA\"}]}'}}}}}",
		"f:5:24: conf.http[0].filters[0].jwt.providers[a].localJwks: key 0 lacks a number of its kty EC, or holds one that is no base64url (write {\"keys\": [...]} as the issuer's jwks_uri gives it)"},
	{"a private key", "{jwt: {providers: {a: {localJwks: {inlineString: '{\"keys\": [{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"x\": \"AA\", \"d\": \"AA\"}]}'}}}}}",
		"f:5:24: conf.http[0].filters[0].jwt.providers[a].localJwks: key 0 is a private key: give the public one alone (write {\"keys\": [...]} as the issuer's jwks_uri gives it)"},
	{"a shared key", "{jwt: {providers: {a: {localJwks: {inlineString: '{\"keys\": [{\"kty\": \"oct\", \"k\": \"aHVzaA\"}]}'}}}}}",
		"f:5:24: conf.http[0].filters[0].jwt.providers[a].localJwks: key 0 is a shared one (kty oct), and everybody who may read policies could sign with it (put the key set into a Secret and write localJwks: {secret: NAME})"},
	{"PEM of a private key", "{jwt: {providers: {a: {remoteJwks: {httpUri: {uri: https://a/k, caCert: {inlineString: '-----BEGIN PRIVATE KEY-----'}}}}}}}",
		"f:5:65: conf.http[0].filters[0].jwt.providers[a].remoteJwks.httpUri.caCert: holds no certificate (give certificates in PEM)\n" +
			"f:5:88: conf.http[0].filters[0].jwt.providers[a].remoteJwks.httpUri.caCert.inlineString: holds a private key, and everybody who may read policies could take it (put it into a Secret and write {secret: NAME})"},
	{"times", "{jwt: {providers: {a: {clockSkew: 1500ms, remoteJwks: {cacheDuration: 0s, httpUri: {uri: https://a/k, timeout: 0s}}}}}}",
		"f:5:35: conf.http[0].filters[0].jwt.providers[a].clockSkew: must be full seconds\n" +
			"f:5:71: conf.http[0].filters[0].jwt.providers[a].remoteJwks.cacheDuration: must be at least 1s\n" +
			"f:5:112: conf.http[0].filters[0].jwt.providers[a].remoteJwks.httpUri.timeout: must be at least 1ms"},
	{"headers of claims", "{jwt: {providers: {a: {localJwks: {secret: s}, claimToHeaders: [{header: x, claim: a..b}, {header: X, claim: ''}]}}}}",
		"f:5:84: conf.http[0].filters[0].jwt.providers[a].claimToHeaders[0].claim: \"a..b\" has nothing on one side of a dot\n" +
			"f:5:100: conf.http[0].filters[0].jwt.providers[a].claimToHeaders[1].header: X is that of claim 0 already (use another header)\n" +
			"f:5:110: conf.http[0].filters[0].jwt.providers[a].claimToHeaders[1].claim: needs the name of a claim"},
	{"required claims", "{jwt: {providers: {a: {localJwks: {secret: s}}}, requireClaims: [{values: ['']}]}}",
		"f:5:66: conf.http[0].filters[0].jwt.requireClaims[0].claim: needs the name of a claim\n" +
			"f:5:76: conf.http[0].filters[0].jwt.requireClaims[0].values[0]: is empty"},
	{"empty login", "{oidc: {}}",
		"f:5:2: conf.http[0].filters[0].oidc: needs authorizationEndpoint (write it as the provider's discovery document says)\n" +
			"f:5:2: conf.http[0].filters[0].oidc: needs clientId\n" +
			"f:5:2: conf.http[0].filters[0].oidc: needs clientSecret (write clientSecret: {secret: NAME})\n" +
			"f:5:2: conf.http[0].filters[0].oidc: needs tokenEndpoint (add tokenEndpoint: {uri: https://HOST/PATH}, as the provider's discovery document says)"},
	{"login", "{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: s}, hmacSecret: {secret: t}}}", ""},
	{"paths of a login", "{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: s}, redirectPath: a, logoutPath: /oauth2/callback}}",
		"f:5:127: conf.http[0].filters[0].oidc.redirectPath: a path begins with / (write \"/a\")"},
	{"two logins at one path", "{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: s}}}], backends: [{destination: {kuma.io/service: s}}]}, {filters: [{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: d, clientSecret: {secret: s}, logoutPath: /bye}}",
		"f:5:178: conf.http[1].filters[0].oidc.redirectPath: /oauth2/callback is that of another login, of rule 0 (give each login of a host a redirectPath and a logoutPath of its own, or make them the same)"},
	{"one login in two rules", "{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: s}}}], backends: [{destination: {kuma.io/service: s}}]}, {filters: [{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: s}, redirectPath: /oauth2/callback, useRefreshToken: true, scopes: [openid, email], passThrough: [{path: {match: PREFIX, value: /open}}]}}", ""},
	{"requests without a login", "{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: s}, passThrough: [{}, {header: {name: ':path', match: REGEX, value: '('}}]}}",
		"f:5:127: conf.http[0].filters[0].oidc.passThrough[0]: needs either path or header (write an item each)\n" +
			"f:5:147: conf.http[0].filters[0].oidc.passThrough[1].header.name: \":path\" is no name for a header\n" +
			"f:5:177: conf.http[0].filters[0].oidc.passThrough[1].header.value: bad regular expression: missing closing ): `(` (write it in RE2's syntax)"},
	{"the token's header", "{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: s}, forwardBearerToken: true, forwardIdTokenHeader: Authorization}}",
		"f:5:161: conf.http[0].filters[0].oidc.forwardIdTokenHeader: Authorization holds the access token of forwardBearerToken (use another header)"},
	{"names of cookies", "{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: s}, cookieNames: {hmac: a, nonce: a, expires: 'b;'}}}",
		"f:5:143: conf.http[0].filters[0].oidc.cookieNames.nonce: a is the cookie of hmac already (give each a name of its own)\n" +
			"f:5:155: conf.http[0].filters[0].oidc.cookieNames.expires: \"b;\" is no name for a cookie"},
	{"logout", "{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: s}, scopes: [a, 'b c'], endSessionEndpoint: https://a/e}}",
		"f:5:125: conf.http[0].filters[0].oidc.scopes[1]: \"b c\" is no scope (write one a line)\n" +
			"f:5:153: conf.http[0].filters[0].oidc.endSessionEndpoint: needs an ID token (add openid to scopes)"},
}

func TestMessagesOfTokens(t *testing.T) {
	for _, c := range tokenMessages {
		t.Run(c.name, func(t *testing.T) {
			doc := routeHead + "conf: {http: [{filters: [\n" + c.filter + "\n], backends: [{destination: {kuma.io/service: s}}]}]}\n"
			got := ""
			if err := Decode("f", []byte(doc), Options{}).Err(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
