package state

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// sealLabel keeps keys that seal cookies apart from all else that may once be derived from a client's secret.
const sealLabel = "zoneforge: seal of cookies of a login"

// text is the text of a Secret without the spaces around it; empty when there is none.
func (m *mesh) text(name string) []byte {
	if v := m.secrets[name]; v != nil {
		return bytes.TrimSpace(v.data)
	}
	return nil
}

// seal is a key derived from the text of a Secret; empty when there is none. It is the same in all zones that have the Secret, so
// that what one gateway sealed any other opens.
func (m *mesh) seal(name string) []byte {
	text := m.text(name)
	if len(text) == 0 {
		return nil
	}
	mac := hmac.New(sha256.New, text)
	mac.Write([]byte(sealLabel))
	return hex.AppendEncode(nil, mac.Sum(nil))
}
