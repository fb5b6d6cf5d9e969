package xds

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zoneforge/zoneforge/ir"
)

// Schema holds documents of Envoy against its schema before there is a proxy to change. It keeps nothing.
type Schema struct{}

// Check says what is wrong with a document of JSON: a resource with its @type, or what a Modification has for its target. One that is
// whole obeys all of Envoy's rules; one that is merged into another need only have the right members.
func (Schema) Check(what, document string, whole bool) error {
	var m validated
	switch ir.Target(what) {
	case ir.TargetCluster:
		m = &clusterv3.Cluster{}
	case ir.TargetListener:
		m = &listenerv3.Listener{}
	case ir.TargetNetworkFilter:
		m = &listenerv3.Filter{}
	case ir.TargetHTTPFilter:
		m = &hcmv3.HttpFilter{}
	case ir.TargetVirtualHost:
		m = &routev3.VirtualHost{}
	default:
		var packed anypb.Any
		if err := parse(document, &packed); err != nil {
			return err
		}
		if err := addable(&packed); err != nil {
			return err
		}
		return validateDeep(packed.ProtoReflect())
	}
	if err := parse(document, m); err != nil || !whole {
		return err
	}
	return validateDeep(m.ProtoReflect())
}

// addable tells whether a template may add a resource.
func addable(packed *anypb.Any) error {
	switch packed.GetTypeUrl() {
	case TypeListener, TypeRoute, TypeCluster, TypeExtension:
		return nil
	}
	return fmt.Errorf("%s can't be added: add a listener, route configuration, cluster or extension configuration", packed.GetTypeUrl())
}
