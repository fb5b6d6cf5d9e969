package resource

import (
	"regexp"
	"slices"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

var fullName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)

// checkTranscodedPath refuses a path that is rewritten twice: the rewrite of a rule comes last, and would spoil that of the method.
func checkTranscodedPath(s scope, filters []*meshv1.Filter) {
	if !slices.ContainsFunc(filters, func(f *meshv1.Filter) bool { return f.GetTranscode() != nil }) {
		return
	}
	for i, f := range filters {
		if f.GetRewrite().GetPath() != nil {
			s.index(i).at("rewrite").errorf("remove it, and give the methods the paths that clients use", "transcode makes the path that of the method")
		}
	}
}

func checkTranscode(s scope, t *meshv1.Transcode) {
	descriptor := s.at("descriptor")
	checkDataSource(descriptor, t.GetDescriptor_(), "a compiled FileDescriptorSet")
	if len(t.GetServices()) == 0 {
		s.errorf("", "needs services, such as [books.v1.Books]")
	}
	first := map[string]int{}
	for i, name := range t.GetServices() {
		at := s.at("services").index(i)
		if !fullName.MatchString(name) {
			at.errorf("write it as PACKAGE.SERVICE", "%q is no name of a service", name)
			return
		}
		if other, dup := first[name]; dup {
			at.errorf("keep one of them", "%s is there already, as service %d", name, other)
			return
		}
		first[name] = i
	}
	switch v := t.GetDescriptor_().GetType().(type) {
	case *meshv1.DataSource_Inline:
		if len(v.Inline) == 0 {
			return
		}
		if _, err := TranscodeDescriptor(v.Inline, t.GetServices()); err != nil {
			descriptor.at("inline").errorf("", "%v", err)
		}
	case *meshv1.DataSource_InlineString:
		descriptor.at("inlineString").errorf("give it in base64 under inline", "a descriptor is no text")
	}
}
