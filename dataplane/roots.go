package dataplane

import (
	"os"
	"path/filepath"
)

// rootFiles are where Linux distributions keep the roots that prove servers, the commonest first.
var rootFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem", // SUSE
	"/etc/ssl/cert.pem",
}

// RootsFile finds the roots of this machine: the file that SSL_CERT_FILE names, or the first of the usual ones that is there.
// It is empty where there is none.
func RootsFile() string {
	if named := os.Getenv("SSL_CERT_FILE"); named != "" {
		if path, err := filepath.Abs(named); err == nil {
			return path
		}
		return named
	}
	for _, path := range rootFiles {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}
