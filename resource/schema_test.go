package resource

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// schema refuses documents of one target.
type schema struct {
	refuses string
	asked   []string
}

func (s *schema) Check(what, document string, whole bool) error {
	s.asked = append(s.asked, fmt.Sprintf("%s %s %v", what, document, whole))
	if what == s.refuses {
		return errors.New("no such member")
	}
	return nil
}

func TestTemplatesAreHeldAgainstTheSchema(t *testing.T) {
	const doc = "type: ProxyTemplate\nname: t\nselectors: [{match: {a: b}}]\nconf:\n  resources: [{name: a, resource: {'@type': t, name: a}}]\n  modifications:\n" +
		"    - cluster: {operation: patch, value: {b: 1}}\n    - httpFilter: {operation: addFirst, value: {name: f}}\n    - listener: {operation: remove}\n"
	s := &schema{}
	if err := Decode("f", []byte(doc), Options{Schema: s}).Err(); err != nil {
		t.Error(err)
	}
	if want := []string{`resource {"@type":"t","name":"a"} true`, `cluster {"b":1} false`, `httpFilter {"name":"f"} true`}; !slices.Equal(s.asked, want) {
		t.Errorf("asked %q, want %q", s.asked, want)
	}
	for refuses, want := range map[string]string{
		"resource":   "f:5:35: conf.resources[0].resource: no such member",
		"cluster":    "f:7:42: conf.modifications[0].cluster.value: no such member",
		"httpFilter": "f:8:48: conf.modifications[1].httpFilter.value: no such member",
	} {
		if err := Decode("f", []byte(doc), Options{Schema: &schema{refuses: refuses}}).Err(); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}
