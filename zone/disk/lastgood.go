package disk

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// goodBucket holds, for records that can't be used, the last version that could, under the same keys. A file of software that did not
// know it has none.
var goodBucket = []byte("good")

// written is an upsert as it goes into recordBucket.
type written struct {
	record *kdsv1.Record
	k, v   []byte
}

// keepGood keeps the last good version of each record that a delta replaces by one that can't be used, and forgets what is not needed any
// more. The records are still those of before the delta.
func (s *Store) keepGood(tx *bolt.Tx, upserts []written, deleted [][]byte, snapshot bool) error {
	if s.Usable == nil {
		return nil
	}
	records, good := tx.Bucket(recordBucket), tx.Bucket(goodBucket)
	kept := make(map[string]bool, len(upserts))
	for _, u := range upserts {
		kept[string(u.k)] = true
		old, had := records.Get(u.k), good.Get(u.k) != nil
		switch {
		case bytes.Equal(old, u.v) || old == nil && !had:
		case s.Usable(u.record):
			if had {
				if err := put(tx, goodBucket, u.k, nil); err != nil {
					return err
				}
			}
		case old != nil:
			before := &kdsv1.Record{}
			if err := proto.Unmarshal(old, before); err != nil {
				return err
			}
			if !s.Usable(before) {
				continue
			}
			if err := put(tx, goodBucket, u.k, bytes.Clone(old)); err != nil {
				return err
			}
		}
	}
	if snapshot {
		if err := good.ForEach(func(k, _ []byte) error {
			if !kept[string(k)] {
				deleted = append(deleted, bytes.Clone(k))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for _, k := range deleted {
		if good.Get(k) == nil || kept[string(k)] {
			continue
		}
		if err := put(tx, goodBucket, k, nil); err != nil {
			return err
		}
	}
	return nil
}

// Good reads the last good versions of records that can't be used.
func (s *Store) Good() (all []*kdsv1.Record, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(goodBucket).ForEach(func(_, v []byte) error {
			r := &kdsv1.Record{}
			if err := proto.Unmarshal(v, r); err != nil {
				return err
			}
			all = append(all, r)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read last good records: %w", err)
	}
	return all, nil
}
