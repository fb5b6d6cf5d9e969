package simproxy

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zoneforge/zoneforge/xds"
)

// received is a response as a proxy takes it: of resources whose version another proxy was given before, no more than name and version
// are read. It is used for one response after another.
type received struct {
	fleet          *Fleet
	typeURL, nonce string
	items          []*Item
	removed        []string
	// bytes are those of the resources.
	bytes int
}

// codec is gRPC's for protobuf, but for what is received.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	r, ok := message.(*received)
	if !ok {
		return c.CodecV2.Unmarshal(data, message)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return r.read(buffer.ReadOnlyData())
}

var errEncoding = errors.New("it is no encoded message")

// fields calls each for the fields of a message that are strings, bytes or messages.
func fields(message []byte, each func(number protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errEncoding
		}
		message = message[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
				return errEncoding
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return errEncoding
		}
		if err := each(number, value); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

// read takes an encoded DeltaDiscoveryResponse. What is kept of it is copied.
func (r *received) read(message []byte) error {
	r.items, r.removed, r.bytes = r.items[:0], nil, 0
	r.typeURL, r.nonce = "", ""
	err := fields(message, func(number protowire.Number, value []byte) error {
		switch number {
		case 4:
			r.typeURL = string(value)
		case 5:
			r.nonce = string(value)
		case 6:
			r.removed = append(r.removed, string(value))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return fields(message, func(number protowire.Number, value []byte) error {
		if number != 2 {
			return nil
		}
		var name, version, content []byte
		if err := fields(value, func(number protowire.Number, value []byte) error {
			switch number {
			case 1:
				version = value
			case 2:
				content = value
			case 3:
				name = value
			}
			return nil
		}); err != nil {
			return err
		}
		if err := fields(content, func(number protowire.Number, value []byte) error {
			if number == 2 {
				r.bytes += len(value)
			}
			return nil
		}); err != nil {
			return err
		}
		item, err := r.fleet.items.intern(r.typeURL, name, version, content)
		r.items = append(r.items, item)
		return err
	})
}

// items are those that proxies were given, in shards, as all proxies look for theirs at once.
type items struct {
	seed   maphash.Seed
	shards [64]struct {
		mu sync.RWMutex
		of map[string]*Item // guarded by mu; by type, name and version
	}
}

// intern gives the shared item of a resource, which is decoded the first time that it is seen.
func (i *items) intern(typeURL string, name, version, content []byte) (*Item, error) {
	var buffer [256]byte
	key := append(append(append(append(append(buffer[:0], typeURL...), 0), name...), 0), version...)
	shard := &i.shards[maphash.Bytes(i.seed, key)%uint64(len(i.shards))]
	shard.mu.RLock()
	item := shard.of[string(key)]
	shard.mu.RUnlock()
	if item != nil {
		return item, nil
	}
	item, err := decode(typeURL, string(name), string(version), content)
	if err != nil {
		return nil, err
	}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if other := shard.of[string(key)]; other != nil {
		return other, nil
	}
	if shard.of == nil {
		shard.of = map[string]*Item{}
	}
	shard.of[string(key)] = item
	return item, nil
}

func (i *items) clear() {
	for n := range i.shards {
		shard := &i.shards[n]
		shard.mu.Lock()
		clear(shard.of)
		shard.mu.Unlock()
	}
}

func decode(typeURL, name, version string, content []byte) (*Item, error) {
	var packed anypb.Any
	if err := proto.Unmarshal(content, &packed); err != nil {
		return nil, fmt.Errorf("resource %s: %w", name, err)
	}
	m, err := packed.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", name, err)
	}
	item := &Item{Type: typeURL, Name: name, Version: version, references: References{}}
	if e, ok := m.(*endpointv3.ClusterLoadAssignment); ok {
		item.Endpoints = addresses(e)
	} else if err := item.references.Find(m.ProtoReflect()); err != nil {
		return nil, fmt.Errorf("resource %s: %w", name, err)
	}
	if typeURL == xds.TypeEndpoint || typeURL == xds.TypeSecret {
		item.references = nil
	}
	return item, nil
}
