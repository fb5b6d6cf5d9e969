package resource

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// ownLabels are those that every metric has.
var ownLabels = []string{"mesh", "zone", "service", "dataplane"}

func checkMetrics(s scope, m *meshv1.Metrics) {
	var names []string
	for i, b := range m.GetBackends() {
		at, c := s.at("backends").index(i), b.GetConf()
		names = checkBackendName(at, b.GetName(), names)
		if b.GetType() != meshv1.Metrics_TYPE_PROMETHEUS {
			at.errorf("", "needs type: prometheus")
		}
		conf := at.at("conf")
		if c.GetPort() != 0 {
			checkPort(conf.at("port"), c.GetPort())
		}
		if p := c.GetPath(); p != "" {
			checkPath(conf.at("path"), p)
		}
		if len(c.GetTags()) > 0 {
			checkOwnTags(conf.at("tags"), c.GetTags())
		}
		if e := c.GetEnvoy().GetFilterRegex(); e != "" {
			checkRegex(conf.at("envoy", "filterRegex"), e)
		}
		for _, name := range slices.Sorted(maps.Keys(c.GetLabels())) {
			at := conf.at("labels").key(name)
			switch {
			case !labelName.MatchString(name) || strings.HasPrefix(name, "__"):
				at.errorf("use letters, digits and _", "%q is no name for a label", name)
			case slices.Contains(ownLabels, name) || strings.HasPrefix(name, "envoy_") || name == "le":
				at.errorf("choose another name", "the label %s is there already", name)
			}
		}
	}
	checkNamed(s.at("enabledBackend"), m.GetEnabledBackend(), names)
}
