package simproxy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zoneforge/zoneforge/xds"
)

// References are the names of resources that others name, by type.
type References map[string][]string

func (r References) add(typeURL, name string) {
	if name != "" {
		r[typeURL] = append(r[typeURL], name)
	}
}

// Find walks a message with all that is packed into it.
func (r References) Find(m protoreflect.Message) error {
	switch v := m.Interface().(type) {
	case *anypb.Any:
		inner, err := v.UnmarshalNew()
		if err != nil {
			return err
		}
		return r.Find(inner.ProtoReflect())
	case *clusterv3.Cluster:
		if v.GetType() == clusterv3.Cluster_EDS && v.GetEdsClusterConfig().GetServiceName() == "" {
			r.add(xds.TypeEndpoint, v.GetName())
		}
	case *clusterv3.Cluster_EdsClusterConfig:
		r.add(xds.TypeEndpoint, v.GetServiceName())
	case *hcmv3.Rds:
		r.add(xds.TypeRoute, v.GetRouteConfigName())
	case *hcmv3.HttpFilter:
		if v.GetConfigDiscovery() != nil {
			r.add(xds.TypeExtension, v.GetName())
		}
	case *listenerv3.Filter:
		if v.GetConfigDiscovery() != nil {
			r.add(xds.TypeExtension, v.GetName())
		}
	case *tlsv3.SdsSecretConfig:
		if v.GetSdsConfig() != nil {
			r.add(xds.TypeSecret, v.GetName())
		}
	}
	var err error
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap():
			if field.MapValue().Message() != nil {
				value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					err = r.Find(v.Message())
					return err == nil
				})
			}
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				if err = r.Find(value.List().Get(i).Message()); err != nil {
					break
				}
			}
		default:
			err = r.Find(value.Message())
		}
		return err == nil
	})
	return err
}
