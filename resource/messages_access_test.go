package resource

import "testing"

// TestAccessMessages holds what is said of filters that decide who may pass.
func TestAccessMessages(t *testing.T) {
	const head = "type: FilterPolicy\nname: p\nselectors: [{match: {kuma.io/service: edge}}]\nconf: {filters: ["
	for _, c := range []struct{ name, filter, want string }{
		{"keys", "{type: API_KEY, apiKey: {secret: partners, keySources: [{header: x-key}, {query: key}, {cookie: key}], allowedClients: [acme], clientHeader: x-client, hideCredentials: false}}", ""},
		{"several Secrets", "{apiKey: {credentials: [{secret: a}, {secret: b}]}}", ""},
		{"no Secret", "{apiKey: {}}", "f:4:19: conf.filters[0].apiKey: needs the Secrets that hold the keys (add credentials: [{secret: NAME}])"},
		{"a Secret twice", "{apiKey: {credentials: [{secret: a}, {secret: a}, {secret: A}]}}",
			"f:4:64: conf.filters[0].apiKey.credentials[1].secret: Secret a is there already (remove one of them)\n" +
				"f:4:77: conf.filters[0].apiKey.credentials[2].secret: \"A\" is no name of a Secret"},
		{"places", "{apiKey: {secret: a, keySources: [{}, {header: 'a b'}, {query: ''}, {cookie: 'a;b'}]}}",
			"f:4:52: conf.filters[0].apiKey.keySources[0]: needs one of header, query and cookie\n" +
				"f:4:65: conf.filters[0].apiKey.keySources[1].header: \"a b\" is no name for a header\n" +
				"f:4:81: conf.filters[0].apiKey.keySources[2].query: \"\" is no name for a cookie or query parameter\n" +
				"f:4:95: conf.filters[0].apiKey.keySources[3].cookie: \"a;b\" is no name for a cookie or query parameter"},
		{"clients", "{apiKey: {secret: a, allowedClients: [\"a\\tb\"], clientHeader: Host}}",
			"f:4:56: conf.filters[0].apiKey.allowedClients[0]: \"a\\tb\" is no name of a client\n" +
				"f:4:79: conf.filters[0].apiKey.clientHeader: \"Host\" is not for this (use one of your own, such as x-client)"},
		{"users", "{type: BASIC_AUTH, basicAuth: {secret: staff, usernameHeader: x-user, realm: the shop}}", ""},
		{"no users", "{basicAuth: {realm: 'a\"b'}}",
			"f:4:19: conf.filters[0].basicAuth: needs the Secret that holds the users (add secret: NAME)\n" +
				"f:4:38: conf.filters[0].basicAuth.realm: a realm is at most 256 visible ASCII characters and spaces between them, without quotes and backslashes"},
		{"ask by http", "{type: EXT_AUTH, extAuth: {http: {target: {destination: {kuma.io/service: authz}}, pathPrefix: /check, requestHeaders: [x-a], backendHeaders: [x-b], clientHeaders: [x-c]}, timeout: 200ms, statusOnError: 503, body: {maxBytes: 1024}}}", ""},
		{"ask by grpc", "{ext_auth: {grpc: {target: {url: 'http://authz.example.com:9000'}, context_extensions: {a: b}}, fail_open: true}}", ""},
		{"no service", "{extAuth: {failOpen: true}}", "f:4:19: conf.filters[0].extAuth: needs http or grpc"},
		{"two services", "{extAuth: {http: {target: {url: 'http://a'}}, grpc: {target: {url: 'http://a'}}}}",
			"f:4:64: conf.filters[0].extAuth.grpc: excludes http, which is there too (keep one of them)"},
		{"no target", "{extAuth: {http: {pathPrefix: check, backendHeaders: [host]}, timeout: 5m, statusOnError: 200, body: {}}}",
			"f:4:29: conf.filters[0].extAuth.http.target: needs destination or url\n" +
				"f:4:48: conf.filters[0].extAuth.http.pathPrefix: a path begins with / (write \"/check\")\n" +
				"f:4:72: conf.filters[0].extAuth.http.backendHeaders[0]: the header host leads the request and cannot be changed\n" +
				"f:4:89: conf.filters[0].extAuth.timeout: must be at most 1m0s\n" +
				"f:4:108: conf.filters[0].extAuth.statusOnError: 200 is no status of a refusal; use 400 to 599\n" +
				"f:4:113: conf.filters[0].extAuth.body.maxBytes: is a number from 1 to 16777216"},
		{"status of none", "{extAuth: {grpc: {target: {url: 'http://a'}}, failOpen: true, statusOnError: 503}}",
			"f:4:95: conf.filters[0].extAuth.statusOnError: with failOpen no request is refused for an error (remove it, or failOpen)"},
		{"addresses", "{type: CLIENT_ADDRESS, clientAddress: {allow: [10.0.0.0/8, '2001:db8::/32', 192.0.2.7], deny: [10.1.0.0/16]}}", ""},
		{"no addresses", "{clientAddress: {}}", "f:4:19: conf.filters[0].clientAddress: needs allow or deny"},
		{"bad addresses", "{clientAddress: {allow: [10.1.2.3/8, '::ffff:10.0.0.1', 'fe80::1%eth0'], deny: [localhost, 10.0.0.0/33]}}",
			"f:4:43: conf.filters[0].clientAddress.allow[0]: 10.1.2.3/8 names an address within its range (write 10.0.0.0/8 or 10.1.2.3)\n" +
				"f:4:55: conf.filters[0].clientAddress.allow[1]: \"::ffff:10.0.0.1\" is an IPv4 address in IPv6 (write 10.0.0.1)\n" +
				"f:4:74: conf.filters[0].clientAddress.allow[2]: \"fe80::1%eth0\" is no address (write an address, or a range such as 10.0.0.0/8 or 2001:db8::/32)\n" +
				"f:4:98: conf.filters[0].clientAddress.deny[0]: \"localhost\" is no address (write an address, or a range such as 10.0.0.0/8 or 2001:db8::/32)\n" +
				"f:4:109: conf.filters[0].clientAddress.deny[1]: \"10.0.0.0/33\" is no address (write an address, or a range such as 10.0.0.0/8 or 2001:db8::/32)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := Decode("f", []byte(head+c.filter+"]}\n"), Options{}).Err(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
