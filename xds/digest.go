package xds

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// digester makes digests of plain values. Values of one type have the same digest when they are deeply equal and, but for a collision of
// SHA-256, only then: each part of a value is written such that where it ends is clear from what is before.
type digester struct {
	encoded []byte
	keys    []string
}

// of is the digest of what v points to, as a thing of its kind.
func (d *digester) of(kind string, v any) [sha256.Size]byte {
	d.encoded = append(d.encoded[:0], kind...)
	d.write(reflect.ValueOf(v).Elem())
	return sha256.Sum256(d.encoded)
}

func (d *digester) write(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			d.write(v.Field(i))
		}
	case reflect.String:
		d.text(v.String())
	case reflect.Bool:
		d.flag(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		d.encoded = binary.AppendVarint(d.encoded, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		d.encoded = binary.AppendUvarint(d.encoded, v.Uint())
	case reflect.Float32, reflect.Float64:
		d.encoded = binary.BigEndian.AppendUint64(d.encoded, math.Float64bits(v.Float()))
	case reflect.Pointer:
		d.flag(!v.IsNil())
		if !v.IsNil() {
			d.write(v.Elem())
		}
	case reflect.Slice:
		d.flag(!v.IsNil())
		d.encoded = binary.AppendUvarint(d.encoded, uint64(v.Len()))
		for i := range v.Len() {
			d.write(v.Index(i))
		}
	case reflect.Map:
		d.table(v)
	default:
		panic(fmt.Sprintf("xds: no digest of a %s: the intermediate representation holds plain values alone", v.Type()))
	}
}

// table writes a map of texts in the order of its keys.
func (d *digester) table(v reflect.Value) {
	m, ok := v.Interface().(map[string]string)
	if !ok {
		panic(fmt.Sprintf("xds: no digest of a %s: the intermediate representation maps texts to texts alone", v.Type()))
	}
	d.flag(m != nil)
	d.encoded = binary.AppendUvarint(d.encoded, uint64(len(m)))
	d.keys = d.keys[:0]
	for k := range m {
		d.keys = append(d.keys, k)
	}
	slices.SortFunc(d.keys, strings.Compare)
	for _, k := range d.keys {
		d.text(k)
		d.text(m[k])
	}
}

func (d *digester) text(s string) {
	d.encoded = binary.AppendUvarint(d.encoded, uint64(len(s)))
	d.encoded = append(d.encoded, s...)
}

func (d *digester) flag(is bool) {
	if is {
		d.encoded = append(d.encoded, 1)
	} else {
		d.encoded = append(d.encoded, 0)
	}
}
