package resource

import (
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

const meshPackage = "zoneforge.mesh.v1alpha1."

// fieldAliases are other names of fields, by message: what people have already written for Kuma in its several spellings.
var fieldAliases = map[protoreflect.FullName]map[string]protoreflect.Name{
	meshPackage + "Selector":                 {"matchLabels": "match"},
	meshPackage + "MeshGatewayRoute.Rule":    {"match": "matches", "destination": "backends"},
	meshPackage + "Metrics.Conf":             {"skipMTLS": "skip_mtls"},
	meshPackage + "Tracing.Conf":             {"traceId128Bit": "trace_id_128bit"},
	meshPackage + "ZipkinCollector":          {"traceId128Bit": "trace_id_128bit"},
	meshPackage + "HttpRules.Rule":           {"match": "matches"},
	meshPackage + "CircuitBreaker":           {"selectors": "destinations"},
	meshPackage + "HealthCheck":              {"selectors": "destinations"},
	meshPackage + "MeshGatewayRoute.TcpRule": {"destination": "backends"},
	meshPackage + "RateLimit.Rule":           {"match": "matches"},
	meshPackage + "OnRateLimit.Header":       {"key": "name"},
	meshPackage + "JwtClaimToHeader":         {"headerName": "header", "header_name": "header", "claimName": "claim", "claim_name": "claim"},
	meshPackage + "Oidc":                     {"hmacSecret": "cookie_secret", "hmac_secret": "cookie_secret"},
}

// respell gives the canonical shape of a node that stands for a message. The nodes of the author stay in it, so that
// positions hold; n itself is not changed, as an alias may use it elsewhere.
func respell(name protoreflect.FullName, n *yaml.Node) *yaml.Node {
	switch name {
	case meshPackage + "MeshGatewayRoute.Http", meshPackage + "MeshGatewayRoute.Tcp":
		if n.Kind == yaml.SequenceNode {
			return mapping(n, implied(n, "rules"), n)
		}
	case meshPackage + "MeshGateway.RedirectToHttps":
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" && strings.EqualFold(n.Value, "true") {
			return mapping(n)
		}
	case meshPackage + "MeshGateway.Tls":
		return replaceKey(n, "secret", oneSecret("certificates"))
	case meshPackage + "ApiKey":
		return replaceKey(n, "secret", oneSecret("credentials"))
	case meshPackage + "RateLimit.Conf":
		return replaceKey(n, "http", func(key, value *yaml.Node) (*yaml.Node, *yaml.Node) { return key, listOfOne(value) })
	case meshPackage + "FaultInjection.Conf":
		if n.Kind == yaml.MappingNode && len(n.Content) > 0 && !hasKey(n, "http") {
			return mapping(n, implied(n, "http"), listOfOne(n))
		}
	case meshPackage + "LimitKey":
		if n.Kind == yaml.ScalarNode && (n.Value == "address" || n.Value == "path") {
			return mapping(n, n, mapping(n))
		}
	case meshPackage + "Filter":
		return withoutType(n)
	case meshPackage + "HttpRules.Rule":
		return replaceKey(n, "match", func(key, value *yaml.Node) (*yaml.Node, *yaml.Node) {
			if value.Kind == yaml.MappingNode && len(value.Content) == 2 {
				list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: value.Line, Column: value.Column}
				list.Content = []*yaml.Node{mapping(value, implied(value, "path"), value)}
				return key, list
			}
			return key, value
		})
	case meshPackage + "Jwt":
		return replaceKey(n, "providers", func(key, value *yaml.Node) (*yaml.Node, *yaml.Node) {
			return key, namedItems(value)
		})
	case meshPackage + "HttpUri":
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
			return mapping(n, implied(n, "uri"), n)
		}
	case meshPackage + "Mirror":
		return replaceKey(n, "backend", func(key, value *yaml.Node) (*yaml.Node, *yaml.Node) {
			if value.Kind == yaml.MappingNode && len(value.Content) == 2 && value.Content[0].Value == "destination" {
				return value.Content[0], value.Content[1]
			}
			return key, value
		})
	case meshPackage + "Redirect":
		return replaceKey(n, "path", func(key, value *yaml.Node) (*yaml.Node, *yaml.Node) {
			if value.Kind == yaml.MappingNode && len(value.Content) == 2 {
				return value.Content[0], value.Content[1]
			}
			return key, value
		})
	case meshPackage + "PathMatch":
		if n.Kind == yaml.MappingNode && len(n.Content) == 2 {
			switch rule := n.Content[0].Value; rule {
			case "exact", "prefix", "regex":
				return mapping(n, word(n.Content[0], "match"), word(n.Content[0], strings.ToUpper(rule)),
					word(n.Content[0], "value"), n.Content[1])
			}
		}
	case meshPackage + "LogFormat":
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
			return mapping(n, implied(n, "text"), n)
		}
	case meshPackage + "TraceBackend":
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
			return mapping(n, implied(n, "name"), n)
		}
	case meshPackage + "ProxyTemplate.Resource":
		return replaceKey(n, "resource", inText)
	case meshPackage + "ProxyTemplate.Patch":
		return replaceKey(replaceKey(n, "mergePatch", inText), "merge_patch", inText)
	case meshPackage + "ProxyTemplate.JsonOperation", meshPackage + "ProxyTemplate.Cluster", meshPackage + "ProxyTemplate.Listener",
		meshPackage + "ProxyTemplate.Filter", meshPackage + "ProxyTemplate.VirtualHost":
		return replaceKey(n, "value", inText)
	case meshPackage + "CircuitBreaker.Conf":
		return respellOutliers(n)
	case meshPackage + "StringMatcher":
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
			return mapping(n, implied(n, "exact"), n)
		}
		if n.Kind == yaml.MappingNode && len(n.Content) == 4 {
			match, value := n.Content[0:2], n.Content[2:4]
			if match[0].Value == "value" {
				match, value = value, match
			}
			if match[0].Value == "match" && value[0].Value == "value" {
				switch rule := strings.ToLower(match[1].Value); rule {
				case "exact", "prefix", "regex":
					return mapping(n, word(match[0], rule), value[1])
				}
			}
		}
	}
	return n
}

// withoutType drops the type of a filter where it says what the filter's one other key says, such as {type: ExtAuth, extAuth: {...}},
// and makes it that key where there is no other.
func withoutType(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Value != "type" || value.Kind != yaml.ScalarNode {
			continue
		}
		switch {
		case len(n.Content) == 2:
			if field := filterField(value.Value); field != "" {
				return mapping(n, word(value, field), mapping(value))
			}
		case len(n.Content) == 4:
			other := n.Content[2-i]
			if field := filterField(other.Value); field != "" && field == filterField(value.Value) {
				return mapping(n, other, n.Content[3-i])
			}
		}
	}
	return n
}

// filterField is the field of a filter that a text names, in any case and with or without underscores; empty for none.
func filterField(text string) string {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	fields := (&meshv1.Filter{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := fields.Get(i).JSONName(); plain(name) == plain(text) {
			return name
		}
	}
	return ""
}

// oneSecret makes `secret: NAME` the only one of a list.
func oneSecret(list string) func(key, value *yaml.Node) (*yaml.Node, *yaml.Node) {
	return func(key, value *yaml.Node) (*yaml.Node, *yaml.Node) {
		items := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: value.Line, Column: value.Column}
		items.Content = []*yaml.Node{mapping(value, key, value)}
		return word(key, list), items
	}
}

// namedItems makes a list whose items hold their name a mapping by these names. Items without one stay a list, which is then refused.
func namedItems(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return n
	}
	out := mapping(n)
	for _, item := range n.Content {
		var name *yaml.Node
		rest := mapping(item)
		for i := 0; item.Kind == yaml.MappingNode && i+1 < len(item.Content); i += 2 {
			if item.Content[i].Value == "name" {
				name = item.Content[i+1]
			} else {
				rest.Content = append(rest.Content, item.Content[i], item.Content[i+1])
			}
		}
		if name == nil {
			return n
		}
		out.Content = append(out.Content, name, rest)
	}
	return out
}

func mapping(at *yaml.Node, content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: at.Line, Column: at.Column, Content: content}
}

func word(at *yaml.Node, text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Line: at.Line, Column: at.Column}
}

// impliedMark stands where the parser puts comments, which begin with #.
const impliedMark = "implied"

// implied is a key that the author left out, so that it is left out of paths too.
func implied(at *yaml.Node, text string) *yaml.Node {
	n := word(at, text)
	n.LineComment = impliedMark
	return n
}

// shownMark begins a mark that says how the author wrote a key.
const shownMark = "shown "

// shown is a key whose path is given in the author's words.
func shown(at *yaml.Node, text, written string) *yaml.Node {
	n := word(at, text)
	n.LineComment = shownMark + written
	return n
}

// listOfOne is a list of the one mapping that stands for it; its place in the list is the author's own.
func listOfOne(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Line: n.Line, Column: n.Column, Content: []*yaml.Node{n}}
}

func hasKey(n *yaml.Node, name string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return true
		}
	}
	return false
}

func replaceKey(n *yaml.Node, name string, f func(key, value *yaml.Node) (*yaml.Node, *yaml.Node)) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			content := append([]*yaml.Node(nil), n.Content...)
			content[i], content[i+1] = f(n.Content[i], n.Content[i+1])
			return mapping(n, content...)
		}
	}
	return n
}

// inText writes a value that is no text as YAML, for fields that hold a document of another schema.
func inText(key, value *yaml.Node) (*yaml.Node, *yaml.Node) {
	if value.Kind == yaml.ScalarNode && (value.ShortTag() == "!!str" || value.ShortTag() == "!!null" && value.Value == "") {
		return key, value
	}
	text, err := yaml.Marshal(value)
	if err != nil {
		return key, value // an alias of what stands elsewhere; the decoder says that it is no text
	}
	return key, word(value, strings.TrimSuffix(string(text), "\n"))
}
