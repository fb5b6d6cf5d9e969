package resource

import meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"

func checkAPIKey(s scope, k *meshv1.ApiKey) {
	if len(k.GetCredentials()) == 0 {
		s.errorf("add credentials: [{secret: NAME}]", "needs the Secrets that hold the keys")
	}
	named := map[string]bool{}
	for i, c := range k.GetCredentials() {
		at := s.at("credentials").index(i).at("secret")
		checkSecretName(at, c.GetSecret())
		if named[c.GetSecret()] {
			at.errorf("remove one of them", "Secret %s is there already", c.GetSecret())
		}
		named[c.GetSecret()] = true
	}
	for i, source := range k.GetKeySources() {
		at := s.at("keySources").index(i)
		switch v := source.GetPlace().(type) {
		case *meshv1.ApiKey_KeySource_Header:
			checkHeaderName(at.at("header"), v.Header)
		case *meshv1.ApiKey_KeySource_Query:
			checkPlaceName(at.at("query"), v.Query)
		case *meshv1.ApiKey_KeySource_Cookie:
			checkPlaceName(at.at("cookie"), v.Cookie)
		default:
			at.errorf("", "needs one of header, query and cookie")
		}
	}
	for i, client := range k.GetAllowedClients() {
		if !clientName.MatchString(client) || len(client) > maxClient {
			s.at("allowedClients").index(i).errorf("", "%q is no name of a client", client)
		}
	}
	if k.GetClientHeader() != "" {
		checkToldHeader(s.at("clientHeader"), k.GetClientHeader())
	}
}

// checkPlaceName takes the name of a query parameter or cookie, as long as Envoy takes it.
func checkPlaceName(s scope, name string) {
	if !token.MatchString(name) || len(name) > 1024 {
		s.errorf("", "%q is no name for a cookie or query parameter", name)
	}
}

// checkToldHeader takes the name of a header that a filter writes for the backend.
func checkToldHeader(s scope, name string) {
	checkHeaderName(s, name)
	if leads(name) || len(name) > 1024 {
		s.errorf("use one of your own, such as x-client", "%q is not for this", name)
	}
}
