package resource

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// CredentialUse is a Secret from which a resource takes keys of clients or passwords of users.
type CredentialUse struct {
	// Path is the field that names the Secret.
	Path string
	// Secret is a name within the mesh of the resource.
	Secret string
	// Check tells whether what a Secret holds can be used. Its error quotes no credential.
	Check func(data []byte) error
}

// CredentialUses are those of a resource, in the order of their paths.
func CredentialUses(r *Resource) []CredentialUse {
	var out []CredentialUse
	if r.Kind != "Secret" {
		credentialUses(r.Spec.ProtoReflect(), "", &out)
	}
	slices.SortFunc(out, func(x, y CredentialUse) int { return cmp.Compare(x.Path, y.Path) })
	return out
}

func credentialUses(m protoreflect.Message, path string, out *[]CredentialUse) {
	switch v := m.Interface().(type) {
	case *meshv1.ApiKey:
		for i, c := range v.GetCredentials() {
			*out = append(*out, CredentialUse{fmt.Sprintf("%s.credentials[%d].secret", path, i), c.GetSecret(), checkKeys})
		}
		return
	case *meshv1.BasicAuth:
		*out = append(*out, CredentialUse{path + ".secret", v.GetSecret(), checkUsers})
		return
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		at := join(path, field.JSONName())
		switch {
		case field.IsMap() || field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				credentialUses(value.List().Get(i).Message(), fmt.Sprintf("%s[%d]", at, i), out)
			}
		default:
			credentialUses(value.Message(), at, out)
		}
		return true
	})
}

func checkKeys(data []byte) error {
	_, err := APIKeys(data)
	return err
}

func checkUsers(data []byte) error {
	_, err := Htpasswd(data)
	return err
}
