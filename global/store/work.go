package store

import (
	"context"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Work is what was done since Open, whatever it took: keys that went to and came from etcd, events included, with the bytes of keys
// and values, and resources that were looked up or iterated over in snapshots.
type Work struct {
	KeysRead, BytesRead, KeysWritten, BytesWritten, Visited uint64
}

// tally counts it. All methods are safe for concurrent use.
type tally struct{ keysRead, bytesRead, keysWritten, bytesWritten, visited atomic.Uint64 }

func (t *tally) now() Work {
	return Work{t.keysRead.Load(), t.bytesRead.Load(), t.keysWritten.Load(), t.bytesWritten.Load(), t.visited.Load()}
}

func (t *tally) read(key, value []byte) {
	t.keysRead.Add(1)
	t.bytesRead.Add(uint64(len(key) + len(value)))
}

func (t *tally) wrote(op clientv3.Op) {
	t.keysWritten.Add(1)
	t.bytesWritten.Add(uint64(len(op.KeyBytes()) + len(op.ValueBytes())))
}

// counted is etcd, with all that goes there and comes from there counted.
type counted struct {
	clientv3.KV
	tally *tally
}

func (c counted) Put(ctx context.Context, key, value string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	c.tally.wrote(clientv3.OpPut(key, value))
	return c.KV.Put(ctx, key, value, opts...)
}

func (c counted) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	res, err := c.KV.Get(ctx, key, opts...)
	if err == nil {
		for _, kv := range res.Kvs {
			c.tally.read(kv.Key, kv.Value)
		}
	}
	return res, err
}

func (c counted) Txn(ctx context.Context) clientv3.Txn {
	return &countedTxn{c.KV.Txn(ctx), c.tally}
}

type countedTxn struct {
	clientv3.Txn
	tally *tally
}

func (t *countedTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	t.Txn = t.Txn.If(cs...)
	return t
}

func (t *countedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	for _, op := range ops {
		if op.IsPut() || op.IsDelete() {
			t.tally.wrote(op)
		}
	}
	t.Txn = t.Txn.Then(ops...)
	return t
}

func (t *countedTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.Txn = t.Txn.Else(ops...)
	return t
}

func (t *countedTxn) Commit() (*clientv3.TxnResponse, error) {
	res, err := t.Txn.Commit()
	if err == nil {
		for _, r := range res.Responses {
			for _, kv := range r.GetResponseRange().GetKvs() {
				t.tally.read(kv.Key, kv.Value)
			}
		}
	}
	return res, err
}
