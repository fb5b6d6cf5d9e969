// Package etcdcluster runs a cluster of etcd processes for tests, and does to it what happens to clusters: members are killed,
// paused and started again, the database is compacted, defragmented, filled and restored from a snapshot.
//
// It owns the processes and their data, and knows nothing of what is stored. The etcd is that of the version in go.mod, which
// make tools-test builds. Methods are for one goroutine at a time.
package etcdcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Config of a cluster. All but Quota is needed.
type Config struct {
	// Binary is etcd's path.
	Binary string
	// Dir holds data and logs.
	Dir string
	// Hosts are addresses of loopback, one a member, each of which has etcd's usual ports to itself.
	Hosts []string
	// Quota bounds the database in bytes, at which etcd raises its alarm NOSPACE; etcd's own default when 0.
	Quota int64
}

// Ports of each member.
const (
	clientPort = 2379
	peerPort   = 2380
)

// Cluster is running.
type Cluster struct {
	cfg     Config
	members []*member
	// generation counts restores, each of which has data directories of its own.
	generation int
	closing    bool
}

type member struct {
	name, host string
	cmd        *exec.Cmd
	done       chan struct{} // closed when the process has ended
}

// spawn starts processes from one thread that lives as long as this process: the death signal of a child is bound to its
// parent's thread.
var spawn = sync.OnceValue(func() chan<- func() {
	starts := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
	return starts
})

// Start starts all members of a new cluster and waits until it answers.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Binary == "" || cfg.Dir == "" || len(cfg.Hosts) == 0 {
		return nil, errors.New("etcd cluster: binary, directory and hosts are all needed")
	}
	if _, err := os.Stat(cfg.Binary); err != nil {
		return nil, fmt.Errorf("etcd cluster: %w; run make tools-test", err)
	}
	c := &Cluster{cfg: cfg}
	for i, host := range cfg.Hosts {
		c.members = append(c.members, &member{name: "etcd-" + strconv.Itoa(i), host: host})
	}
	for i := range c.members {
		if err := c.Run(i); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if err := c.Await(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (m *member) client() string { return fmt.Sprintf("http://%s:%d", m.host, clientPort) }
func (m *member) peer() string   { return fmt.Sprintf("http://%s:%d", m.host, peerPort) }

// Endpoints are the URLs for clients, one a member.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, m := range c.members {
		out = append(out, m.client())
	}
	return out
}

func (c *Cluster) peers() string {
	var out []string
	for _, m := range c.members {
		out = append(out, m.name+"="+m.peer())
	}
	return strings.Join(out, ",")
}

func (c *Cluster) token() string { return "generation-" + strconv.Itoa(c.generation) }

func (c *Cluster) data(m *member) string {
	return filepath.Join(c.cfg.Dir, m.name+"-"+strconv.Itoa(c.generation))
}

// Run starts a member that isn't running.
func (c *Cluster) Run(i int) error {
	m := c.members[i]
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("etcd cluster: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(c.cfg.Dir, m.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("etcd cluster: %w", err)
	}
	defer log.Close()
	m.cmd = exec.Command(c.cfg.Binary, "--name", m.name, "--data-dir", c.data(m),
		"--listen-client-urls", m.client(), "--advertise-client-urls", m.client(),
		"--listen-peer-urls", m.peer(), "--initial-advertise-peer-urls", m.peer(),
		"--initial-cluster", c.peers(), "--initial-cluster-token", c.token(), "--initial-cluster-state", "new",
		"--quota-backend-bytes", strconv.FormatInt(c.cfg.Quota, 10), "--log-level", "warn")
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	cmd, done := m.cmd, make(chan struct{})
	spawn() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("etcd cluster: %s: %w", m.name, err)
	}
	m.done = done
	go func() {
		_ = cmd.Wait() // it ends by a signal
		close(done)
	}()
	return nil
}

// Kill ends a member as a crash does.
func (c *Cluster) Kill(i int) {
	m := c.members[i]
	if m.done == nil {
		return
	}
	_ = m.cmd.Process.Kill() // it may have ended
	<-m.done
	m.done = nil
}

// Pause stops a member without a word to anybody, until Resume.
func (c *Cluster) Pause(i int) error { return c.members[i].cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused member go on.
func (c *Cluster) Resume(i int) error { return c.members[i].cmd.Process.Signal(syscall.SIGCONT) }

// Close ends all members.
func (c *Cluster) Close() error {
	for i := range c.members {
		c.Kill(i)
	}
	return nil
}

// Logs are what the members said last, for a test that failed.
func (c *Cluster) Logs() string {
	var out strings.Builder
	for _, m := range c.members {
		text, _ := os.ReadFile(filepath.Join(c.cfg.Dir, m.name+".log"))
		fmt.Fprintf(&out, "--- %s\n%s\n", m.name, text[max(0, len(text)-2000):])
	}
	return out.String()
}

// with calls do with a client of some members, all when none is named.
func (c *Cluster) with(do func(*clientv3.Client) error, members ...int) error {
	endpoints := c.Endpoints()
	if len(members) > 0 {
		endpoints = nil
		for _, i := range members {
			endpoints = append(endpoints, c.members[i].client())
		}
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return fmt.Errorf("etcd cluster: %w", err)
	}
	return errors.Join(do(cli), cli.Close())
}

// Await waits until each running member answers what needs a quorum.
func (c *Cluster) Await(ctx context.Context) error {
	for i, m := range c.members {
		if m.done == nil {
			continue
		}
		if err := c.with(func(cli *clientv3.Client) error {
			for {
				once, cancel := context.WithTimeout(ctx, time.Second)
				_, err := cli.Get(once, "ready")
				cancel()
				if err == nil {
					return nil
				}
				select {
				case <-ctx.Done():
					return fmt.Errorf("etcd cluster: %s does not answer: %w", m.name, err)
				case <-m.done:
					return fmt.Errorf("etcd cluster: %s ended", m.name)
				case <-time.After(20 * time.Millisecond):
				}
			}
		}, i); err != nil {
			return err
		}
	}
	return nil
}

// told repeats what may be repeated until etcd has an answer to it: a member on a busy machine loses its leader, or takes too long, by itself.
func told(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		var answer rpctypes.EtcdError
		code := status.Code(err)
		if errors.As(err, &answer) {
			code = answer.Code()
		}
		if code != codes.Unavailable || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Compact forgets all revisions but the newest.
func (c *Cluster) Compact(ctx context.Context) error {
	return c.with(func(cli *clientv3.Client) error {
		err := told(ctx, func() error {
			res, err := cli.Get(ctx, "revision")
			if err == nil {
				_, err = cli.Compact(ctx, res.Header.Revision, clientv3.WithCompactPhysical())
			}
			return err
		})
		if errors.Is(err, rpctypes.ErrCompacted) {
			return nil // nothing has happened since the last time
		}
		return err
	})
}

// Defragment gives back the room that was freed, one member after the other, each of which answers nothing meanwhile.
func (c *Cluster) Defragment(ctx context.Context) error {
	return c.with(func(cli *clientv3.Client) error {
		for _, m := range c.members {
			if err := told(ctx, func() error {
				_, err := cli.Defragment(ctx, m.client())
				return err
			}); err != nil {
				return fmt.Errorf("etcd cluster: %s: %w", m.name, err)
			}
		}
		return nil
	})
}

// Fill writes below a prefix until etcd has no space left.
func (c *Cluster) Fill(ctx context.Context, prefix string) error {
	return c.with(func(cli *clientv3.Client) error {
		value := strings.Repeat("x", 1<<20)
		for i := 0; ; i++ {
			err := told(ctx, func() error {
				_, err := cli.Put(ctx, prefix+strconv.Itoa(i), value)
				return err
			})
			if err != nil && strings.Contains(err.Error(), "database space exceeded") {
				return nil
			}
			if err != nil {
				return fmt.Errorf("etcd cluster: fill: %w", err)
			}
		}
	})
}

// Free deletes what Fill wrote, compacts, defragments and disarms the alarm, as an operator does.
func (c *Cluster) Free(ctx context.Context, prefix string) error {
	if err := c.with(func(cli *clientv3.Client) error {
		return told(ctx, func() error {
			_, err := cli.Delete(ctx, prefix, clientv3.WithPrefix())
			return err
		})
	}); err != nil {
		return fmt.Errorf("etcd cluster: free: %w", err)
	}
	if err := errors.Join(c.Compact(ctx), c.Defragment(ctx)); err != nil {
		return err
	}
	return c.with(func(cli *clientv3.Client) error {
		return told(ctx, func() error {
			_, err := cli.AlarmDisarm(ctx, &clientv3.AlarmMember{})
			return err
		})
	})
}

// Snapshot writes the database of one member into a file.
func (c *Cluster) Snapshot(ctx context.Context, path string) error {
	_, err := snapshot.NewV3(zap.NewNop()).Save(ctx, clientv3.Config{Endpoints: c.Endpoints()[:1], Logger: zap.NewNop()}, path)
	if err != nil {
		return fmt.Errorf("etcd cluster: snapshot: %w", err)
	}
	return nil
}

// Restore kills all members and starts them with the content of a snapshot, under the same addresses. Etcd's revision grows by
// bump and is marked as compacted, so that no watcher takes the old history for the new one; 0 leaves it as it was.
func (c *Cluster) Restore(ctx context.Context, path string, bump uint64) error {
	if err := c.Close(); err != nil {
		return err
	}
	c.generation++
	for _, m := range c.members {
		if err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
			SnapshotPath: path, Name: m.name, OutputDataDir: c.data(m), PeerURLs: []string{m.peer()}, InitialCluster: c.peers(),
			InitialClusterToken: c.token(), RevisionBump: bump, MarkCompacted: bump > 0,
		}); err != nil {
			return fmt.Errorf("etcd cluster: restore: %w", err)
		}
	}
	for i := range c.members {
		if err := c.Run(i); err != nil {
			return err
		}
	}
	return c.Await(ctx)
}
