package resource

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Commands of log formats that stand for what the mesh knows; all others are Envoy's.
const (
	LogMesh                     = "KUMA_MESH"
	LogZone                     = "KUMA_ZONE"
	LogSourceService            = "KUMA_SOURCE_SERVICE"
	LogDestinationService       = "KUMA_DESTINATION_SERVICE"
	LogSourceAddress            = "KUMA_SOURCE_ADDRESS"
	LogSourceAddressWithoutPort = "KUMA_SOURCE_ADDRESS_WITHOUT_PORT"
	LogTrafficDirection         = "KUMA_TRAFFIC_DIRECTION"
)

var meshCommands = []string{LogMesh, LogZone, LogSourceService, LogDestinationService, LogSourceAddress, LogSourceAddressWithoutPort, LogTrafficDirection}

// Commands of Envoy 1.40, by what they take in parentheses. ENVIRONMENT is not among them: who may log could read what the
// environment of the proxy holds.
var (
	plainCommands = words(`REQUEST_HEADERS_BYTES BYTES_RECEIVED BYTES_RETRANSMITTED PACKETS_RETRANSMITTED PROTOCOL UPSTREAM_PROTOCOL
		RESPONSE_CODE CONNECTION_TERMINATION_DETAILS RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES BYTES_SENT
		UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_WIRE_BYTES_SENT UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT
		UPSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT
		DOWNSTREAM_HEADER_BYTES_RECEIVED DURATION REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION
		DOWNSTREAM_HANDSHAKE_DURATION ROUNDTRIP_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG ROUTE_NAME VIRTUAL_CLUSTER_NAME
		UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_LOCAL_ADDRESS
		UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_PORT UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT
		UPSTREAM_REMOTE_PORT UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_TRANSPORT_FAILURE_REASON
		DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT
		DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT
		DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT CONNECTION_ID UPSTREAM_CONNECTION_ID
		STREAM_ID UNIQUE_ID GRPC_STATUS_NUMBER DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_LOCAL_DNS_SAN
		DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_LOCAL_IP_SAN DOWNSTREAM_PEER_IP_SAN DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_PEER_SUBJECT
		DOWNSTREAM_PEER_ISSUER DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_VERSION DOWNSTREAM_PEER_FINGERPRINT_256
		DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_CERT UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_ISSUER
		UPSTREAM_PEER_URI_SAN UPSTREAM_PEER_DNS_SAN UPSTREAM_PEER_CERT UPSTREAM_TLS_CIPHER UPSTREAM_TLS_VERSION UPSTREAM_TLS_SESSION_ID
		UPSTREAM_LOCAL_URI_SAN UPSTREAM_LOCAL_DNS_SAN HOSTNAME FILTER_CHAIN_NAME ACCESS_LOG_TYPE TRACE_ID CUSTOM_FLAGS LOCAL_REPLY_BODY
		TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT`)
	maybeCommands = words(`START_TIME START_TIME_LOCAL EMIT_TIME EMIT_TIME_LOCAL DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CERT_V_END
		UPSTREAM_PEER_CERT_V_START UPSTREAM_PEER_CERT_V_END REQUESTED_SERVER_NAME GRPC_STATUS RESPONSE_CODE_DETAILS PATH QUERY_PARAMS`)
	argumentCommands = words(`REQ RESP TRAILER DYNAMIC_METADATA CLUSTER_METADATA UPSTREAM_METADATA METADATA FILTER_STATE
		UPSTREAM_FILTER_STATE QUERY_PARAM COMMON_DURATION`)
	// argumentShapes are what a command takes in parentheses, where anything else makes Envoy refuse the listener.
	argumentShapes = map[string]*regexp.Regexp{
		"METADATA":              regexp.MustCompile(`^(DYNAMIC|CLUSTER|ROUTE|UPSTREAM_HOST|VIRTUAL_HOST):[^:]+(:[^:]+)*$`),
		"REQ":                   headerArgument,
		"RESP":                  headerArgument,
		"TRAILER":               headerArgument,
		"FILTER_STATE":          regexp.MustCompile(`^[^:]+(:(PLAIN|TYPED))?$`),
		"UPSTREAM_FILTER_STATE": regexp.MustCompile(`^[^:]+(:(PLAIN|TYPED))?$`),
		"COMMON_DURATION":       regexp.MustCompile(`^[A-Z_]+:[A-Z_]+:(ms|us|ns)$`),
		"GRPC_STATUS":           regexp.MustCompile(`^(CAMEL_STRING|SNAKE_STRING|NUMBER)$`),
		"PATH":                  regexp.MustCompile(`^(WQ|NQ)(:(ORIG|PATH|ORIG_OR_PATH))?$`),
		"QUERY_PARAMS":          regexp.MustCompile(`^(ORIG|PATH|ORIG_OR_PATH)$`),
		"REQUESTED_SERVER_NAME": regexp.MustCompile(`^(SNI_ONLY|SNI_FIRST|HOST_FIRST)(:(ORIG|HOST|ORIG_OR_HOST))?$`),
		"RESPONSE_CODE_DETAILS": regexp.MustCompile(`^ALLOW_WHITESPACES$`),
	}
	headerArgument = regexp.MustCompile(`^:?[-!#$%&'*+.^_|~0-9A-Za-z]+(\?:?[-!#$%&'*+.^_|~0-9A-Za-z]+)?$`)
	command        = regexp.MustCompile(`^%([A-Z0-9_]+)(?:\(([^()]*)\))?(?::([0-9]+))?%`)
)

func words(s string) []string { return strings.Fields(s) }

// LogPiece is a part of a log format: a command, or Text where Command is empty.
type LogPiece struct {
	// Text is as it was written, also of a command.
	Text string
	// Command is its name, such as REQ or KUMA_MESH.
	Command string
}

// LogPieces takes a log format apart. The error says what of it neither Envoy nor this project knows.
func LogPieces(format string) ([]LogPiece, error) {
	var out []LogPiece
	for rest := format; rest != ""; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			return append(out, LogPiece{Text: rest}), nil
		}
		if i > 0 {
			out = append(out, LogPiece{Text: rest[:i]})
			rest = rest[i:]
			continue
		}
		if strings.HasPrefix(rest, "%%") {
			out, rest = append(out, LogPiece{Text: "%%"}), rest[2:]
			continue
		}
		m := command.FindStringSubmatch(rest)
		if m == nil {
			return nil, errors.New("a % begins a command such as %RESPONSE_CODE%, or is written twice")
		}
		hasArgument := strings.HasPrefix(rest[1+len(m[1]):], "(")
		if err := checkCommand(m[1], m[2], hasArgument, m[3] != ""); err != nil {
			return nil, err
		}
		out, rest = append(out, LogPiece{Text: m[0], Command: m[1]}), rest[len(m[0]):]
	}
	return out, nil
}

func checkCommand(name, argument string, hasArgument, hasLength bool) error {
	switch {
	case slices.Contains(plainCommands, name) || slices.Contains(meshCommands, name):
		if hasArgument || hasLength {
			return fmt.Errorf("%%%s%% takes no argument and no length", name)
		}
		return nil
	case slices.Contains(maybeCommands, name):
		if !hasArgument && !hasLength {
			return nil
		}
	case slices.Contains(argumentCommands, name):
		if argument == "" {
			return fmt.Errorf("%%%s%% needs an argument, as in %%%s(NAME)%%", name, name)
		}
	case name == "ENVIRONMENT":
		return errors.New("%ENVIRONMENT% is not to be had, as it could tell secrets of the proxy's machine")
	default:
		known := slices.Concat(plainCommands, maybeCommands, argumentCommands, meshCommands)
		err := fmt.Errorf("unknown command %%%s%%", name)
		if hint := didYouMean(name, known); hint != "" {
			err = fmt.Errorf("%w; %s", err, hint)
		}
		return err
	}
	if shape := argumentShapes[name]; shape != nil && !shape.MatchString(argument) {
		return fmt.Errorf("%q is no argument for %%%s%%", argument, name)
	}
	if hasLength && (strings.HasPrefix(name, "START_TIME") || strings.HasPrefix(name, "EMIT_TIME")) {
		return fmt.Errorf("%%%s%% takes no length", name)
	}
	return nil
}
