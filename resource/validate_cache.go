package resource

import (
	"slices"
	"strings"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func checkCache(s scope, c *meshv1.Cache) {
	first := map[string]int{}
	for i, name := range c.GetVary() {
		at := s.at("vary").index(i)
		checkHeaderName(at, name)
		lower := strings.ToLower(name)
		switch lower {
		case "authorization", "cookie":
			at.errorf("answers that depend on it are for one client alone", "%s makes nearly every answer another one", name)
		}
		if other, dup := first[lower]; dup {
			at.errorf("keep one of them", "%s is there already, as header %d", name, other)
		}
		first[lower] = i
	}
	checkDuration(s.at("defaultTtl"), c.GetDefaultTtl(), time.Second, 366*24*time.Hour)
	if c.MaxSize != nil && !slices.Contains(CacheSizes, c.GetMaxSize()) {
		s.at("maxSize").errorf("use 1, 2, 4, ... up to 16384", "%d MiB is no power of two", c.GetMaxSize())
	}
	if c.GetStatusHeader() != "" {
		checkHeaderName(s.at("statusHeader"), c.GetStatusHeader())
	}
	if len(c.GetGeneration()) > 64 {
		s.at("generation").errorf("", "a generation has at most 64 characters")
	}
}
