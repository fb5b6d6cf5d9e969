//go:build linux

// Package netns owns networks for tests of partitions: network namespaces, one for each site, whose packets the test's own process
// carries from one to another, and drops, delays or reorders as it is told.
//
// It needs root, the tool ip and /dev/net/tun, and nothing else of the kernel: no bridge, no filter, no queueing discipline. It never
// looks into what it carries beyond the addresses of a packet.
package netns

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Root is the site of the test itself, which is in no namespace of its own.
const Root = ""

const (
	folder = "/run/netns"
	prefix = "zf-"
	device = "wire"
	// mtu is that of each site, and the largest packet.
	mtu = 1500
)

// Network joins sites. Its methods are safe for concurrent use, but for Add and Close.
type Network struct {
	subnet netip.Prefix
	sites  map[string]*site
	owners map[netip.Addr]*site
	wg     sync.WaitGroup
	wires  wires
}

// site is one namespace with its end of the wire.
type site struct {
	name      string
	namespace string
	tun       *os.File
}

// New makes a network without sites in an IPv4 subnet, which nobody else on this machine may use.
func New(subnet netip.Prefix) (*Network, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root: run the tests as root, such as by sudo -E env PATH=$PATH go test")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, errors.New("network namespaces need the tool ip: install iproute2")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return nil, fmt.Errorf("the wires between namespaces need TUN devices: %w; load the module tun", err)
	}
	sweep()
	n := &Network{subnet: subnet, sites: map[string]*site{}, owners: map[netip.Addr]*site{}}
	n.wires.faults = map[way]Fault{}
	return n, nil
}

// sweep removes the namespaces of tests that were killed.
func sweep() {
	left, _ := filepath.Glob(filepath.Join(folder, prefix+"*"))
	for _, path := range left {
		name := filepath.Base(path)
		pid, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			_ = ip("netns", "delete", name) // whatever is left of it harms nobody
		}
	}
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Add makes a site with addresses of the subnet.
func (n *Network) Add(name string, addresses ...netip.Addr) error {
	s := &site{name: name}
	interfaceName := device
	if name != Root {
		s.namespace = prefix + strconv.Itoa(os.Getpid()) + "-" + name
		if err := ip("netns", "add", s.namespace); err != nil {
			return err
		}
	} else {
		interfaceName = fmt.Sprintf("zf%d", os.Getpid())
	}
	n.sites[name] = s
	err := n.In(name, func() (err error) {
		s.tun, err = openTUN(interfaceName)
		return err
	})
	if err != nil {
		return err
	}
	commands := [][]string{{"link", "set", interfaceName, "mtu", strconv.Itoa(mtu), "up"}}
	if name != Root {
		commands = append(commands, []string{"link", "set", "lo", "up"})
	}
	for _, a := range addresses {
		commands = append(commands, []string{"addr", "add", netip.PrefixFrom(a, n.subnet.Bits()).String(), "dev", interfaceName})
		n.owners[a] = s
	}
	for _, c := range commands {
		if name != Root {
			c = append([]string{"-n", s.namespace}, c...)
		}
		if err := ip(c...); err != nil {
			return err
		}
	}
	return nil
}

// Start carries packets until Close. No site may be added afterwards.
func (n *Network) Start() {
	for _, s := range n.sites {
		n.wg.Go(func() { n.carry(s) })
	}
}

// Close ends all sites; whatever runs in one must have ended.
func (n *Network) Close() error {
	var errs []error
	n.wires.close()
	for _, s := range n.sites {
		if s.tun != nil {
			errs = append(errs, s.tun.Close())
		}
	}
	n.wg.Wait()
	for _, s := range n.sites {
		if s.namespace != "" {
			errs = append(errs, ip("netns", "delete", s.namespace))
		}
	}
	return errors.Join(errs...)
}

// Command is what runs a program inside a site: the words before its own.
func (n *Network) Command(name string) []string {
	if name == Root {
		return nil
	}
	return []string{"ip", "netns", "exec", n.sites[name].namespace}
}

// In calls do on a thread inside a site. What it opens belongs there for good.
func (n *Network) In(name string, do func() error) error {
	if name == Root {
		return do()
	}
	done := make(chan error)
	go func() {
		// The thread ends with the goroutine, as it stays locked: no other may meet it in a namespace that isn't its own.
		runtime.LockOSThread()
		done <- func() error {
			f, err := os.Open(filepath.Join(folder, n.sites[name].namespace))
			if err != nil {
				return err
			}
			defer f.Close()
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter %s: %w", name, err)
			}
			return do()
		}()
	}()
	return <-done
}

// Listen listens inside a site.
func (n *Network) Listen(name, address string) (l net.Listener, err error) {
	err = n.In(name, func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make device %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), cmp.Or(name, device)), nil
}
