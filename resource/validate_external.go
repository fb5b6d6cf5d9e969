package resource

import meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"

func validateExternalService(s scope, r *Resource) {
	e := Spec[*meshv1.ExternalService](r)
	checkOwnTags(s.at("tags"), e.GetTags())
	checkProtocol(s.at("tags"), e.GetTags())
	networking := s.at("networking")
	if e.GetNetworking().GetAddress() == "" {
		networking.errorf("add address: HOST:PORT", "needs address")
	} else {
		checkHostPort(networking.at("address"), e.GetNetworking().GetAddress())
	}
	tls, at := e.GetNetworking().GetTls(), networking.at("tls")
	if tls == nil {
		return
	}
	checkRoots(at.at("caCert"), tls.GetCaCert())
	if tls.GetServerName() != "" {
		checkHostOrIP(at.at("serverName"), tls.GetServerName())
	}
	if (tls.GetClientCert() == nil) != (tls.GetClientKey() == nil) {
		at.errorf("give both", "clientCert and clientKey belong together")
	}
	if tls.GetClientCert() != nil {
		checkDataSource(at.at("clientCert"), tls.GetClientCert(), "the client's certificate")
	}
	if tls.GetClientKey() != nil {
		if tls.GetClientKey().GetSecret() == "" {
			at.at("clientKey").errorf("write clientKey: {secret: NAME}", "a private key comes from a Secret")
		} else {
			checkSecretName(at.at("clientKey", "secret"), tls.GetClientKey().GetSecret())
		}
	}
}
