package server

import (
	"errors"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/xds"
)

// versionsField is that of the versions which a proxy has, in DeltaDiscoveryRequest, and entryKey and entryValue are those of one of them.
const (
	versionsField        = 5
	entryKey, entryValue = 1, 2
)

// nodeField is that of the node, in DeltaDiscoveryRequest, and extensionsField of its extensions.
const nodeField, extensionsField = 1, 9

// typeURLField and responseNonceField are those of the type and of the nonce of the response that it answers, in DeltaDiscoveryRequest.
const typeURLField, responseNonceField = 2, 6

var errRequest = errors.New("the request is not an encoded DeltaDiscoveryRequest")

// acknowledgement is a request that acknowledges endpoints, and nothing else: the nonce of their response.
type acknowledgement string

// GetNode is nil: it comes after the first request.
func (acknowledgement) GetNode() *corev3.Node { return nil }

// GetTypeUrl is that of endpoints.
func (acknowledgement) GetTypeUrl() string { return xds.TypeEndpoint }

// GetErrorDetail is nil.
func (acknowledgement) GetErrorDetail() *statuspb.Status { return nil }

func (a acknowledgement) handle(s *session) { s.Acknowledge(string(a)) }

// readAcknowledgement gives the nonce of an encoded request that acknowledges endpoints and says nothing else, nothing of others.
func readAcknowledgement(b []byte) (nonce []byte) {
	ofEndpoints := false
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType {
			return nil
		}
		value, m := protowire.ConsumeBytes(b[n:])
		if m < 0 || !utf8.Valid(value) {
			return nil
		}
		switch number {
		case typeURLField:
			ofEndpoints = string(value) == xds.TypeEndpoint
		case responseNonceField:
			nonce = value
		default:
			return nil
		}
		b = b[n+m:]
	}
	if !ofEndpoints {
		return nil
	}
	return nonce
}

// readRequest reads an encoded request into r, as proto.Unmarshal does. The versions are nearly all of what a proxy says that comes back, and a
// map that is filled by reflection takes four allocations for each of them: here all share one text.
func readRequest(b []byte, r *discoveryv3.DeltaDiscoveryRequest) error {
	begin, end, count := -1, 0, 0
	var rest []byte // all but the versions, once there were some
	for at := 0; at < len(b); {
		number, kind, n := protowire.ConsumeField(b[at:])
		if n < 0 {
			return errRequest
		}
		switch {
		case number == versionsField && kind == protowire.BytesType:
			if begin < 0 {
				begin, rest = at, append(rest, b[:at]...)
			}
			count, end = count+1, at+n
		case begin >= 0:
			rest = append(rest, b[at:at+n]...)
		}
		at += n
	}
	if begin < 0 {
		return proto.Unmarshal(b, r)
	}
	if err := proto.Unmarshal(rest, r); err != nil {
		return err
	}
	text, versions := string(b[begin:end]), make(map[string]string, count)
	for at := begin; at < end; {
		number, kind, tag := protowire.ConsumeTag(b[at:])
		n := tag + protowire.ConsumeFieldValue(number, kind, b[at+tag:])
		if number == versionsField && kind == protowire.BytesType {
			entry, _ := protowire.ConsumeBytes(b[at+tag:])
			name, version, ok := readEntry(entry, text[at+n-len(entry)-begin:])
			if !ok {
				return errRequest
			}
			versions[name] = version
		}
		at += n
	}
	r.InitialResourceVersions = versions
	return nil
}

// readEntry reads one of a map, whose bytes text begins with, too.
func readEntry(entry []byte, text string) (key, value string, ok bool) {
	for at := 0; at < len(entry); {
		number, kind, tag := protowire.ConsumeTag(entry[at:])
		if tag < 0 || number > protowire.MaxValidNumber {
			return "", "", false
		}
		n := protowire.ConsumeFieldValue(number, kind, entry[at+tag:])
		if n < 0 {
			return "", "", false
		}
		at += tag + n
		if kind != protowire.BytesType || number != entryKey && number != entryValue {
			continue
		}
		content, _ := protowire.ConsumeBytes(entry[at-n:])
		said := text[at-len(content) : at]
		if !utf8.ValidString(said) {
			return "", "", false
		}
		if number == entryKey {
			key = said
		} else {
			value = said
		}
	}
	return key, value, true
}

// withoutExtensions gives an encoded request without the extensions that its node names. An Envoy has five hundred, which are nearly all of its
// first request, and nobody asks for them. They are not looked at.
func withoutExtensions(b []byte) []byte {
	for at := 0; at < len(b); {
		number, kind, tag := protowire.ConsumeTag(b[at:])
		if tag < 0 {
			return b
		}
		n := protowire.ConsumeFieldValue(number, kind, b[at+tag:])
		if n < 0 {
			return b
		}
		if number == nodeField && kind == protowire.BytesType {
			node, _ := protowire.ConsumeBytes(b[at+tag:])
			less := without(node, extensionsField)
			if len(less) < len(node) {
				out := make([]byte, 0, len(b)-len(node)+len(less))
				out = protowire.AppendBytes(append(out, b[:at+tag]...), less)
				return append(out, b[at+tag+n:]...)
			}
		}
		at += tag + n
	}
	return b
}

// without gives an encoded message without a field; what is no message stays as it is.
func without(b []byte, field protowire.Number) []byte {
	var out []byte
	kept := 0 // what is before is in out, or left out
	for at := 0; at < len(b); {
		number, kind, n := protowire.ConsumeField(b[at:])
		if n < 0 {
			return b
		}
		if number == field && kind == protowire.BytesType {
			out, kept = append(out, b[kept:at]...), at+n
		}
		at += n
	}
	if kept == 0 {
		return b
	}
	return append(out, b[kept:]...)
}
