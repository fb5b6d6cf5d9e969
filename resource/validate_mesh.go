package resource

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func validateMesh(s scope, r *Resource) {
	checkLogging(s.at("logging"), Spec[*meshv1.Mesh](r).GetLogging())
	checkTracing(s.at("tracing"), Spec[*meshv1.Mesh](r).GetTracing())
	checkMetrics(s.at("metrics"), Spec[*meshv1.Mesh](r).GetMetrics())
	m := Spec[*meshv1.Mesh](r).GetMtls()
	mtls := s.at("mtls")
	var names []string
	for i, b := range m.GetBackends() {
		at := mtls.at("backends").index(i)
		switch {
		case !isDNSLabel(b.GetName()):
			at.at("name").errorf("use lower-case letters, digits and hyphens", "%q is no name for a backend", b.GetName())
		case slices.Contains(names, b.GetName()):
			at.at("name").errorf("", "backend %q is there twice", b.GetName())
		}
		names = append(names, b.GetName())
		conf := at.at("conf")
		switch b.GetType() {
		case "builtin":
			if b.GetConf().GetCert() != nil || b.GetConf().GetKey() != nil {
				conf.errorf("make the type provided", "a builtin backend takes no cert and no key")
			}
		case "provided":
			if b.GetConf().GetCert().GetSecret() == "" || b.GetConf().GetKey().GetSecret() == "" {
				conf.errorf("write conf: {cert: {secret: NAME}, key: {secret: NAME}}", "a provided backend needs cert and key")
			}
		case "":
			at.errorf("", "needs type: builtin or provided")
		default:
			at.at("type").errorf(didYouMean(b.GetType(), []string{"builtin", "provided"}), "expected builtin or provided, found %q", b.GetType())
		}
		checkDuration(at.at("dpCert", "rotation", "expiration"), b.GetDpCert().GetRotation().GetExpiration(), time.Minute, 720*time.Hour)
		checkDuration(conf.at("caCert", "expiration"), b.GetConf().GetCaCert().GetExpiration(), time.Hour, 0)
	}
	if e := m.GetEnabledBackend(); e != "" && !slices.Contains(names, e) {
		mtls.at("enabledBackend").errorf(didYouMean(e, names), "no backend is called %q", e)
	}
}

func validateSecret(s scope, r *Resource) {
	if len(Spec[*meshv1.Secret](r).GetData()) == 0 {
		s.errorf("add data: with the content in base64", "needs data")
	}
}

func validateZoneIngress(s scope, r *Resource) {
	z := Spec[*meshv1.ZoneIngress](r)
	if z.GetZone() != "" && !isDNSLabel(z.GetZone()) {
		s.at("zone").errorf("", "%q is no name for a Zone", z.GetZone())
	}
	n, at := z.GetNetworking(), s.at("networking")
	if n == nil {
		s.errorf("", "needs networking with address and port")
		return
	}
	checkIP(at.at("address"), n.GetAddress(), true)
	checkPort(at.at("port"), n.GetPort())
	checkIP(at.at("advertisedAddress"), n.GetAdvertisedAddress(), false)
	if n.GetAdvertisedPort() != 0 {
		checkPort(at.at("advertisedPort"), n.GetAdvertisedPort())
	}
}

var protocols = []string{"tcp", "http", "http2", "grpc"}

// checkProtocol checks the tag that says what a service speaks.
func checkProtocol(s scope, tags map[string]string) {
	if p, ok := tags[TagProtocol]; ok && !slices.Contains(protocols, p) {
		s.key(TagProtocol).errorf(didYouMean(p, protocols), "expected tcp, http, http2 or grpc, found %q", p)
	}
}

func validateDataplane(s scope, r *Resource) {
	n, at := Spec[*meshv1.Dataplane](r).GetNetworking(), s.at("networking")
	if n == nil {
		s.errorf("", "needs networking with address")
		return
	}
	checkIP(at.at("address"), n.GetAddress(), true)
	if g := n.GetGateway(); g != nil {
		if len(n.GetInbound()) > 0 || len(n.GetOutbound()) > 0 {
			at.errorf("keep one of them", "gateway excludes inbound and outbound")
		}
		if g.GetType() == meshv1.Dataplane_Gateway_TYPE_UNSPECIFIED {
			at.at("gateway").errorf("", "needs type: BUILTIN")
		}
		checkOwnTags(at.at("gateway", "tags"), g.GetTags())
	} else if len(n.GetInbound()) == 0 && len(n.GetOutbound()) == 0 {
		at.errorf("", "needs inbound, outbound or gateway")
	}
	type listener struct {
		address string
		port    uint32
	}
	taken := map[listener]string{}
	for i, in := range n.GetInbound() {
		item := at.at("inbound").index(i)
		checkPort(item.at("port"), in.GetPort())
		if in.GetServicePort() != 0 {
			checkPort(item.at("servicePort"), in.GetServicePort())
		}
		checkIP(item.at("serviceAddress"), in.GetServiceAddress(), false)
		checkIP(item.at("address"), in.GetAddress(), false)
		checkOwnTags(item.at("tags"), in.GetTags())
		checkProtocol(item.at("tags"), in.GetTags())
		l := listener{in.GetAddress(), in.GetPort()}
		if l.address == "" {
			l.address = n.GetAddress()
		}
		if taken[l] != "" {
			item.errorf("", "port %d is that of another inbound already", l.port)
		}
		taken[l] = "inbound"
		if leadsBack(in, n.GetAddress(), l.address) {
			item.errorf("set servicePort to the workload's own port, or serviceAddress to its address", "port %d leads back to the proxy itself", l.port)
		}
	}
	for i, out := range n.GetOutbound() {
		item := at.at("outbound").index(i)
		checkPort(item.at("port"), out.GetPort())
		checkIP(item.at("address"), out.GetAddress(), false)
		checkOwnTags(item.at("tags"), out.GetTags())
		l := listener{out.GetAddress(), out.GetPort()}
		if l.address == "" {
			l.address = "127.0.0.1"
		}
		if other := taken[l]; other != "" {
			item.errorf("", "port %d is that of an %s already", l.port, other)
		}
		taken[l] = "outbound"
	}
}

// leadsBack says whether an inbound forwards to the address on which its proxy listens, over and over.
func leadsBack(in *meshv1.Dataplane_Inbound, own, listens string) bool {
	if in.GetPort() == 0 || cmp.Or(in.GetServicePort(), in.GetPort()) != in.GetPort() {
		return false
	}
	to, err := netip.ParseAddr(cmp.Or(in.GetServiceAddress(), "127.0.0.1"))
	if err != nil {
		return false
	}
	at, err := netip.ParseAddr(listens)
	if err != nil {
		return false
	}
	if proxy, err := netip.ParseAddr(own); err == nil && at.IsUnspecified() && (to.IsLoopback() || to == proxy) {
		return true
	}
	return to == at
}
