package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zoneforge/zoneforge/global/store"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// trust is in the authority that the replicas of global share.
func (o *ordeal) trust() (*tls.Config, error) {
	roots, err := os.ReadFile(o.path("global", "tls", "server-ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	return &tls.Config{RootCAs: pool}, nil
}

// recover brings back what is down; nothing when it isn't.
func (o *ordeal) recover(name string) {
	if back := o.down[name]; back != nil {
		delete(o.down, name)
		back()
	}
}

// starts are the processes that are killed and paused, but for etcd, with how each is run again.
func (o *ordeal) starts() map[string]func() {
	replica := func(i int) func() {
		return func() {
			// It begins only with etcd.
			o.recover("ways to etcd of " + replicaName(i))
			o.startReplica(i)
		}
	}
	return map[string]func(){
		"global":   replica(0),
		"global-b": replica(1),
		"east":     func() { o.run("east", o.zoneArgs("east", 2)...) },
		"west":     func() { o.run("west", o.zoneArgs("west", 3)...) },
	}
}

// step changes something, or begins or ends a fault, as the seed has it. One process of a kind is down at a time: so that a quorum of etcd,
// and one replica of global, are there to take changes in most steps.
func (o *ordeal) step() string {
	n := o.rnd.IntN(1 << 20)
	names := sortedKeys(o.starts())
	name := names[n%len(names)]
	switch dice := o.rnd.IntN(100); {
	case dice < 38:
		replica := n % o.replicas
		resource := []string{"routes", "routes", "kept"}[n/2%3]
		err := o.change(replica, resource)
		if err != nil && !errors.Is(err, errUntold) && !errors.Is(err, errConflict) {
			o.t.Errorf("a change through %s: %v", replicaName(replica), err)
		}
		return fmt.Sprintf("generation %d of %s through %s: %v", o.generation, resource, replicaName(replica), err)
	case dice < 50:
		o.free(name)
		o.h.Fault("kill -9 of " + kindOf(name))
		o.kill(name)
		o.down[name] = o.starts()[name]
		return name + " is killed"
	case dice < 60:
		o.free(name)
		o.h.Fault("SIGSTOP of " + kindOf(name))
		o.signal(name, syscall.SIGSTOP)
		o.down[name] = func() { o.signal(name, syscall.SIGCONT) }
		return name + " stands still"
	case dice < 72:
		all := sortedKeys(o.down)
		if len(all) == 0 {
			return "nothing is down"
		}
		o.recover(all[n%len(all)])
		return all[n%len(all)] + " is back"
	case dice < 77:
		return o.etcdFault(n)
	case dice < 81:
		i := n % o.replicas
		o.h.Fault("global cut off from etcd")
		o.cut(i)
		o.down["ways to etcd of "+replicaName(i)] = func() { o.mend(i) }
		return replicaName(i) + " is cut off from etcd"
	case dice < 86:
		o.h.Fault("poisoned record")
		return fmt.Sprintf("kept is poisoned: %v", o.poison())
	case dice < 91:
		return o.refusedListener()
	case dice < 95:
		by := time.Duration(n%121-60) * time.Minute
		o.h.Fault("clock of " + kindOf(name) + " set")
		o.setClock(name, by)
		return fmt.Sprintf("the clock of %s is off by %s", name, by)
	default:
		return o.killBackend()
	}
}

// kindOf is a zone or global.
func kindOf(name string) string {
	if strings.HasPrefix(name, "global") {
		return "global"
	}
	return "a zone"
}

// free brings a process back, and the other one of its kind.
func (o *ordeal) free(name string) {
	for _, other := range sortedKeys(o.down) {
		if o.starts()[other] != nil && kindOf(other) == kindOf(name) {
			o.recover(other)
		}
	}
}

// etcdFault is done to one member at a time; changes go on over the others.
func (o *ordeal) etcdFault(n int) string {
	o.recover("a member of etcd")
	i := n / 8 % 3
	ctx, cancel := context.WithTimeout(o.t.Context(), awaitTime)
	defer cancel()
	switch n % 4 {
	case 0:
		o.h.Fault("etcd: compaction")
		return fmt.Sprintf("etcd is compacted: %v", o.etcd.Compact(ctx))
	case 1:
		o.h.Fault("etcd: defragmentation")
		return fmt.Sprintf("etcd is defragmented: %v", o.etcd.Defragment(ctx))
	case 2:
		o.h.Fault("etcd: kill -9 of a member")
		o.etcd.Kill(i)
		o.down["a member of etcd"] = func() {
			if err := o.etcd.Run(i); err != nil {
				o.t.Error(err)
			}
		}
		return fmt.Sprintf("member %d of etcd is killed", i)
	default:
		o.h.Fault("etcd: SIGSTOP of a member")
		if err := o.etcd.Pause(i); err != nil {
			o.t.Error(err)
		}
		o.down["a member of etcd"] = func() {
			if err := o.etcd.Resume(i); err != nil {
				o.t.Error(err)
			}
		}
		return fmt.Sprintf("member %d of etcd stands still", i)
	}
}

// poison replaces the route kept in etcd by one that no zone can use, which the REST API would never let in.
func (o *ordeal) poison() error {
	ctx, cancel := context.WithTimeout(o.t.Context(), answerTime)
	defer cancel()
	seal, err := store.OpenKeyFile(o.path("global", "kek"))
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, store.Config{Endpoints: o.etcd.Endpoints(), Seal: seal})
	if err != nil {
		return err
	}
	defer s.Close()
	key := resource.Key{Kind: "MeshGatewayRoute", Mesh: "default", Name: "kept"}
	// It selects nothing, which validation refuses.
	_, err = s.Commit(ctx, store.Change{Author: "test", Message: "poison", Ops: []store.Op{{Key: key, Put: &resource.Resource{
		Key: key, Spec: &meshv1.MeshGatewayRoute{},
	}}}})
	return err
}

// refusedListener asks the gateway for a port that another process has, which Envoy rejects, and takes it back. What it had goes on.
func (o *ordeal) refusedListener() string {
	taken, err := net.Listen("tcp", o.at(10, 8090))
	if err != nil {
		// A change that took it back had no answer in time.
		return fmt.Sprintf("the gateway has the port, and gives it back: %v", o.commitGateway(8080))
	}
	defer taken.Close()
	o.h.Fault("listener that Envoy rejects")
	var outcomes []string
	for _, ports := range [][]int{{8080, 8090}, {8080}} {
		outcomes = append(outcomes, fmt.Sprint(o.commitGateway(ports...)))
		<-time.After(200 * time.Millisecond)
	}
	return "the gateway gets a port that another has, and loses it: " + strings.Join(outcomes, ", ")
}

// killBackend kills the backend of near in east. While it is away near is served by west. It is done only in calm: a zone whose control plane
// is down can't tell its proxies that a backend of theirs is gone.
func (o *ordeal) killBackend() string {
	for _, name := range sortedKeys(o.down) {
		o.recover(name)
	}
	for i := range o.replicas {
		o.isReady(i)
	}
	o.holder("east")
	o.holder("west")
	o.await("a change that mends what is poisoned", func() error { return o.change(0, "kept") })
	o.settled("east", inEast)
	o.settled("west", inWest)
	o.h.Fault("kill -9 of a backend with its Envoy")
	o.kills.step()
	o.kill("near-east")
	client := newClient(o.t)
	served := func(by string) {
		o.t.Helper()
		o.await("near to be served by "+by, func() error {
			r, a, err := ask(client, http.MethodGet, o.url("/near"))
			if err == nil && (r.StatusCode != http.StatusOK || a.Workload != by) {
				err = fmt.Errorf("%d from %q", r.StatusCode, a.Workload)
			}
			return err
		})
	}
	served("near41")
	o.settled("east", inEast-1)
	o.kills.step()
	o.startNear()
	o.settled("east", inEast)
	served("near31")
	return "the backend of near in east is killed and comes back"
}
