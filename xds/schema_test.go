package xds

import (
	"strings"
	"testing"
)

func TestSchema(t *testing.T) {
	for _, c := range []struct {
		what, document string
		whole          bool
		want           string
	}{
		{"cluster", `{"name":"a","connect_timeout":"1s"}`, true, ""},
		{"cluster", `{"connect_timeout":"1s"}`, false, ""},
		{"cluster", `{"connect_timeout":"1s"}`, true, "Name"},
		{"cluster", `{"connect_timeot":"1s"}`, false, "connect_timeot"},
		{"virtualHost", `{"name":"a","domains":["*"]}`, true, ""},
		{"virtualHost", `{"name":"a"}`, true, "Domains"},
		{"listener", `{"traffic_direction":"UP"}`, false, "schema has it: invalid value for enum field trafficDirection"},
		{"networkFilter", `{"name":"a"}`, true, ""},
		{"httpFilter", `{"name":"a","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer"}}`, true, "MaxRequestBytes"},
		{"httpFilter", `{"name":"a","typed_config":{"@type":"type.googleapis.com/envoy.none.v3.None"}}`, false, "envoy.none.v3.None"},
		{"resource", `{"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster","name":"a"}`, true, ""},
		{"resource", `{"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster"}`, true, "Name"},
		{"resource", `{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"}`, true, "can't be added"},
		{"resource", `{"name":"a"}`, true, "not as Envoy's schema has it"},
	} {
		err := Schema{}.Check(c.what, c.document, c.whole)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s: %v, want %q", c.what, c.document, err, c.want)
		}
	}
}
