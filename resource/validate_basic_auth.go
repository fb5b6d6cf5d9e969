package resource

import (
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func checkBasicAuth(s scope, b *meshv1.BasicAuth) {
	if b.GetSecret() == "" {
		s.errorf("add secret: NAME", "needs the Secret that holds the users")
	} else {
		checkSecretName(s.at("secret"), b.GetSecret())
	}
	if b.GetUsernameHeader() != "" {
		checkToldHeader(s.at("usernameHeader"), b.GetUsernameHeader())
	}
	if realm := b.GetRealm(); realm != "" && (!clientName.MatchString(realm) || strings.ContainsAny(realm, `"\`) || len(realm) > maxClient) {
		s.at("realm").errorf("", "a realm is at most %d visible ASCII characters and spaces between them, without quotes and backslashes", maxClient)
	}
}
