package federation_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/view"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/zone/disk"
)

// startEtcd runs an etcd that global reaches through a fault proxy.
func (f *federation) startEtcd() {
	f.t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = filepath.Join(f.dir, "etcd"), "fatal"
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	f.etcd, f.db = e, f.proxy()
	f.db.SetTarget(e.Clients[0].Addr().String())
}

// compact forgets the history of an etcd that is apart, as its operators do while global watches it.
func (f *federation) compact() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cli := v3client.New(f.etcd.Server)
	defer cli.Close()
	res, err := cli.Get(ctx, "compact")
	if err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	// Nothing may have happened since the last time.
	if _, err = cli.Compact(ctx, res.Header.GetRevision(), clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact: %w", err)
	}
	return nil
}

// poison writes, past the REST API, a breaker that no zone can use in place of the one that is in force. Where etcd is global's own,
// global starts again for it.
func (f *federation) poison() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if f.etcd == nil {
		f.global.stop()
		defer f.startGlobal()
	}
	s := f.openStore(ctx)
	defer s.Close()
	key := resource.Key{Kind: "CircuitBreaker", Mesh: "default", Name: "breaker"}
	for {
		// It selects nothing, which validation refuses.
		_, err := s.Commit(ctx, store.Change{Author: "test", Message: "poison", Ops: []store.Op{{Key: key, Put: &resource.Resource{
			Key: key, Spec: &meshv1.CircuitBreaker{Conf: &meshv1.CircuitBreaker_Conf{Interval: durationpb.New(-time.Second)}},
		}}}})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// openStore opens the store of a global that is stopped, or another's view of an etcd that is apart.
func (f *federation) openStore(ctx context.Context) *store.Store {
	f.t.Helper()
	key, err := store.OpenKeyFile(filepath.Join(f.globalDir(), "kek"))
	if err != nil {
		f.t.Fatal(err)
	}
	cfg := store.Config{DataDir: filepath.Join(f.globalDir(), "store"), Seal: key}
	if f.etcd != nil {
		cfg.DataDir, cfg.Endpoints = "", []string{"http://" + f.etcd.Clients[0].Addr().String()}
	}
	s, err := store.Open(ctx, cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// spoil writes into global's store what the REST API would never let in: a policy that no zone can use, as of a newer version,
// and records that global itself can't read. It returns the keys that zones have to reject.
func (f *federation) spoil() []string {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f.global.stop()
	s := f.openStore(ctx)
	key := resource.Key{Kind: "Timeout", Mesh: "default", Name: "unusable"}
	// It selects nothing, which validation refuses.
	_, err := s.Commit(ctx, store.Change{Author: "test", Message: "unusable", Ops: []store.Op{{Key: key, Put: &resource.Resource{
		Key: key, Spec: &meshv1.Timeout{Conf: &meshv1.Timeout_Conf{ConnectTimeout: durationpb.New(-time.Second)}},
	}}}})
	s.Close()
	if err != nil {
		f.t.Fatal(err)
	}
	f.writeRaw(ctx, map[resource.Key]string{
		{Kind: "Hologram", Mesh: "default", Name: "of-the-future"}: "p{}",
		{Kind: "Timeout", Mesh: "default", Name: "garbled"}:        "p\xff\xff\xff",
	})
	f.startGlobal()
	return []string{"Timeout/default/unusable"}
}

// writeRaw puts bytes under the keys of resources into the stopped global's etcd, with a head that is right.
func (f *federation) writeRaw(ctx context.Context, records map[resource.Key]string) {
	f.t.Helper()
	e := f.etcd
	if e == nil {
		cfg := embed.NewConfig()
		cfg.Dir = filepath.Join(f.globalDir(), "store", "etcd")
		cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
		cfg.LogLevel = "fatal"
		var err error
		if e, err = embed.StartEtcd(cfg); err != nil {
			f.t.Fatal(err)
		}
		defer e.Close()
		<-e.Server.ReadyNotify()
	}
	cli := v3client.New(e.Server)
	defer cli.Close()
	const prefix = "/zoneforge/"
	res, err := cli.Get(ctx, prefix+"head")
	if err != nil || len(res.Kvs) != 1 {
		f.t.Fatalf("head: %v, %v", res, err)
	}
	var head struct {
		Revision int64           `json:"revision"`
		Seq      int64           `json:"seq"`
		Sum      []byte          `json:"sum"`
		Count    uint64          `json:"count"`
		Pending  json.RawMessage `json:"pending,omitempty"`
	}
	if err := json.Unmarshal(res.Kvs[0].Value, &head); err != nil || head.Revision == 0 || len(head.Sum) == 0 {
		f.t.Fatalf("head %s: %v", res.Kvs[0].Value, err)
	}
	digest, ok := resource.DigestFrom(head.Sum, head.Count)
	if !ok {
		f.t.Fatalf("head %s has no digest", res.Kvs[0].Value)
	}
	head.Revision++
	var ops []clientv3.Op
	for key, stored := range records {
		digest.Add(resource.HashOf(key, []byte(stored)))
		value := append(binary.BigEndian.AppendUint64(nil, uint64(head.Revision)), stored...)
		ops = append(ops, clientv3.OpPut(prefix+"res/"+key.Kind+"/"+key.Mesh+"/"+key.Name, string(value)))
	}
	head.Sum, head.Count = digest.Sum(), digest.Count()
	value, err := json.Marshal(head)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := cli.Txn(ctx).Then(append(ops, clientv3.OpPut(prefix+"head", string(value)))...).Commit(); err != nil {
		f.t.Fatal(err)
	}
}

// positions are what each zone's disk holds and what global's store means it to hold; both are stopped.
func (f *federation) positions() map[string][2]string {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s := f.openStore(ctx)
	defer s.Close()
	views := view.New(s, nil)
	show := func(p kds.Position) string {
		return fmt.Sprintf("revision %d of %s: %d records %x", p.Revision, p.Epoch, p.Digest.Count(), p.Digest.Sum())
	}
	out := map[string][2]string{}
	for _, name := range f.names {
		d, err := disk.Open(f.zones[name].cfg.DataDir)
		if err != nil {
			f.t.Fatal(err)
		}
		set, at, err := d.Load()
		if err := d.Close(); err != nil {
			f.t.Error(err)
		}
		if err != nil {
			f.t.Fatal(err)
		}
		want, _ := views.View(name)
		out[name] = [2]string{show(set.Position(at.Epoch, at.Revision)), show(want.Position())}
	}
	return out
}
