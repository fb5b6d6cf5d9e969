package resource

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

const (
	// maxModule bounds a module that stands in a document, in bytes: a change of resources holds 1 MiB.
	maxModule = 512 << 10
	// maxModuleConfiguration bounds what a module gets as its configuration, in bytes.
	maxModuleConfiguration = 64 << 10
)

var (
	sha256Text = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
	moduleFile = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)
)

func checkWasm(s scope, w *meshv1.Wasm) {
	switch v := w.GetCode().(type) {
	case *meshv1.Wasm_File:
		if !moduleFile.MatchString(v.File) {
			s.at("file").errorf("name a file of the wasm folder of the proxy's working directory", "%q is no name of a file", v.File)
		}
	case *meshv1.Wasm_Module:
		checkModuleSource(s.at("module"), v.Module)
		if code := v.Module.GetInline(); len(code) > 0 && sha256Text.MatchString(w.GetSha256()) {
			if err := CheckSum(code, w.GetSha256()); err != nil {
				s.at("sha256").errorf("write what sha256sum prints for the module, or give the module that is meant", "%s", err)
			}
		}
	case *meshv1.Wasm_Remote_:
		checkRemoteModule(s.at("remote"), v.Remote)
		if w.GetSha256() != "" {
			s.at("sha256").errorf("write it into remote", "is for file and module")
		}
	default:
		s.errorf("", "needs one of file, module and remote")
	}
	if w.GetSha256() != "" && !sha256Text.MatchString(w.GetSha256()) {
		s.at("sha256").errorf("write what sha256sum prints for the module", "%q is no SHA-256 in 64 hexadecimal digits", w.GetSha256())
	}
	if n := len(w.GetConfiguration()); n > maxModuleConfiguration {
		s.at("configuration").errorf("", "has %d bytes, more than %d", n, maxModuleConfiguration)
	}
}

func checkModuleSource(s scope, d *meshv1.DataSource) {
	checkDataSource(s, d, "the module")
	var code []byte
	switch v := d.GetType().(type) {
	case *meshv1.DataSource_Inline:
		s, code = s.at("inline"), v.Inline
	case *meshv1.DataSource_InlineString:
		s.at("inlineString").errorf("use inline, in base64", "a module is no text")
		return
	}
	if len(code) == 0 {
		return
	}
	if len(code) > maxModule {
		s.errorf("use file or remote", "the module has %d bytes, more than %d", len(code), maxModule)
		return
	}
	if err := CheckModule(code); err != nil {
		s.errorf("build it with a Proxy-Wasm SDK", "%s", err)
	}
}

func checkRemoteModule(s scope, r *meshv1.Wasm_Remote) {
	u := checkURL(s.at("url"), r.GetUrl())
	if u != nil && strings.Trim(u.Path, "/") == "" {
		s.at("url").errorf("", "names no file: write it as https://HOST/PATH")
	}
	if u != nil && u.Fragment != "" {
		s.at("url").errorf("", "has a fragment, which is never sent")
	}
	checkRoots(s.at("caCert"), r.GetCaCert())
	if r.GetCaCert() != nil && u != nil && u.Scheme != "https" {
		s.at("caCert").errorf("", "is for an https url")
	}
	switch {
	case r.GetSha256() == "":
		s.errorf("write what sha256sum prints for the module", "needs sha256")
	case !sha256Text.MatchString(r.GetSha256()):
		s.at("sha256").errorf("write what sha256sum prints for the module", "%q is no SHA-256 in 64 hexadecimal digits", r.GetSha256())
	}
	checkDuration(s.at("timeout"), r.GetTimeout(), time.Millisecond, time.Hour)
}

// CheckSum compares a module with a SHA-256 in hexadecimal digits; an empty one takes any.
func CheckSum(code []byte, want string) error {
	sum := sha256.Sum256(code)
	if got := hex.EncodeToString(sum[:]); want != "" && !strings.EqualFold(got, want) {
		return fmt.Errorf("the module has the SHA-256 %s", got)
	}
	return nil
}

// CheckModule finds what keeps bytes from being a module of the Proxy-Wasm ABI, as far as they tell without being run. A proxy that was
// given such a module would refuse all its routes.
func CheckModule(code []byte) error {
	if !bytes.HasPrefix(code, []byte("\x00asm\x01\x00\x00\x00")) {
		return errors.New("is no WebAssembly module")
	}
	exports, err := moduleExports(code[8:])
	if err != nil {
		return err
	}
	for _, version := range []string{"proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"} {
		if exports[version] {
			return nil
		}
	}
	return errors.New("is no Proxy-Wasm module: it exports no proxy_abi_version_0_1_0, _0_2_0 or _0_2_1")
}

var errCut = errors.New("the module is cut off or damaged")

// moduleExports walks the sections of a module and reads that of its exports (WebAssembly Core Specification 5.5).
func moduleExports(rest []byte) (map[string]bool, error) {
	const exportSection = 7
	out := map[string]bool{}
	for len(rest) > 0 {
		id := rest[0]
		section, after, err := lengthened(rest[1:])
		if err != nil {
			return nil, err
		}
		rest = after
		if id != exportSection {
			continue
		}
		count, n := binary.Uvarint(section)
		if n <= 0 {
			return nil, errCut
		}
		section = section[n:]
		for range count {
			name, after, err := lengthened(section)
			if err != nil {
				return nil, err
			}
			if len(after) < 2 {
				return nil, errCut
			}
			_, n := binary.Uvarint(after[1:]) // the index of what is exported, after its kind
			if n <= 0 {
				return nil, errCut
			}
			out[string(name)], section = true, after[1+n:]
		}
	}
	return out, nil
}

// lengthened takes bytes that stand behind their length.
func lengthened(b []byte) (found, after []byte, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, errCut
	}
	return b[n : n+int(size)], b[n+int(size):], nil
}
