package resource

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// TranscodeDescriptor reads a FileDescriptorSet by which JSON becomes calls of gRPC services, and gives it without the comments
// of its sources, which are most of it. The error says what Envoy would refuse, together with the routes of the whole proxy.
func TranscodeDescriptor(data []byte, services []string) ([]byte, error) {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil || len(set.GetFile()) == 0 {
		return nil, errors.New("holds no FileDescriptorSet (write it by protoc --include_imports --descriptor_set_out, or buf build --as-file-descriptor-set)")
	}
	for _, f := range set.GetFile() {
		f.SourceCodeInfo = nil
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("%w (compile it with --include_imports)", err)
	}
	bindings := httpBindings{}
	for _, name := range services {
		found, err := files.FindDescriptorByName(protoreflect.FullName(name))
		service, ok := found.(protoreflect.ServiceDescriptor)
		if err != nil || !ok {
			if hint := didYouMean(name, servicesOf(set)); hint != "" {
				return nil, fmt.Errorf("has no service %s (%s)", name, hint)
			}
			return nil, fmt.Errorf("has no service %s", name)
		}
		for i := range service.Methods().Len() {
			if err := bindings.method(service.Methods().Get(i)); err != nil {
				return nil, fmt.Errorf("method %s: %w", service.Methods().Get(i).FullName(), err)
			}
		}
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(set)
}

func servicesOf(set *descriptorpb.FileDescriptorSet) []string {
	var out []string
	for _, f := range set.GetFile() {
		for _, s := range f.GetService() {
			out = append(out, strings.TrimPrefix(f.GetPackage()+"."+s.GetName(), "."))
		}
	}
	return out
}

// httpBindings says which method has a request, written as METHOD PATH with the names of variables left out.
type httpBindings map[string]protoreflect.FullName

func (h httpBindings) method(m protoreflect.MethodDescriptor) error {
	rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if !ok || rule == nil {
		return nil
	}
	for _, r := range slices.Concat([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()) {
		if err := h.rule(m, r); err != nil {
			return fmt.Errorf("google.api.http: %w", err)
		}
	}
	return nil
}

func (h httpBindings) rule(m protoreflect.MethodDescriptor, r *annotations.HttpRule) error {
	var verb, path string
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		verb, path = "GET", p.Get
	case *annotations.HttpRule_Put:
		verb, path = "PUT", p.Put
	case *annotations.HttpRule_Post:
		verb, path = "POST", p.Post
	case *annotations.HttpRule_Delete:
		verb, path = "DELETE", p.Delete
	case *annotations.HttpRule_Patch:
		verb, path = "PATCH", p.Patch
	case *annotations.HttpRule_Custom:
		verb, path = p.Custom.GetKind(), p.Custom.GetPath()
	default:
		return errors.New("has no path")
	}
	shape, fields, err := parseTemplate(path)
	if err != nil {
		return fmt.Errorf("path %q: %w", path, err)
	}
	if r.GetBody() != "" && r.GetBody() != "*" {
		fields = append(fields, r.GetBody())
	}
	for _, f := range fields {
		if err := hasField(m.Input(), f); err != nil {
			return err
		}
	}
	if r.GetResponseBody() != "" {
		if err := hasField(m.Output(), r.GetResponseBody()); err != nil {
			return err
		}
	}
	key := verb + " " + shape
	if other, dup := h[key]; dup {
		return fmt.Errorf("%s %s belongs to %s already", verb, path, other)
	}
	h[key] = m.FullName()
	return nil
}

// hasField wants a path of fields, with dots between, in a message.
func hasField(message protoreflect.MessageDescriptor, path string) error {
	at := message
	for _, name := range strings.Split(path, ".") {
		if at == nil {
			return fmt.Errorf("%s has no field %s", message.FullName(), path)
		}
		field := at.Fields().ByName(protoreflect.Name(name))
		if field == nil {
			return fmt.Errorf("%s has no field %s", message.FullName(), path)
		}
		at = field.Message()
	}
	return nil
}

// parseTemplate reads a path of google.api.http: its shape, in which all variables look alike, and the fields they fill.
func parseTemplate(path string) (shape string, fields []string, err error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return "", nil, errors.New("begins with /")
	}
	// A verb stands behind the last colon that no variable holds.
	verb := ""
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '}') && i > strings.LastIndexByte(rest, '/') {
		rest, verb = rest[:i], rest[i:]
		if len(verb) == 1 {
			return "", nil, errors.New("ends in a verb without a name")
		}
	}
	var segments []string
	for rest != "" || len(segments) == 0 {
		var one string
		switch {
		case strings.HasPrefix(rest, "{"):
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return "", nil, errors.New("a variable isn't closed by }")
			}
			name, inner, given := strings.Cut(rest[1:end], "=")
			if !given {
				inner = "*"
			}
			if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") != "" {
				return "", nil, fmt.Errorf("%q is no field", name)
			}
			if slices.Contains(fields, name) {
				return "", nil, fmt.Errorf("the field %s is there twice", name)
			}
			fields = append(fields, name)
			segments = append(segments, strings.Split(inner, "/")...)
			rest = rest[end+1:]
			if rest != "" && rest[0] != '/' {
				return "", nil, errors.New("a variable ends at / or at the verb")
			}
			rest = strings.TrimPrefix(rest, "/")
			continue
		default:
			one, rest, _ = strings.Cut(rest, "/")
		}
		segments = append(segments, one)
	}
	for i, s := range segments {
		switch {
		case s == "":
			return "", nil, errors.New("has an empty segment")
		case s == "**" && i < len(segments)-1:
			return "", nil, errors.New("** stands at the end")
		case s != "*" && s != "**" && strings.ContainsAny(s, "*{}"):
			return "", nil, fmt.Errorf("%q is no segment", s)
		}
	}
	if strings.HasSuffix(path, "/") {
		return "", nil, errors.New("has an empty segment")
	}
	return "/" + strings.Join(segments, "/") + verb, fields, nil
}
