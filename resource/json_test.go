package resource

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"
)

// asYAML is what YAML's parser makes of a text of one document, nil where it is none.
func asYAML(text string) *yaml.Node {
	dec := yaml.NewDecoder(strings.NewReader(text))
	var n, more yaml.Node
	if dec.Decode(&n) != nil || dec.Decode(&more) == nil || n.Kind != yaml.DocumentNode || len(n.Content) != 1 {
		return nil
	}
	return n.Content[0]
}

var jsonTexts = []string{
	`{}`, ` {} `, "{\n}\n", `{"a":1}`, `{"a": 1, "b": [true, false, null, 0, 12345678901234567], "c": {"d": "e f"}}`, "{\n  \"a\": [\n    {\"b\": \"c\"},\n    []\n  ]\n}\n",
	`{"a":"#x: y"}`, `{"a":"- b"}`, `{"":""}`, `{"a":"{"}`, `{"a":"yes","b":"1","c":"null","d":"1e3"}`, `{"a":1,"a":2}`, `{"<<":{"a":1}}`, `{"a":"2001-01-01"}`,
}

// What is no plain JSON is left to YAML, whose messages people get.
var otherTexts = []string{
	``, `[]`, `a: 1`, `{a: 1}`, `{"a":1,}`, `{"a":1} x`, `{"a":01}`, `{"a":-1}`, `{"a":1.5}`, `{"a":1e3}`, `{"a":"\n"}`, `{"a":"ü"}`, "{\"a\":\"\t\"}", "{\t}", `{"a"}`, `{"a":}`, `{"a":tru}`, `{"a":"b`,
	`{"a":1}{"b":2}`, `{"a":[1,]}`, `{"a":[1 2]}`, `{'a':1}`, `{"a":1}` + "\n---\n" + `{"b":2}`, strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), `{"a": &x 1}`, `{"a":1 # x` + "\n}", `{"a":0x1}`, `{"a":1234567890123456789}`,
}

func TestPlainJSONIsWhatYAMLMakesOfIt(t *testing.T) {
	texts := jsonTexts
	files, err := filepath.Glob("testdata/kinds/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	for _, f := range files {
		archive, err := txtar.ParseFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range Decode(f, archive.Files[0].Data, Options{System: true}).Resources {
			text, err := EncodeJSON(r)
			if err != nil {
				t.Fatal(err)
			}
			if plainJSON(text) != nil {
				texts = append(texts, string(text))
			}
		}
	}
	if len(texts) < len(jsonTexts)+len(files)/2 {
		t.Errorf("only %d of the documents are plain", len(texts)-len(jsonTexts))
	}
	for _, text := range texts {
		if got, want := plainJSON([]byte(text)), asYAML(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
	for _, text := range otherTexts {
		if n := plainJSON([]byte(text)); n != nil {
			t.Errorf("%s is taken for plain JSON", text)
		}
	}
}

func FuzzPlainJSON(f *testing.F) {
	for _, text := range append(jsonTexts, otherTexts...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := plainJSON([]byte(text)); got != nil {
			if want := asYAML(text); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
	})
}

// BenchmarkDecodeDataplane reads what a proxy with thirty outbounds presents.
func BenchmarkDecodeDataplane(b *testing.B) {
	var outbounds []string
	for i := range 30 {
		outbounds = append(outbounds, fmt.Sprintf(`{"port":%d,"tags":{"kuma.io/service":"backend-%d"}}`, 20000+i, i))
	}
	text := fmt.Appendf(nil, `{"type":"Dataplane","mesh":"default","name":"web-1","networking":{"address":"10.0.0.1","inbound":[`+
		`{"port":15006,"servicePort":8080,"tags":{"kuma.io/service":"web"}}],"outbound":[%s]}}`, strings.Join(outbounds, ","))
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode("document", text, Options{}).Err(); err != nil {
			b.Fatal(err)
		}
	}
}
