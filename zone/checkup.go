package zone

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/zoneforge/zoneforge/ingress"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

const (
	// reachTimeout bounds the connection to one ingress; reachAtOnce are tried at a time, and maxReached at all.
	reachTimeout = 2 * time.Second
	reachAtOnce  = 32
	maxReached   = 128
	// maxCheckUps wait for one that is under way.
	maxCheckUps = 4
)

// checkup is how a replica is, in JSON.
type checkup struct {
	Replica string `json:"replica"`
	Version string `json:"version"`
	// Began and Ended are by this replica's clock.
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// DiskFree is what is left for the data directory, in bytes.
	DiskFree uint64 `json:"diskFree"`
	// Recovered is why the state on the disk was set aside at the start; empty when it wasn't.
	Recovered    string       `json:"recovered,omitempty"`
	Certificates []validity   `json:"certificates"`
	Identities   []identities `json:"identities"`
	// Envoys and Launchers count the connected proxies by their versions.
	Envoys    map[string]int `json:"envoys"`
	Launchers map[string]int `json:"launchers"`
	// Ingresses are those of other zones.
	Ingresses []reach `json:"ingresses"`
	// Parted are other replicas of the zone that this one has lost, and that may live.
	Parted []string `json:"parted,omitempty"`
}

// validity is the life of a certificate.
type validity struct {
	What      string    `json:"what"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// identities are those of the workloads of one mesh.
type identities struct {
	Mesh string `json:"mesh"`
	Held int    `json:"held"`
	// Waiting have no certificate yet.
	Waiting int `json:"waiting"`
	// Ends is when the first of them does.
	Ends time.Time `json:"ends,omitzero"`
	// Problem is why there is no intermediate, or no newer one.
	Problem string `json:"problem,omitempty"`
}

// reach says whether an ingress of another zone takes connections from here.
type reach struct {
	Zone    string `json:"zone"`
	Address string `json:"address"`
	// Error is empty when it does.
	Error string `json:"error,omitempty"`
}

// checkups make the answers that take time, one after the other, away from the owner of the state.
type checkups struct {
	replica, dataDir, caFile string
	server                   *certificate
	recovered                string
	asked                    chan func(context.Context)
}

func (c *core) checkUp(q *kdsv1.Query) {
	out := checkup{Replica: c.checkups.replica, Version: c.version, Began: time.Now().UTC(), Recovered: c.checkups.recovered,
		Envoys: map[string]int{}, Launchers: map[string]int{}, Certificates: []validity{}, Identities: []identities{}, Ingresses: []reach{}}
	for _, p := range c.proxies {
		out.Envoys[unnamed(p.envoy)]++
		if p.who != nil {
			out.Launchers[unnamed(p.who.Launcher)]++
		}
	}
	for _, s := range c.identity.Statuses() {
		if !s.NotAfter.IsZero() {
			out.Certificates = append(out.Certificates, validity{"intermediate of mesh " + s.Mesh, s.NotBefore, s.NotAfter})
		}
		out.Identities = append(out.Identities, identities{s.Mesh, s.SVIDs, s.Waiting, s.SVIDsEnd, s.Problem})
	}
	if c.siblings != nil {
		out.Parted, _ = c.siblings.partedFrom(out.Began)
	}
	remotes := c.state.Remotes()
	job := func(ctx context.Context) {
		c.checkups.finish(ctx, &out, remotes)
		body, err := json.Marshal(out)
		c.answer(q, body, err)
	}
	select {
	case c.checkups.asked <- job:
	default:
		c.answer(q, nil, fmt.Errorf("too many check-ups at once; ask again in a moment"))
	}
}

func unnamed(version string) string {
	if version == "" {
		return "unknown"
	}
	return version
}

// run makes answers until ctx ends.
func (u *checkups) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-u.asked:
			job(ctx)
		}
	}
}

// finish adds what takes time.
func (u *checkups) finish(ctx context.Context, out *checkup, remotes []ingress.Remote) {
	var disk syscall.Statfs_t
	if syscall.Statfs(u.dataDir, &disk) == nil {
		out.DiskFree = uint64(disk.Bavail) * uint64(disk.Bsize)
	}
	if leaf := u.server.current.Load().Leaf; leaf != nil {
		out.Certificates = append(out.Certificates, validity{"server certificate", leaf.NotBefore, leaf.NotAfter})
	}
	if text, err := os.ReadFile(u.caFile); u.caFile != "" && err == nil {
		if block, _ := pem.Decode(text); block != nil {
			if ca, err := x509.ParseCertificate(block.Bytes); err == nil {
				out.Certificates = append(out.Certificates, validity{"authority of the server certificate", ca.NotBefore, ca.NotAfter})
			}
		}
	}
	remotes = remotes[:min(len(remotes), maxReached)]
	out.Ingresses = make([]reach, len(remotes))
	var wg sync.WaitGroup
	turn := make(chan struct{}, reachAtOnce)
	for i, r := range remotes {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			out.Ingresses[i] = try(ctx, r)
		})
	}
	wg.Wait()
	out.Ended = time.Now().UTC()
}

// try connects to an ingress, which says nothing by itself.
func try(ctx context.Context, r ingress.Remote) reach {
	out := reach{Zone: r.Zone, Address: net.JoinHostPort(r.Address, strconv.FormatUint(uint64(r.Port), 10))}
	dialer := net.Dialer{Timeout: reachTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", out.Address)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	_ = conn.Close() // it was open, which is all that was asked
	return out
}
