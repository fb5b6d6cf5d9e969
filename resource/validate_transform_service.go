package resource

import (
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func checkTransformService(s scope, t *meshv1.TransformService) {
	checkTarget(s.at("target"), t.GetTarget())
	if !t.GetRequest() && !t.GetResponse() {
		s.errorf("", "needs request: true or response: true")
	}
	if t.GetPath() != "" {
		checkPath(s.at("path"), t.GetPath())
	}
	checkDuration(s.at("timeout"), t.GetTimeout(), time.Millisecond, time.Hour)
}
