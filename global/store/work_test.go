package store

import (
	"context"
	"fmt"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// work is what was exchanged with etcd.
type work struct {
	// reads and writes count keys, and requests what was sent to etcd; bytes are of keys and values.
	requests, reads, writes, readBytes, writeBytes int
}

// meter counts what a store asks etcd for.
type meter struct {
	clientv3.KV
	clientv3.Watcher
	mu   sync.Mutex
	done work
}

func (m *meter) take() work {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.done
	m.done = work{}
	return w
}

func (m *meter) sent(ops ...clientv3.Op) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done.requests++
	for _, op := range ops {
		if op.IsPut() || op.IsDelete() {
			m.done.writes++
			m.done.writeBytes += len(op.KeyBytes()) + len(op.ValueBytes())
		}
	}
}

func (m *meter) got(key, value []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done.reads++
	m.done.readBytes += len(key) + len(value)
}

func (m *meter) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	m.sent()
	res, err := m.KV.Get(ctx, key, opts...)
	if err == nil {
		for _, kv := range res.Kvs {
			m.got(kv.Key, kv.Value)
		}
	}
	return res, err
}

func (m *meter) Put(ctx context.Context, key, value string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	m.sent(clientv3.OpPut(key, value))
	return m.KV.Put(ctx, key, value, opts...)
}

func (m *meter) Txn(ctx context.Context) clientv3.Txn { return &meteredTxn{m.KV.Txn(ctx), m, nil} }

type meteredTxn struct {
	clientv3.Txn
	m   *meter
	ops []clientv3.Op
}

func (t *meteredTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { t.Txn = t.Txn.If(cs...); return t }
func (t *meteredTxn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }
func (t *meteredTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.ops, t.Txn = ops, t.Txn.Then(ops...)
	return t
}
func (t *meteredTxn) Commit() (*clientv3.TxnResponse, error) {
	t.m.sent(t.ops...)
	res, err := t.Txn.Commit()
	if err == nil {
		for _, r := range res.Responses {
			for _, kv := range r.GetResponseRange().GetKvs() {
				t.m.got(kv.Key, kv.Value)
			}
		}
	}
	return res, err
}

func (m *meter) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	out := make(chan clientv3.WatchResponse)
	in := m.Watcher.Watch(ctx, key, opts...)
	go func() {
		defer close(out)
		for res := range in {
			for _, e := range res.Events {
				m.got(e.Kv.Key, e.Kv.Value)
			}
			select {
			case out <- res:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// TestApplyCostsWhatChanges applies one change to stores of different sizes: what is exchanged with etcd is the same, whatever else
// there is.
func TestApplyCostsWhatChanges(t *testing.T) {
	measure := func(resources, changed int) work {
		s := open(t, embedded(t))
		m := &meter{KV: s.cli.KV, Watcher: s.cli.Watcher}
		s.cli.KV, s.cli.Watcher = m, m
		stop := follow(t, s)
		defer stop()
		name := func(i int) string { return fmt.Sprintf("r%06d", i) }
		for from := 0; from < resources; from += 1000 {
			var ops []Op
			for i := from; i < min(from+1000, resources); i++ {
				ops = append(ops, put(name(i), "1"))
			}
			wait(t, s, commitOps(t, s, ops...).Revision)
		}
		// A large change is rolled out behind its revision; the watch has told all of that before it tells of one more change.
		wait(t, s, commitOps(t, s, put("settled", "1")).Revision)
		m.take()
		var ops []Op
		for i := range changed {
			ops = append(ops, put(name(i), "2"))
		}
		wait(t, s, commitOps(t, s, ops...).Revision)
		return m.take()
	}
	few, many := measure(200, 1), measure(2000, 1)
	t.Logf("one of 200: %+v; one of 2000: %+v", few, many)
	if few.requests != many.requests || few.reads != many.reads || few.writes != many.writes {
		t.Errorf("one resource of 2000 costs %+v, one of 200 %+v", many, few)
	}
	// The head counts the resources, in decimal.
	if many.readBytes > few.readBytes+8 || many.writeBytes > few.writeBytes+8 {
		t.Errorf("one resource of 2000 costs %+v, one of 200 %+v", many, few)
	}
	// Head, the resource, the history entry; what is read of them is the head and the resource before, and what the watch tells.
	if few.writes != 3 {
		t.Errorf("%d keys are written", few.writes)
	}
	ten := measure(200, 10)
	if want := few.writes + 9; ten.writes != want {
		t.Errorf("ten resources write %d keys, want %d", ten.writes, want)
	}
	if ten.requests != few.requests || ten.reads > 10*few.reads || ten.writeBytes > 10*few.writeBytes {
		t.Errorf("ten resources cost %+v, one %+v", ten, few)
	}
}
