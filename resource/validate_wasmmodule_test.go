package resource

import (
	"strings"
	"testing"
)

// TestCheckModule takes modules of each ABI version, and no part of one.
func TestCheckModule(t *testing.T) {
	const head = "\x00asm\x01\x00\x00\x00"
	module := func(exports ...string) []byte {
		section := string([]byte{byte(len(exports))})
		for _, e := range exports {
			section += string([]byte{byte(len(e))}) + e + "\x00\x01"
		}
		return []byte(head + "\x00\x02\x01a" + "\x07" + string([]byte{byte(len(section))}) + section)
	}
	for _, version := range []string{"proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"} {
		whole := module("memory", version)
		if err := CheckModule(whole); err != nil {
			t.Errorf("%s: %v", version, err)
		}
		for n := range whole {
			if err := CheckModule(whole[:n]); err == nil {
				t.Errorf("%s: the first %d of %d bytes are taken for a module", version, n, len(whole))
			}
		}
	}
	for name, c := range map[string]struct {
		code []byte
		want string
	}{
		"text":         {[]byte("function"), "is no WebAssembly module"},
		"component":    {[]byte("\x00asm\x0d\x00\x01\x00"), "is no WebAssembly module"},
		"other ABI":    {module("memory", "proxy_abi_version_0_3_0"), "exports no proxy_abi_version"},
		"no exports":   {[]byte(head), "exports no proxy_abi_version"},
		"many exports": {[]byte(head + "\x07\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "cut off"},
		"long section": {[]byte(head + "\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "cut off"},
	} {
		if err := CheckModule(c.code); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
