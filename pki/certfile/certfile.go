// Package certfile keeps the server certificate of a control plane in files. It owns their names, their modes and their
// atomic replacement, and decides when they are made anew; it never signs by itself (see pki) and never logs. Calls for
// one directory must not overlap.
package certfile

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/zoneforge/zoneforge/pki"
)

// Names of the files. A CAFile is what clients trust.
const (
	CAFile         = "server-ca.crt"
	CAKeyFile      = "server-ca.key"
	ServerCertFile = "server.crt"
	ServerKeyFile  = "server.key"
)

const (
	keyMode  = 0o600
	certMode = 0o644
	dirMode  = 0o700
)

// Server is a loaded server certificate.
type Server struct {
	// CA is PEM, to be given to clients; empty for a certificate that an operator provided.
	CA []byte
	// Certificate serves.
	Certificate tls.Certificate
	// Window is the lifetime of the certificate.
	Window pki.Window
}

// Ensure loads the server certificate of dir for hosts, and first makes what is missing: the authority once, and the
// server certificate whenever it is missing, damaged, in its last third, or does not cover all hosts. The authority is
// renewed in its last third as well; clients must then be given the new CAFile. A damaged authority is an error and not
// replaced, since clients trust it.
func Ensure(dir string, random io.Reader, now time.Time, name string, hosts []string) (Server, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return Server{}, fmt.Errorf("server certificate: %w", err)
	}
	ca, err := ensureAuthority(dir, random, now, name)
	if err != nil {
		return Server{}, err
	}
	caPEM := pki.EncodeCertificates(ca.Certificate)
	certPath, keyPath := filepath.Join(dir, ServerCertFile), filepath.Join(dir, ServerKeyFile)
	if have, err := loadPair(certPath, keyPath); err == nil {
		leaf := pki.ServerCertificate{Chain: []*x509.Certificate{have.Certificate}, Key: have.Key}
		fits := have.Certificate.CheckSignatureFrom(ca.Certificate) == nil && !now.Before(have.Certificate.NotBefore)
		if fits && !pki.NeedsRenewal(pki.WindowOf(have.Certificate), now) && len(leaf.MissingHosts(hosts)) == 0 {
			s, err := Load(certPath, keyPath, now)
			s.CA = caPEM
			return s, err
		}
	} else if !renewable(err) {
		return Server{}, err
	}
	made, err := pki.NewServerCertificate(random, now, ca, hosts, pki.Validity{})
	if err != nil {
		return Server{}, err
	}
	if err := writePair(certPath, keyPath, pki.EncodeCertificates(made.Chain...), made.Key); err != nil {
		return Server{}, err
	}
	s, err := Load(certPath, keyPath, now)
	s.CA = caPEM
	return s, err
}

// renewable is true of what a new server certificate mends; a file that can't be read for want of rights isn't.
func renewable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, pki.ErrMalformed) || errors.Is(err, pki.ErrKeyMismatch)
}

func ensureAuthority(dir string, random io.Reader, now time.Time, name string) (pki.Authority, error) {
	certPath, keyPath := filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile)
	ca, err := loadPair(certPath, keyPath)
	switch {
	case err == nil && !pki.NeedsRenewal(pki.WindowOf(ca.Certificate), now):
		return ca, nil
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		// The key is written first and the certificate last, so that a certificate without its key was not our crash.
		if _, statErr := os.Stat(certPath); !errors.Is(statErr, fs.ErrNotExist) {
			return pki.Authority{}, fmt.Errorf("server authority: %w; restore the key, or delete %s to make a new authority", err, certPath)
		}
	default:
		return pki.Authority{}, fmt.Errorf("server authority: %w; restore both files, or delete both to make a new authority", err)
	}
	ca, err = pki.NewServerAuthority(random, now, name, pki.Validity{})
	if err != nil {
		return pki.Authority{}, err
	}
	return ca, writePair(certPath, keyPath, pki.EncodeCertificates(ca.Certificate), ca.Key)
}

// Load reads a certificate chain with its key, as Ensure or an operator wrote them, and checks that they belong together
// and that now lies within their time. Errors name the file.
func Load(certPath, keyPath string, now time.Time) (Server, error) {
	pair, err := loadPair(certPath, keyPath)
	if err != nil {
		return Server{}, err
	}
	c := pair.Certificate
	if now.After(c.NotAfter) {
		return Server{}, fmt.Errorf("%s: %w on %s", certPath, pki.ErrExpired, c.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(c.NotBefore) {
		return Server{}, fmt.Errorf("%s: %w before %s; check the clock", certPath, pki.ErrNotYetValid, c.NotBefore.UTC().Format(time.RFC3339))
	}
	out := Server{Window: pki.WindowOf(c), Certificate: tls.Certificate{PrivateKey: pair.Key.Signer(), Leaf: c}}
	out.Certificate.Certificate = append(out.Certificate.Certificate, c.Raw)
	for _, p := range pair.Parents {
		out.Certificate.Certificate = append(out.Certificate.Certificate, p.Raw)
	}
	return out, nil
}

func loadPair(certPath, keyPath string) (pki.Authority, error) {
	cert, err := os.ReadFile(certPath)
	if err != nil {
		return pki.Authority{}, fmt.Errorf("read certificate: %w", err)
	}
	key, err := os.ReadFile(keyPath)
	if err != nil {
		return pki.Authority{}, fmt.Errorf("read private key: %w", err)
	}
	pair, err := pki.LoadAuthority(cert, key)
	if err != nil {
		return pki.Authority{}, fmt.Errorf("%s with %s: %w", certPath, keyPath, err)
	}
	return pair, nil
}

func writePair(certPath, keyPath string, cert []byte, key pki.Key) error {
	keyPEM, err := key.PEM()
	if err != nil {
		return fmt.Errorf("write %s: %w", keyPath, err)
	}
	if err := Write(keyPath, keyPEM, keyMode); err != nil {
		return err
	}
	return Write(certPath, cert, certMode)
}

// Write replaces a file as a whole: readers, also after a crash, see the old bytes or the new ones. The file never exists
// with wider rights than mode.
func Write(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // made with 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
