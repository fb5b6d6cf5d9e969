package xds

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
)

// fill gives each part of a value something, so that nothing is nil or empty.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth)
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64, reflect.Float32:
		v.SetFloat(1.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"a": "b"}))
	default:
		if v.CanInt() {
			v.SetInt(7)
		} else {
			v.SetUint(7)
		}
	}
}

// change changes each part of a value in some ways, and back.
func change(v reflect.Value, path string, changed func(path string)) {
	set := func(to reflect.Value, what string) {
		old := reflect.ValueOf(v.Interface())
		v.Set(to)
		changed(path + what)
		v.Set(old)
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			change(v.Field(i), path+"."+v.Type().Field(i).Name, changed)
		}
	case reflect.String:
		set(reflect.ValueOf("").Convert(v.Type()), " empty")
		set(reflect.ValueOf("xy").Convert(v.Type()), " longer")
	case reflect.Bool:
		set(reflect.ValueOf(false).Convert(v.Type()), " false")
	case reflect.Pointer:
		set(reflect.Zero(v.Type()), " nil")
		change(v.Elem(), path, changed)
	case reflect.Slice:
		set(reflect.Zero(v.Type()), " nil")
		set(v.Slice(0, 1), " shorter")
		change(v.Index(1), path+"[1]", changed)
	case reflect.Map:
		set(reflect.Zero(v.Type()), " nil")
		set(reflect.ValueOf(map[string]string{"a": "c"}), " other value")
		set(reflect.ValueOf(map[string]string{"b": "b"}), " other key")
	default:
		set(reflect.Zero(v.Type()), " zero")
	}
}

// TestDigestTellsAllApart changes every single value of what resources are built from.
func TestDigestTellsAllApart(t *testing.T) {
	var d digester
	for _, v := range []any{&ir.Listener{}, &ir.RouteConfig{}, &ir.Cluster{}} {
		fill(reflect.ValueOf(v).Elem(), 0)
		want := d.of("x", v)
		seen := map[[32]byte]string{want: "unchanged"}
		change(reflect.ValueOf(v).Elem(), reflect.TypeOf(v).Elem().Name(), func(path string) {
			got := d.of("x", v)
			if other, ok := seen[got]; ok {
				t.Fatalf("%s has the digest of: %s", path, other)
			}
			seen[got] = path
		})
		if d.of("x", v) != want || d.of("y", v) == want {
			t.Errorf("%T: the digest is not of kind and value", v)
		}
		if len(seen) < 30 {
			t.Errorf("%T: only %d values were changed", v, len(seen))
		}
	}
}

// TestMemoGivesWhatBuildGives builds proxies that have much in common in random order, also such that can't be built, after others.
func TestMemoGivesWhatBuildGives(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, seed))
	var memo Memo
	failed := 0
	for round := range 300 {
		p := sidecar(1 + rnd.IntN(4))
		if rnd.IntN(3) == 0 {
			p.Routes[rnd.IntN(len(p.Routes))].VirtualHosts[0].Routes[0].Forward.Timeout = 7
		}
		switch rnd.IntN(6) {
		case 0:
			p.Clusters = slices.Delete(p.Clusters, len(p.Clusters)-1, len(p.Clusters))
		case 1:
			p.Routes = slices.Delete(p.Routes, len(p.Routes)-1, len(p.Routes))
		case 2:
			p.Listeners[0].Chains[0].HTTP.Bare = true
		case 3:
			p.Listeners = append(p.Listeners, p.Listeners[0])
		case 4:
			p.Clusters[0].ConnectTimeout = -1
		}
		want, wantErr := Build(p)
		got, err := memo.Build(p, false)
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("round %d: %v, want %v", round, err, wantErr)
		}
		if err != nil {
			failed++
			continue
		}
		for _, lists := range [][2][]*Resource{{got.Listeners, want.Listeners}, {got.Routes, want.Routes}, {got.Clusters, want.Clusters}, {got.Extensions, want.Extensions}} {
			if !slices.EqualFunc(lists[0], lists[1], func(a, b *Resource) bool {
				return a.String() == b.String() && a.Behind == b.Behind && string(a.Any().GetValue()) == string(b.Any().GetValue())
			}) {
				t.Fatalf("round %d: %v, want %v", round, lists[0], lists[1])
			}
		}
	}
	if failed < 50 || failed > 290 {
		t.Errorf("%d of 300 failed", failed)
	}
}

// TestMemoBuildsWhatIsNew counts what is built of a proxy after another.
func TestMemoBuildsWhatIsNew(t *testing.T) {
	var memo Memo
	built := func(p *ir.Proxy, want int, why string) *Resources {
		t.Helper()
		r, err := memo.Build(p, false)
		if err != nil {
			t.Fatal(err)
		}
		// What filters share comes by ECDS, and is built each time.
		want += len(r.Extensions)
		if n, bytes := memo.TakeBuilt(); n != want || (bytes > 0) != (want > 0) {
			t.Errorf("%s: %d are built, want %d", why, n, want)
		}
		return r
	}
	built(sidecar(30), 93, "the first, with its inbound")
	same := built(sidecar(30), 0, "another like it")
	p := sidecar(30)
	p.Name, p.Routes[5].VirtualHosts[0].Routes[0].Forward.Timeout = "web-1", 7
	built(p, 1, "another timeout")
	if _, err := memo.Build(p, true); err != nil {
		t.Fatal(err)
	}
	if n, _ := memo.TakeBuilt(); n != len(p.Listeners)+len(same.Extensions) {
		t.Errorf("%d are built of one whose listeners are its own", n)
	}
	if n := memo.Keep(func(r *Resource) bool { return slices.Contains(same.Clusters, r) }); n != 31 {
		t.Errorf("%d are kept", n)
	}
	built(sidecar(30), 62, "after what nobody has is forgotten")
}

// BenchmarkMemo builds a sidecar with 30 outbounds that is there already.
func BenchmarkMemo(b *testing.B) {
	p := sidecar(30)
	var memo Memo
	b.ReportAllocs()
	for b.Loop() {
		if _, err := memo.Build(p, false); err != nil {
			b.Fatal(err)
		}
	}
}
