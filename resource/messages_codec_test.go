package resource

import (
	"encoding/base64"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// bookDescriptor is books.Books/Get with an HTTP rule.
func bookDescriptor(t *testing.T, rules ...*annotations.HttpRule) []byte {
	t.Helper()
	options := func(rule *annotations.HttpRule) *descriptorpb.MethodOptions {
		if rule == nil {
			return nil
		}
		o := &descriptorpb.MethodOptions{}
		proto.SetExtension(o, annotations.E_Http, rule)
		return o
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("books.proto"), Package: proto.String("books"), Syntax: proto.String("proto3"), Dependency: []string{"google/api/annotations.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Book"), Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String("name"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()},
			{Name: proto.String("series"), Number: proto.Int32(2), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".books.Book"), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()},
		}}},
		Service:        []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Books")}},
		SourceCodeInfo: &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{{LeadingComments: proto.String("a long comment")}}},
	}
	for i, r := range rules {
		file.Service[0].Method = append(file.Service[0].Method, &descriptorpb.MethodDescriptorProto{
			Name: proto.String("Get" + strings.Repeat("More", i)), InputType: proto.String(".books.Book"), OutputType: proto.String(".books.Book"), Options: options(r),
		})
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, f := range []protoreflect.FileDescriptor{descriptorpb.File_google_protobuf_descriptor_proto, annotations.File_google_api_http_proto, annotations.File_google_api_annotations_proto} {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	set.File = append(set.File, file)
	data, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func get(path string) *annotations.HttpRule {
	return &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}}
}

func TestTranscodeDescriptor(t *testing.T) {
	good := bookDescriptor(t, get("/v1/{name=books/*}:read"), get("/v1/books/{name}"), nil)
	small, err := TranscodeDescriptor(good, []string{"books.Books"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(small), "a long comment") || !strings.Contains(string(small), "Books") {
		t.Error("comments are kept, or the service is not")
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(good, set); err != nil {
		t.Fatal(err)
	}
	set.File = set.File[2:]
	alone, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		data    []byte
		service string
		want    string
	}{
		{"no descriptor", []byte("syntax"), "books.Books", "holds no FileDescriptorSet (write it by protoc"},
		{"no imports", alone, "books.Books", "(compile it with --include_imports)"},
		{"another service", good, "books.Book", "has no service books.Book (did you mean books.Books?)"},
		{"relative path", bookDescriptor(t, get("v1")), "books.Books", `method books.Books.Get: google.api.http: path "v1": begins with /`},
		{"open variable", bookDescriptor(t, get("/v1/{name")), "books.Books", "a variable isn't closed by }"},
		{"text behind a variable", bookDescriptor(t, get("/v1/{name}x")), "books.Books", "a variable ends at / or at the verb"},
		{"empty segment", bookDescriptor(t, get("/v1//a")), "books.Books", "has an empty segment"},
		{"last segment", bookDescriptor(t, get("/v1/")), "books.Books", "has an empty segment"},
		{"stars within", bookDescriptor(t, get("/v1/**/a")), "books.Books", "** stands at the end"},
		{"a star in a word", bookDescriptor(t, get("/v1/a*")), "books.Books", `"a*" is no segment`},
		{"twice", bookDescriptor(t, get("/v1/{name}/{name}")), "books.Books", "the field name is there twice"},
		{"no such field", bookDescriptor(t, get("/v1/{series.title}")), "books.Books", "books.Book has no field series.title"},
		{"below a text", bookDescriptor(t, get("/v1/{name.first}")), "books.Books", "books.Book has no field name.first"},
		{"no such body", bookDescriptor(t, &annotations.HttpRule{Pattern: &annotations.HttpRule_Post{Post: "/v1"}, Body: "book"}), "books.Books", "books.Book has no field book"},
		{"taken path", bookDescriptor(t, get("/v1/{name}"), get("/v1/*")), "books.Books", "method books.Books.GetMore: google.api.http: GET /v1/* belongs to books.Books.Get already"},
		{"no path", bookDescriptor(t, &annotations.HttpRule{Body: "*"}), "books.Books", "has no path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := TranscodeDescriptor(c.data, []string{c.service})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestCodecMessages(t *testing.T) {
	rule := func(filter string) string {
		return routeHead + "conf: {http: [{filters: [" + filter + "], backends: [{destination: {kuma.io/service: s}}]}]}\n"
	}
	at := "conf.http[0].filters[0]."
	inline := base64.StdEncoding.EncodeToString(bookDescriptor(t, get("/v1/{name}")))
	for _, c := range []struct{ name, doc, want string }{
		{"all by type alone", rule("{type: Compression}, {type: GRPC_WEB}"), ""},
		{"compression", rule("{type: Compression, compression: {algorithms: [{type: ZSTD, level: 22}, {type: GZIP}], minLength: 0, contentTypes: [application/grpc-web+json]}}"), ""},
		{"a level too high", rule("{compression: {algorithms: [{type: GZIP, level: 10}]}}"), "f:4:74: " + at + "compression.algorithms[0].level: GZIP has levels 1 to 9"},
		{"an unknown algorithm", rule("{compression: {algorithms: [{type: BROTLY}]}}"),
			`f:4:61: ` + at + `compression.algorithms[0].type: expected GZIP, BROTLI, ZSTD, found "BROTLY" (did you mean BROTLI?)`},
		{"no algorithm", rule("{compression: {algorithms: [{level: 1}]}}"), "f:4:54: " + at + "compression.algorithms[0]: needs type: GZIP, BROTLI or ZSTD"},
		{"the same algorithm", rule("{compression: {algorithms: [{type: GZIP}, {type: GZIP}]}}"),
			"f:4:68: " + at + "compression.algorithms[1]: GZIP is there already, as algorithm 0 (keep one of them)"},
		{"a type with parameters", rule("{compression: {contentTypes: ['text/html; charset=utf-8']}}"),
			`f:4:56: ` + at + `compression.contentTypes[0]: "text/html; charset=utf-8" is no type of content (write it as application/json, without parameters)`},
		{"two compressions", rule("{compression: {}}, {compression: {}}"), "f:4:45: conf.http[0].filters[1]: compression is there already, as filter 0 (keep one of them)"},
		{"transcode", rule("{type: Transcode, transcode: {descriptor: {secret: books}, services: [books.Books]}}, {transcode: {descriptor: {inline: " + inline + "}, services: [books.Books]}}"),
			"f:4:112: conf.http[0].filters[1]: transcode is there already, as filter 0 (keep one of them)"},
		{"transcode with another path", rule("{transcode: {descriptor: {secret: books}, services: [books.Books]}}, {rewrite: {hostname: books}}, {rewrite: {replaceFull: /books}}"),
			"f:4:126: conf.http[0].filters[2].rewrite: transcode makes the path that of the method (remove it, and give the methods the paths that clients use)"},
		{"transcode without anything", rule("{transcode: {}}"),
			"f:4:27: " + at + "transcode: needs services, such as [books.v1.Books]\n" +
				"f:4:27: " + at + "transcode.descriptor: needs a compiled FileDescriptorSet: one of secret, inline and inlineString"},
		{"another service", rule("{transcode: {descriptor: {inline: " + inline + "}, services: [books.Bookz]}}"),
			"f:4:60: " + at + "transcode.descriptor.inline: has no service books.Bookz (did you mean books.Books?)"},
		{"a text", rule("{transcode: {descriptor: {inlineString: 'syntax = \"proto3\";'}, services: [books.Books]}}"),
			"f:4:66: " + at + "transcode.descriptor.inlineString: a descriptor is no text (give it in base64 under inline)"},
		{"no service", rule("{transcode: {descriptor: {secret: a}, services: ['books/Books']}}"),
			`f:4:75: ` + at + `transcode.services[0]: "books/Books" is no name of a service (write it as PACKAGE.SERVICE)`},
		{"cache", rule("{type: Cache, cache: {vary: [Accept-Language], defaultTtl: 1m, maxSize: 16384, statusHeader: x-kept}}"), ""},
		{"a size that is no power of two", rule("{cache: {maxSize: 3}}"), "f:4:44: " + at + "cache.maxSize: 3 MiB is no power of two (use 1, 2, 4, ... up to 16384)"},
		{"a cookie", rule("{cache: {vary: [Accept, cookie, accept]}}"),
			"f:4:50: " + at + "cache.vary[1]: cookie makes nearly every answer another one (answers that depend on it are for one client alone)\n" +
				"f:4:58: " + at + "cache.vary[2]: accept is there already, as header 0 (keep one of them)"},
		{"no time to live", rule("{cache: {defaultTtl: 10ms}}"), "f:4:47: " + at + "cache.defaultTtl: must be at least 1s"},
		{"gRPC-Web has no settings", rule("{grpcWeb: {text: true}}"), "f:4:37: " + at + "grpcWeb.text: unknown field"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := Decode("f", []byte(c.doc), Options{}).Err(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
