package resource

import "testing"

const (
	limitHead  = "type: RateLimit\nname: l\nselectors: [{match: {kuma.io/service: edge}}]\n"
	filterHead = "type: FilterPolicy\nname: p\nselectors: [{match: {kuma.io/service: edge}}]\n"
	routeHead  = "type: MeshGatewayRoute\nname: r\nselectors: [{match: {kuma.io/gateway: enabled}}]\n"
	anyToAny   = "sources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\n"
)

// messages are documents with the one error they give, or none.
var messages = []struct{ name, doc, want string }{
	{"unknown field", "type: Mesh\nname: m\nmtls:\n  enabledBackand: x\n", "f:4:3: mtls.enabledBackand: unknown field (did you mean enabledBackend?)"},
	{"unknown kind", "type: Retri\nname: m\n", `f:1:7: type: unknown kind "Retri" (did you mean Retry?)`},
	{"wrong version", "apiVersion: kuma.io/v1\nkind: Mesh\nmetadata: {name: m}\n", "f:1:13: apiVersion: Mesh is of apiVersion kuma.io/v1alpha1"},
	{"system kind", "type: TrustBundle\nname: m\n", "f:1:7: type: TrustBundle is written by control planes only (remove the document)"},
	{"duplicate key", "type: Mesh\nname: m\nname: n\n", "f:3:1: name: the key is there twice (remove one of them)"},
	{"duplicate document", "type: Mesh\nname: m\n---\ntype: Mesh\nname: m\n", "f:4:1: Mesh m is there already, at line 1 (remove one of them)"},
	{"mesh of a global kind", "type: Mesh\nname: m\nmesh: x\n", "f:3:7: mesh: Mesh belongs to no mesh (remove it)"},
	{"no name", "type: Mesh\n", "f:1:1: the document has no name"},
	{"bad name", "type: Mesh\nname: a.b\n", `f:2:7: name: "a.b" is no name for a Mesh (use lower-case letters, digits and hyphens, at most 63)`},
	{"duration without a unit", "type: Timeout\nname: t\n" + anyToAny + "conf: {connectTimeout: 5}\n",
		`f:5:24: conf.connectTimeout: expected a duration such as 5s, 100ms or 1h30m, found "5" (did you mean 5s?)`},
	{"no connect timeout", "type: Timeout\nname: t\n" + anyToAny + "conf: {connectTimeout: 0s}\n", "f:5:24: conf.connectTimeout: must be above 0s"},
	{"bad enum", "type: TrafficPermission\nname: t\n" + anyToAny + "conf: {action: Alow}\n",
		`f:5:16: conf.action: expected ALLOW, DENY, found "Alow" (did you mean ALLOW?)`},
	{"number for a text", "type: TrafficPermission\nname: t\nlabels: {a: 1}\n" + anyToAny, `f:3:13: labels[a]: expected a text, found "1"`},
	{"unproven tag", "type: TrafficPermission\nname: t\nsources: [{match: {version: v1}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\n",
		"f:3:20: sources[0].match[version]: a certificate doesn't prove the tag version (select by kuma.io/service or kuma.io/zone)"},
	{"empty selector", "type: TrafficPermission\nname: t\nsources: [{}]\ndestinations: [{match: {kuma.io/service: '*'}}]\n",
		`f:3:11: sources[0]: needs match with a tag (to select everything, write match: {kuma.io/service: "*"})`},
	{"author's path", routeHead + "conf:\n  http:\n    - match: {}\n      destination: [{destination: {kuma.io/service: s}}]\n",
		`f:6:7: conf.http[0].match: expected a list, found a mapping (begin each item with "- ")`},
	{"relative path", routeHead + "conf: {http: [{match: [{path: {match: PREFIX, value: a}}], destination: [{destination: {kuma.io/service: s}}]}]}\n",
		`f:4:54: conf.http[0].match[0].path.value: a path begins with / (write "/a")`},
	{"path by rule", routeHead + "conf: {http: [{match: [{path: {prefix: /a}, query_parameters: [{name: q}]}], destination: [{destination: {kuma.io/service: s}}]}]}\n", ""},
	{"regex", routeHead + "conf: {http: [{match: [{path: {regex: (}}], destination: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:39: conf.http[0].match[0].path.value: bad regular expression: missing closing ): `(` (write it in RE2's syntax)"},
	{"large regex", routeHead + "conf: {http: [{match: [{path: {regex: '/[a-z]{1,900}[a-z]{1,900}[a-z]{900}'}}], destination: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:39: conf.http[0].match[0].path.value: the regular expression is too large: it compiles to 4501 steps, and may to 4096 (count less, or match a prefix)"},
	{"regex of a class", routeHead + "conf: {http: [{match: [{path: {regex: '/\\pL{100}'}}], destination: [{destination: {kuma.io/service: s}}]}]}\n", ""},
	{"header host", routeHead + "conf: {http: [{filters: [{requestHeader: {set: [{name: Host, value: a}], remove: [host]}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:56: conf.http[0].filters[0].requestHeader.set[0].name: the header Host leads the request and cannot be changed\n" +
			"f:4:83: conf.http[0].filters[0].requestHeader.remove[0]: the header host leads the request and cannot be changed"},
	{"control character", routeHead + "conf: {http: [{filters: [{requestHeader: {set: [{name: a, value: \"a\\x01\"}]}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:66: conf.http[0].filters[0].requestHeader.set[0].value: a header's value is one line without control characters"},
	{"two names", routeHead + "conf: {http: [{destination: [{destination: {kuma.io/service: s}}], backends: []}]}\n",
		"f:4:68: conf.http[0].backends: means the same as destination, which is there too (remove one of them)"},
	{"weights", routeHead + "conf: {http: [{backends: [{weight: 0, destination: {kuma.io/service: s}}]}]}\n", "f:4:16: conf.http[0].backends: the weights are all 0"},
	{"filters", routeHead + "conf: {http: [{filters: [{request_header: {remove: [x]}, responseHeader: {remove: [y]}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:58: conf.http[0].filters[0].responseHeader: excludes requestHeader, which is there too (keep one of them)"},
	{"other spellings of filters", routeHead + "conf: {http: [{match: [{path: {prefix: /a}}], filters: [{mirror: {backend: {destination: {kuma.io/service: s}}}}, {rewrite: {replace_prefix_match: /b}}], backends: [{destination: {kuma.io/service: s}}]}, {filters: [{redirect: {path: {replaceFull: /c}}}]}]}\n", ""},
	{"redirect to itself", routeHead + "conf: {http: [{filters: [{redirect: {statusCode: 301}}]}]}\n",
		"f:4:27: conf.http[0].filters[0].redirect: needs scheme, hostname, port or a path, or it leads to itself"},
	{"redirect with backends", routeHead + "conf: {http: [{filters: [{redirect: {scheme: ftp, statusCode: 200}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:46: conf.http[0].filters[0].redirect.scheme: \"ftp\" is neither http nor https\n" +
			"f:4:63: conf.http[0].filters[0].redirect.statusCode: a redirect has status 301, 302, 303, 307 or 308\n" +
			"f:4:71: conf.http[0].backends: nothing is forwarded by a rule that answers itself (remove them, or the redirect or directResponse)"},
	{"template", routeHead + "conf: {http: [{filters: [{transform: {request: {headers: {set: [{name: a, value: '%RESPONSE_BODY(a)% 5%'}]}, body: {merge: '[1]'}}, response: {body: {replace: '{\"a\": [\"%ENVIRONMENT(HOME)%\", \"%REQUEST_BODY%\"]}'}}}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:82: conf.http[0].filters[0].transform.request.headers.set[0].value: %RESPONSE_BODY(a)% is not there yet when the request is changed\n" +
			"f:4:124: conf.http[0].filters[0].transform.request.body.merge: is no JSON object (write an object, such as {\"name\": \"%REQUEST_BODY(user:name)%\"})\n" +
			"f:4:160: conf.http[0].filters[0].transform.response.body.replace: %ENVIRONMENT% is not to be had, as it could tell secrets of the proxy's machine\n" +
			"f:4:160: conf.http[0].filters[0].transform.response.body.replace: %REQUEST_BODY% names no member of a body: write %REQUEST_BODY(MEMBER)% or %REQUEST_BODY(MEMBER:INNER)%"},
	{"script", routeHead + "conf: {http: [{filters: [{lua: {script: \"function envoy_on_request(h)\\n  h:x(\"}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:41: conf.http[0].filters[0].lua.script: ends in the middle: syntax error (write Lua 5.1)"},
	{"script without a function", routeHead + "conf: {http: [{filters: [{lua: {script: \"local function envoy_on_request(h) end\"}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:41: conf.http[0].filters[0].lua.script: defines neither envoy_on_request nor envoy_on_response, and so would do nothing (begin with function envoy_on_request(handle))"},
	{"module", routeHead + "conf: {http: [{filters: [{wasm: {file: ../a.wasm}}], backends: [{destination: {kuma.io/service: s}}]}, {filters: [{wasm: {module: {inline: AGFzbQEAAAAH}}}], backends: [{destination: {kuma.io/service: s}}]}, {filters: [{wasm: {remote: {url: 'https://example.com', sha256: ab}}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:40: conf.http[0].filters[0].wasm.file: \"../a.wasm\" is no name of a file (name a file of the wasm folder of the proxy's working directory)\n" +
			"f:4:140: conf.http[1].filters[0].wasm.module.inline: the module is cut off or damaged (build it with a Proxy-Wasm SDK)\n" +
			"f:4:241: conf.http[2].filters[0].wasm.remote.url: names no file: write it as https://HOST/PATH\n" +
			"f:4:272: conf.http[2].filters[0].wasm.remote.sha256: \"ab\" is no SHA-256 in 64 hexadecimal digits (write what sha256sum prints for the module)"},
	{"processor", routeHead + "conf: {http: [{filters: [{extProc: {target: {url: 'http://p:1'}, request: {headers: SKIP}, timeout: 0s, mutations: {allow: ['(']}, requestAttributes: [Source]}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:27: conf.http[0].filters[0].extProc: sends nothing to the service (give request or response its headers or body)\n" +
			"f:4:101: conf.http[0].filters[0].extProc.timeout: must be at least 1ms\n" +
			"f:4:125: conf.http[0].filters[0].extProc.mutations.allow[0]: bad regular expression: missing closing ): `(` (write it in RE2's syntax)\n" +
			"f:4:152: conf.http[0].filters[0].extProc.requestAttributes[0]: \"Source\" is no name of an attribute (write it as source.address)"},
	{"transformation service", routeHead + "conf: {http: [{filters: [{service: {path: v1}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:27: conf.http[0].filters[0].service: needs request: true or response: true\n" +
			"f:4:27: conf.http[0].filters[0].service.target: needs destination or url\n" +
			"f:4:43: conf.http[0].filters[0].service.path: a path begins with / (write \"/v1\")"},
	{"two answers", routeHead + "conf: {http: [{filters: [{directResponse: {status: 99}}, {directResponse: {status: 200}}, {mirror: {destination: {kuma.io/service: s}, percentage: 0}}]}]}\n",
		"f:4:52: conf.http[0].filters[0].directResponse.status: 99 is no status of an answer; use 200 to 599\n" +
			"f:4:58: conf.http[0].filters[1]: the rule answers by a redirect or directResponse already (keep one of them)\n" +
			"f:4:91: conf.http[0].filters[2]: nothing is forwarded by a rule that answers itself (remove it)\n" +
			"f:4:148: conf.http[0].filters[2].mirror.percentage: a share is above 0 and at most 100"},
	{"prefix that is none", routeHead + "conf: {http: [{match: [{path: {exact: /a}}], filters: [{rewrite: {replacePrefixMatch: /b, hostname: 'a b'}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:87: conf.http[0].filters[0].rewrite.replacePrefixMatch: the rule matches a path that is no prefix (use replaceFull, or match paths by PREFIX)\n" +
			"f:4:101: conf.http[0].filters[0].rewrite.hostname: \"a b\" is no hostname"},
	{"filter of another type", routeHead + "conf: {http: [{filters: [{type: JWT, cors: {allowOrigins: ['*']}}], backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:27: conf.http[0].filters[0].type: unknown field"},
	{"filter twice", routeHead + "conf: {http: [{filters: [{cors: {allowOrigins: ['*']}}, {type: cors, cors: {allowOrigins: ['*']}}], cors: {allowOrigins: ['*']}, backends: [{destination: {kuma.io/service: s}}]}]}\n",
		"f:4:57: conf.http[0].filters[1]: cors is there already, as filter 0 (keep one of them)\n" +
			"f:4:101: conf.http[0].cors: a filter says it, too (keep one of them)"},
	{"answer of a policy", "type: FilterPolicy\nname: p\nselectors: [{match: {a: b}}]\nconf: {filters: [{redirect: {scheme: https}}, {http: {rules: [{match: {prefix: a}}]}}]}\n",
		"f:4:18: conf.filters[0]: says where a request goes, and belongs to a route (write it in a rule of a MeshGatewayRoute)\n" +
			"f:4:63: conf.filters[1].http.rules[0]: needs filters\n" +
			"f:4:80: conf.filters[1].http.rules[0].match[0].value: a path begins with / (write \"/a\")"},
	{"external service", "type: ExternalService\nname: e\ntags: {kuma.io/service: e, kuma.io/protocol: htpp}\nnetworking: {address: 'a_b', tls: {enabled: true, caCert: {inlineString: x}, clientCert: {secret: c}}}\n",
		"f:3:28: tags[kuma.io/protocol]: expected tcp, http, http2 or grpc, found \"htpp\" (did you mean http?)\n" +
			"f:4:23: networking.address: \"a_b\" is not host:port (write host:port)\n" +
			"f:4:30: networking.tls: clientCert and clientKey belong together (give both)\n" +
			"f:4:51: networking.tls.caCert: holds no certificate (give certificates in PEM)"},
	{"https without tls", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: https}]}\n",
		"f:4:20: conf.listeners[0].tls: an HTTPS listener needs certificates (add tls: {mode: TERMINATE, certificates: [{secret: NAME}]})"},
	{"port", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 70000, protocol: HTTP}]}\n",
		"f:4:27: conf.listeners[0].port: a port is a number from 1 to 65535"},
	{"listeners collide", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTP}, {port: 1, protocol: HTTP, hostname: '*'}]}\n",
		"f:4:47: conf.listeners[1]: port 1 with hostname * is that of listener 0 already"},
	{"protocols collide", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTP}, {port: 1, protocol: TCP}]}\n",
		"f:4:67: conf.listeners[1].protocol: port 1 is that of listener 0 already, whose protocol differs (give it another port; only HTTPS and TLS share one, by their hostnames)"},
	{"tcp twice", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: TCP}, {port: 1, protocol: TCP}]}\n",
		"f:4:46: conf.listeners[1]: port 1 is that of listener 0 already (give it another port; TCP listeners share none)"},
	{"tls beside https", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTPS, hostname: a.example.com, tls: {secret: a}}, {port: 1, protocol: TLS, hostname: b.example.com, tls: {mode: PASSTHROUGH}}]}\n", ""},
	{"tls and https of one name", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTPS, tls: {secret: a}}, {port: 1, protocol: TLS, tls: {mode: PASSTHROUGH}}]}\n",
		"f:4:66: conf.listeners[1]: port 1 with hostname * is that of listener 0 already"},
	{"tcp with names", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: TCP, hostname: a.example.com, tls: {secret: a}}]}\n",
		"f:4:55: conf.listeners[0].hostname: bytes without TLS name no host (remove it, or make the protocol TLS)\n" +
			"f:4:70: conf.listeners[0].tls: a TCP listener has no tls (remove it, or make the protocol TLS)"},
	{"tls without a mode", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: TLS, tls: {secret: a}}]}\n",
		"f:4:45: conf.listeners[0].tls: a TLS listener needs a mode (add tls: {mode: TERMINATE, certificates: [{secret: NAME}]}, or tls: {mode: PASSTHROUGH})"},
	{"passed through with a certificate", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: TLS, tls: {mode: PASSTHROUGH, secret: a, minVersion: TLS1_3, clientValidation: {secret: c}}}]}\n",
		"f:4:70: conf.listeners[0].tls.certificates: it is the backend that speaks TLS where TLS is passed through (remove it, or make the mode TERMINATE)\n" +
			"f:4:93: conf.listeners[0].tls.minVersion: it is the backend that speaks TLS where TLS is passed through (remove it, or make the mode TERMINATE)\n" +
			"f:4:101: conf.listeners[0].tls.clientValidation: it is the backend that speaks TLS where TLS is passed through (remove it, or make the mode TERMINATE)"},
	{"https passed through", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTPS, tls: {mode: PASSTHROUGH}}]}\n",
		"f:4:59: conf.listeners[0].tls.mode: requests can't be read where TLS is passed through (make the protocol TLS, or the mode TERMINATE)"},
	{"one certificate twice", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTPS, tls: {certificates: [{secret: a}, {secret: a}]}}]}\n",
		"f:4:90: conf.listeners[0].tls.certificates[1].secret: Secret a is that of certificate 0 already (remove one of them)"},
	{"clients", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTPS, tls: {secret: a, clientValidation: {mode: OPTIONAL, subjectAltNames: [{}, {dns: {regex: (}}], certificateHashes: [ab], spkiHashes: [AAAA]}}}]}\n",
		"f:4:64: conf.listeners[0].tls.clientValidation.secret: \"\" is no name of a Secret (name the Secret with the PEM of the authorities that sign clients)\n" +
			"f:4:117: conf.listeners[0].tls.clientValidation.subjectAltNames[0]: needs one of dns, uri and email\n" +
			"f:4:135: conf.listeners[0].tls.clientValidation.subjectAltNames[1].dns.regex: bad regular expression: missing closing ): `(` (write it in RE2's syntax)\n" +
			"f:4:161: conf.listeners[0].tls.clientValidation.certificateHashes[0]: a hash is 32 bytes in hexadecimal (openssl x509 -fingerprint -sha256 prints it)\n" +
			"f:4:179: conf.listeners[0].tls.clientValidation.spkiHashes[0]: a hash of a public key is 32 bytes in base64"},
	{"empty names", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTPS, tls: {secret: a, clientValidation: {secret: c, subjectAltNames: [{dns: ''}, {uri: {prefix: ''}}, {email: {regex: ''}}]}}}]}\n",
		"f:4:118: conf.listeners[0].tls.clientValidation.subjectAltNames[0].dns: the text is empty (leave out subjectAltNames to take any name)\n" +
			"f:4:124: conf.listeners[0].tls.clientValidation.subjectAltNames[1].uri: the text is empty (leave out subjectAltNames to take any name)\n" +
			"f:4:145: conf.listeners[0].tls.clientValidation.subjectAltNames[2].email: the text is empty (leave out subjectAltNames to take any name)"},
	{"versions", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTPS, tls: {secret: a, minVersion: TLS1_3, maxVersion: TLS1_2, cipherSuites: [RC4]}}, {port: 2, protocol: HTTPS, tls: {secret: a, minVersion: TLS1_1}}]}\n",
		"f:4:96: conf.listeners[0].tls.maxVersion: no version is left to speak (raise it, or lower minVersion)\n" +
			"f:4:104: conf.listeners[0].tls.cipherSuites: those of TLS 1.3 are fixed (remove them, or minVersion)\n" +
			"f:4:119: conf.listeners[0].tls.cipherSuites[0]: \"RC4\" is no cipher suite that proxies know (use ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256 and the like)\n" +
			"f:4:183: conf.listeners[1].tls.minVersion: expected TLS1_2, TLS1_3, found \"TLS1_1\" (did you mean TLS1_2?)"},
	{"http3", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTP, http3: true}, {port: 2, protocol: HTTPS, tls: {secret: a}, http3AdvertisedPort: 70000}, {port: 3, protocol: HTTPS, http3: true, tls: {secret: a, maxVersion: TLS1_2}}]}\n",
		"f:4:53: conf.listeners[0].http3: HTTP/3 is served by HTTPS listeners only (remove it, or make the protocol HTTPS)\n" +
			"f:4:126: conf.listeners[1].http3AdvertisedPort: HTTP/3 is not served (add http3: true, or remove it)\n" +
			"f:4:126: conf.listeners[1].http3AdvertisedPort: a port is a number from 1 to 65535\n" +
			"f:4:168: conf.listeners[2].http3: HTTP/3 speaks TLS 1.3 only (remove it, or tls.maxVersion)"},
	{"redirect to https", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: TCP, redirectToHttps: true}, {port: 2, protocol: HTTP, redirectToHttps: {port: 70000, statusCode: 200}}, {port: 3, protocol: HTTP, redirectToHttps: false}]}\n",
		"f:4:62: conf.listeners[0].redirectToHttps: only an HTTP listener redirects to HTTPS (remove it, or make the protocol HTTP)\n" +
			"f:4:119: conf.listeners[1].redirectToHttps.port: a port is a number from 1 to 65535\n" +
			"f:4:138: conf.listeners[1].redirectToHttps.statusCode: a redirect has status 301, 302, 303, 307 or 308\n" +
			"f:4:188: conf.listeners[2].redirectToHttps: expected a mapping, found \"false\""},
	{"options of a port", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: 1, protocol: HTTP, proxyProtocol: REQUIRE}, {port: 1, protocol: HTTP, hostname: a.example.com}, {port: 2, protocol: HTTP, trustedHops: 1}, {port: 2, protocol: HTTP, hostname: a.example.com, trustedHops: 2}, {port: 3, protocol: TCP, trustedHops: 1, resources: {bufferLimit: 1}}]}\n",
		"f:4:71: conf.listeners[1].proxyProtocol: listener 0 on the same port has another; it is read before the hostname is known (write the same for both)\n" +
			"f:4:230: conf.listeners[3].trustedHops: listener 2 on the same port has 1; it is decided before the hostname is known (write the same for both)\n" +
			"f:4:272: conf.listeners[4].trustedHops: only requests name their client in X-Forwarded-For (remove it, or use proxyProtocol)\n" +
			"f:4:300: conf.listeners[4].resources.bufferLimit: 1 bytes can't bound a connection's buffer (use 16384 to 1073741824)"},
	{"tcp rules", routeHead + "conf: {tcp: {hostnames: [a_b], rules: [{backends: [{weight: 0, destination: {kuma.io/service: s}}]}, {}]}}\n",
		"f:4:26: conf.tcp.hostnames[0]: \"a_b\" is no hostname (write api.example.com, \"*.example.com\" or \"*\")\n" +
			"f:4:41: conf.tcp.rules[0].backends: the weights are all 0\n" +
			"f:4:102: conf.tcp.rules[1]: needs backends\n" +
			"f:4:102: conf.tcp.rules[1]: nothing of a connection tells rules apart, so there is one (put its backends into the first rule, with weights, or into a route of other hostnames)"},
	{"tcp as a list", routeHead + "conf: {tcp: [{destination: [{destination: {kuma.io/service: s}}]}]}\n", ""},
	{"neither http nor tcp", routeHead + "conf: {}\n",
		"f:4:1: conf.http: needs rules"},
	{"backend", "type: Mesh\nname: m\nmtls: {enabledBackend: b, backends: [{name: a, type: builtin}]}\n", `f:3:24: mtls.enabledBackend: no backend is called "b" (did you mean a?)`},
	{"rotation", "type: Mesh\nname: m\nmtls: {backends: [{name: a, type: builtin, dpCert: {rotation: {expiration: 30s}}}]}\n",
		"f:3:76: mtls.backends[0].dpCert.rotation.expiration: must be at least 1m0s"},
	{"log backend", "type: Mesh\nname: m\nlogging: {defaultBackend: fil, backends: [{name: file, type: file, conf: {path: log, address: 'a:1'}}, {name: tcp, type: tcp, conf: {address: nowhere}, format: '%RESPONSE_COD% %REQ%'}]}\n",
		"f:3:27: logging.defaultBackend: no backend is called \"fil\" (did you mean file?)\n" +
			"f:3:81: logging.backends[0].conf.path: \"log\" is no absolute path of a file\n" +
			"f:3:95: logging.backends[0].conf.address: a backend of this type has no address (remove it)\n" +
			"f:3:143: logging.backends[1].conf.address: \"nowhere\" is not host:port (write host:port)\n" +
			"f:3:161: logging.backends[1].format: unknown command %RESPONSE_COD%; did you mean RESPONSE_CODE?"},
	{"log that tells secrets", "type: TrafficLog\nname: t\n" + anyToAny + "conf: {file: {path: /etc/../proc/x}, format: {json: {a: '%ENVIRONMENT(HOME)%', b: '50%', c: '%METADATA(FOO:a)%'}}}\n",
		"f:5:21: conf.file.path: \"/etc/../proc/x\" is no absolute path of a file\n" +
			"f:5:54: conf.format.json[a]: %ENVIRONMENT% is not to be had, as it could tell secrets of the proxy's machine\n" +
			"f:5:80: conf.format.json[b]: a % begins a command such as %RESPONSE_CODE%, or is written twice\n" +
			"f:5:90: conf.format.json[c]: \"FOO:a\" is no argument for %METADATA%"},
	{"format of nothing", "type: TrafficLog\nname: t\n" + anyToAny + "conf: {backend: b, format: a}\n",
		"f:5:28: conf.format: there is nothing that it is the format of (set the format of the backend in the Mesh, or add file, tcp or openTelemetry)"},
	{"trace", "type: MeshTrafficTrace\nname: t\nselectors: [{match: {a: b}}]\nconf: {backend: {type: zipkn, zipkin: {url: 'http://u:p@z:9411/x', apiVersion: httpJsonV1}}, sampling: 101, tags: [{name: a}]}\n",
		"f:4:24: conf.backend.type: expected ZIPKIN, DATADOG, OPENTELEMETRY, found \"zipkn\" (did you mean ZIPKIN?)\n" +
			"f:4:45: conf.backend.zipkin.url: a URL holds no credentials, as everybody may read it\n" +
			"f:4:80: conf.backend.zipkin.apiVersion: spans are sent as httpJson only (write httpJson)\n" +
			"f:4:104: conf.sampling: a share is a percentage from 0 to 100\n" +
			"f:4:116: conf.tags[0]: needs one of literal and header"},
	{"metrics", "type: Mesh\nname: m\nmetrics: {enabledBackend: p, backends: [{name: p, type: prometheus, conf: {port: 99999, path: metrics, labels: {zone: a}}}]}\n",
		"f:3:82: metrics.backends[0].conf.port: a port is a number from 1 to 65535\n" +
			"f:3:95: metrics.backends[0].conf.path: a path begins with / (write \"/metrics\")\n" +
			"f:3:113: metrics.backends[0].conf.labels[zone]: the label zone is there already (choose another name)"},
	{"template", "type: ProxyTemplate\nname: t\nselectors: [{match: {a: b}}]\nconf: {imports: [gateway-proxy], resources: [{name: a, resource: 'x: ['}], modifications: [{httpFilter: {operation: addBefor, value: 'name: a'}}, {cluster: {operation: add}}], patches: [{type: cluster, jsonPatch: [{op: add, path: x}]}]}\n",
		"f:4:18: conf.imports[0]: expected default-proxy, found \"gateway-proxy\"\n" +
			"f:4:66: conf.resources[0].resource: bad YAML: line 1: did not find expected node content\n" +
			"f:4:117: conf.modifications[0].httpFilter.operation: expected addFirst, addLast, addBefore, addAfter, patch, remove, found \"addBefor\" (did you mean addBefore?)\n" +
			"f:4:148: conf.modifications[1].cluster.value: needs an object of Envoy, as YAML or JSON\n" +
			"f:4:215: conf.patches[0].jsonPatch[0]: add needs a value (to write null, use remove)\n" +
			"f:4:231: conf.patches[0].jsonPatch[0].path: \"x\" is no JSON pointer (begin it with /, and write ~1 for / and ~0 for ~ within a name)"},
	{"split and destination", "type: TrafficRoute\nname: t\n" + anyToAny + "conf: {destination: {kuma.io/service: a}, split: [{weight: 1, destination: {kuma.io/service: a}}]}\n",
		"f:5:1: conf: destination excludes split (keep one of them)"},
	{"method as a text", "type: TrafficRoute\nname: t\n" + anyToAny + "conf: {destination: {kuma.io/service: a}, http: [{match: {method: GET}, destination: {kuma.io/service: b}}]}\n", ""},
	{"limit without numbers", limitHead + "conf: {http: [{keys: [address]}]}\n",
		"f:4:15: conf.http[0].interval: needs a duration, such as 10s\n" +
			"f:4:15: conf.http[0].requests: needs a number above 0 (to let none pass, answer with a directResponse)"},
	{"limit of the document", "apiVersion: kuma.io/v1alpha1\nkind: RateLimit\nmetadata: {name: api-rate-limit, namespace: kuma-system}\nspec:\n  mesh: m\n  selectors: [{match: {kuma.io/service: edge}}]\n" +
		"  conf: {http: [{match: [{path: {match: PREFIX, value: /a}}], requests: 10, interval: 10s, onRateLimit: {status: 429, headers: [{name: X-Rate-Limit-Retry-After, value: '10'}]}}]}\n", ""},
	{"limit of Kuma", "type: RateLimit\nname: l\nmesh: m\n" + anyToAny + "conf: {http: {requests: 5, interval: 10s, onRateLimit: {status: 423, headers: [{key: x-kuma-rate-limited, value: 'true', append: true}]}}}\n", ""},
	{"limit of both kinds", "type: RateLimit\nname: l\nselectors: [{match: {a: b}}]\n" + anyToAny + "conf: {http: {requests: 5, interval: 10s}}\n",
		"f:1:1: selectors exclude sources and destinations (write selectors to limit gateways, or sources and destinations to limit a service)"},
	{"limit of nothing", "type: RateLimit\nname: l\nconf: {http: {requests: 5, interval: 10s}}\n",
		"f:1:1: needs selectors, or sources and destinations (write selectors to limit gateways, or sources and destinations to limit a service)"},
	{"limit out of bounds", limitHead + "conf: {http: {requests: 5, interval: 10ms, maxKeys: 5, onRateLimit: {status: 302, retryAfter: true, headers: [{name: 'a b'}]}}}\n",
		"f:4:38: conf.http[0].interval: must be at least 50ms\n" +
			"f:4:53: conf.http[0].maxKeys: is for a limit with keys\n" +
			"f:4:78: conf.http[0].onRateLimit.status: 302 tells of no refusal (use 429, or another from 400 to 599)\n" +
			"f:4:95: conf.http[0].onRateLimit.retryAfter: goes with status 429 (leave the status out, or give the header under headers)\n" +
			"f:4:118: conf.http[0].onRateLimit.headers[0].name: \"a b\" is no name for a header"},
	{"limit with keys", limitHead + "conf: {http: {requests: 5, interval: 1s, keys: [{header: x}, {header: X}, {query: ''}, {address: {ipv4Prefix: 33}}, {}]}}\n",
		"f:4:62: conf.http[0].keys[1]: tells apart by what another key tells by (keep one of them)\n" +
			"f:4:83: conf.http[0].keys[2].query: needs the name of a query parameter\n" +
			"f:4:111: conf.http[0].keys[3].address.ipv4Prefix: a network of this kind has at most 32 bits\n" +
			"f:4:117: conf.http[0].keys[4]: needs one of address, header, claim, query and path"},
	{"shared limit", limitHead + "conf: {http: {requests: 5, interval: 10s, shared: {domain: A_B, timeout: 1m}}}\n",
		"f:4:38: conf.http[0].interval: a shared limit counts in 1s, 1m, 1h or 24h\n" +
			"f:4:43: conf.http[0].shared.service: needs destination or url\n" +
			"f:4:60: conf.http[0].shared.domain: \"A_B\" is no name of a domain (use lower-case letters, digits and hyphens)\n" +
			"f:4:74: conf.http[0].shared.timeout: must be at most 10s"},
	{"faults of Kuma", "apiVersion: kuma.io/v1alpha1\nkind: FaultInjection\nmesh: default\nmetadata: {name: fi1}\nspec:\n  sources: [{match: {kuma.io/service: frontend_default_svc_80, version: '0.1', kuma.io/protocol: http}}]\n" +
		"  destinations: [{match: {kuma.io/service: backend_default_svc_80, kuma.io/protocol: http}}]\n" +
		"  conf: {abort: {httpStatus: 500, percentage: 50}, delay: {percentage: 50.5, value: 5s}, responseBandwidth: {limit: 50 mbps, percentage: 50}}\n", ""},
	{"faults", "type: FaultInjection\nname: f\n" + anyToAny + "conf: {http: [{}, {abort: {httpStatus: 99, percentage: 101}, delay: {}, responseBandwidth: {limit: 50 mb}}]}\n",
		"f:5:15: conf.http[0]: needs abort, delay or responseBandwidth\n" +
			"f:5:40: conf.http[1].abort.httpStatus: 99 is no status of an answer; use 200 to 599\n" +
			"f:5:56: conf.http[1].abort.percentage: a share is from 0 to 100 percent\n" +
			"f:5:62: conf.http[1].delay.value: needs a duration, such as 5s\n" +
			"f:5:100: conf.http[1].responseBandwidth.limit: \"50 mb\" is no bandwidth (write bits a second, such as 50 mbps)"},
	{"shared limit of an answer", routeHead + "conf: {http: [{filters: [{directResponse: {status: 200}}, {rateLimit: {requests: 1, interval: 1s, shared: {service: {url: 'http://l:1'}}}}]}]}\n",
		"f:4:60: conf.http[0].filters[1].rateLimit: a shared limit counts what is forwarded, and this rule answers itself (remove shared)"},
	{"limits as filters", filterHead + "conf: {filters: [{type: BODY_SIZE, bodySize: {max: 1 Mi}}, {rateLimit: {requests: 1, interval: 1s}}, {type: Admission}, {bandwidth: {request: 50 mbps}}, {fault: {delay: {value: 1s}}}]}\n", ""},
	{"bad limits as filters", filterHead + "conf: {filters: [{bodySize: {max: much}}, {admission: {samplingWindow: 1500ms, successRate: 0, aggression: 0.5}}, {bandwidth: {}}, {fault: {}}, {rateLimit: {interval: 1s}}]}\n",
		"f:4:35: conf.filters[0].bodySize.max: \"much\" is no number of bytes (write bytes, such as 512Ki, 1Mi or 10MB)\n" +
			"f:4:72: conf.filters[1].admission.samplingWindow: proxies count whole seconds\n" +
			"f:4:93: conf.filters[1].admission.successRate: a success rate is from 1 to 100 percent\n" +
			"f:4:108: conf.filters[1].admission.aggression: from 1 to 100\n" +
			"f:4:116: conf.filters[2].bandwidth: needs request or response\n" +
			"f:4:133: conf.filters[3].fault: needs abort, delay or responseBandwidth\n" +
			"f:4:146: conf.filters[4].rateLimit.requests: needs a number above 0 (to let none pass, answer with a directResponse)"},
	{"retry", "type: Retry\nname: t\n" + anyToAny + "conf: {http: {retryOn: [gatway_error, 5xx]}}\n",
		`f:5:25: conf.http.retryOn[0]: unknown condition "gatway_error" (did you mean gateway_error?)`},
	{"retry with hyphens", "type: Retry\nname: t\n" + anyToAny + "conf: {http: {retryOn: [gateway-error, 5xx]}}\n", ""},
	{"directive", "# comment\n%YAML 1.1\n---\ntype: Mesh\nname: m\n---\n# nothing\n---\ntype: Mesh\nname: N\n",
		`f:10:7: name: "N" is no name for a Mesh (use lower-case letters, digits and hyphens, at most 63)`},
	{"types and rules at once", "type: MeshGateway\nname: g\nselectors: [{match: {a: b}}]\nconf: {listeners: [{port: x, protocol: HTTP}, {port: 0, protocol: HTTP, hostname: a_b}]}\n",
		"f:4:27: conf.listeners[0].port: expected a whole number from 0 to 4294967295, found \"x\"\n" +
			"f:4:54: conf.listeners[1].port: a port is a number from 1 to 65535\n" +
			`f:4:83: conf.listeners[1].hostname: "a_b" is no hostname (write api.example.com, "*.example.com" or "*")`},
	{"dataplane", "type: Dataplane\nname: d\nnetworking: {address: x, inbound: [{port: 1, tags: {kuma.io/service: a}}]}\n", `f:3:23: networking.address: "x" is no IP address`},
	{"inbound to itself", "type: Dataplane\nname: d\nnetworking: {address: 127.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: a}}]}\n",
		"f:3:44: networking.inbound[0]: port 80 leads back to the proxy itself (set servicePort to the workload's own port, or serviceAddress to its address)"},
	{"inbound of all addresses to itself", "type: Dataplane\nname: d\nnetworking: {address: 10.0.0.1, inbound: [{port: 80, address: 0.0.0.0, tags: {kuma.io/service: a}}]}\n",
		"f:3:43: networking.inbound[0]: port 80 leads back to the proxy itself (set servicePort to the workload's own port, or serviceAddress to its address)"},
	{"inbound to the workload", "type: Dataplane\nname: d\nnetworking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: a}}]}\n", ""},
	{"gateway or sidecar", "type: Dataplane\nname: d\nnetworking: {address: 1.2.3.4, inbound: [{port: 1, tags: {kuma.io/service: a}}], gateway: {type: BUILTIN, tags: {kuma.io/service: g}}}\n",
		"f:3:1: networking: gateway excludes inbound and outbound (keep one of them)"},
	{"protocol", "type: Dataplane\nname: d\nnetworking: {address: 1.2.3.4, inbound: [{port: 1, tags: {kuma.io/service: a, kuma.io/protocol: htp}}]}\n",
		`f:3:79: networking.inbound[0].tags[kuma.io/protocol]: expected tcp, http, http2 or grpc, found "htp" (did you mean http?)`},
	{"secret", "type: Secret\nname: s\n", "f:1:1: needs data (add data: with the content in base64)"},
	{"secret is not repeated", "type: Secret\nname: s\ndata: hunter2!\n", "f:3:7: data: the bytes are not base64 (encode it with base64)"},
	{"secret that reads as an alias is not repeated", "type: Secret\nname: s\ndata: *hunter2\n",
		"f:1:1: bad YAML: an alias of an anchor that is nowhere (put a text that begins with * in quotes)"},
	{"secret in the wrong place is not repeated", "type: Secret\nname: s\nspec: hunter2\n",
		"f:3:7: spec: expected a mapping, found a text"},
	{"another's object", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {whatever: 1}\n", ""},
	{"list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: kuma.io/v1alpha1, kind: Mesh, metadata: {name: A}}]\n",
		`f:3:69: metadata.name: "A" is no name for a Mesh (use lower-case letters, digits and hyphens, at most 63)`},
	{"errors of several documents", "type: Mesh\nname: \"\\.\"\n---\ntype: Mesh\nname: M\n",
		"f:2:8: bad YAML: \\. is no escape in a double-quoted text (use single quotes, or double the backslash: \\\\)\n" +
			`f:5:7: name: "M" is no name for a Mesh (use lower-case letters, digits and hyphens, at most 63)`},
}

func TestWritersAreRefused(t *testing.T) {
	doc := []byte("{type: Dataplane, name: d, networking: {address: 1.2.3.4, outbound: [{port: 1, tags: {kuma.io/service: s}}]}}")
	if err := Decode("f", doc, Options{}).Err(); err != nil {
		t.Error(err)
	}
	want := "f:1:8: type: Dataplane is presented by its proxy and cannot be applied (give the document to the proxy)"
	if err := Decode("f", doc, Options{RefuseProxy: true}).Err(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := Decode("f", []byte("{type: SigningKey, name: k}"), Options{System: true}).Err(); err != nil {
		t.Error(err)
	}
}

func TestMessages(t *testing.T) {
	for _, c := range messages {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := Decode("f", []byte(c.doc), Options{}).Err(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
