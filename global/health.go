package global

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/ca"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki/certfile"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	"github.com/zoneforge/zoneforge/resource"
)

// healthTimeout bounds the questions to etcd.
const healthTimeout = 3 * time.Second

// health is how a replica is, in JSON.
type health struct {
	Replica string `json:"replica"`
	Version string `json:"version"`
	Epoch   string `json:"epoch"`
	// Time is by this replica's clock.
	Time     time.Time `json:"time"`
	Revision int64     `json:"revision"`
	// Unreadable resources are of newer software, or damaged; Mismatches count when what is here differed from etcd, since the start.
	Unreadable uint64       `json:"unreadable"`
	Mismatches uint64       `json:"mismatches"`
	Store      store.Health `json:"store"`
	// LastBackup is when the last backup of this epoch was made; absent when none was.
	LastBackup   time.Time  `json:"lastBackup,omitzero"`
	Certificates []validity `json:"certificates"`
	// Roots are those of meshes, with whom their rotation waits for.
	Roots []ca.Rotation `json:"roots"`
}

// validity is the life of a certificate.
type validity struct {
	What      string    `json:"what"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// health makes what says how this replica is.
func (g *Global) health(s *store.Store, cert *certificate, rotator *ca.Rotator) func(context.Context) any {
	return func(ctx context.Context) any {
		ctx, cancel := context.WithTimeout(ctx, healthTimeout)
		defer cancel()
		snap, stats := s.Snapshot(), s.Stats()
		out := health{Replica: g.cfg.Replica, Version: g.cfg.Version, Epoch: s.Epoch(), Revision: snap.Revision(), Unreadable: stats.Unreadable, Mismatches: stats.Mismatches,
			Store: s.Health(ctx), Certificates: []validity{}, Roots: rotator.Rotations()}
		add := func(what string, c *x509.Certificate) {
			out.Certificates = append(out.Certificates, validity{what, c.NotBefore, c.NotAfter})
		}
		if leaf := cert.cur.Load().Leaf; leaf != nil {
			add("server certificate", leaf)
		}
		if text, err := os.ReadFile(filepath.Join(g.cfg.DataDir, tlsName, certfile.CAFile)); err == nil && g.cfg.TLSCertFile == "" {
			for _, c := range certificates(text) {
				add("authority of the server certificate", c)
			}
		}
		for e := range snap.Each("TrustBundle", "") {
			for _, root := range resource.Spec[*federationv1.TrustBundle](e.Resource).GetRoots() {
				for _, c := range certificates([]byte(root)) {
					add("root of mesh "+e.Resource.Mesh, c)
				}
			}
		}
		last, err := s.LastBackup(ctx)
		if err != nil {
			g.log.Debug("when the last backup was made is not known", zap.Error(err))
		}
		out.LastBackup = last.Time
		out.Time = time.Now().UTC()
		return out
	}
}

// certificates are those in PEM that can be read.
func certificates(text []byte) (out []*x509.Certificate) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
	return out
}
