package resource

import (
	"mime"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// compressionLevels are the least and the greatest of each algorithm.
var compressionLevels = map[meshv1.Compression_Type][2]uint32{
	meshv1.Compression_TYPE_GZIP: {1, 9}, meshv1.Compression_TYPE_BROTLI: {0, 11}, meshv1.Compression_TYPE_ZSTD: {1, 22},
}

func checkCompression(s scope, c *meshv1.Compression) {
	first := map[meshv1.Compression_Type]int{}
	for i, a := range c.GetAlgorithms() {
		at := s.at("algorithms").index(i)
		levels, known := compressionLevels[a.GetType()]
		if !known {
			at.errorf("", "needs type: GZIP, BROTLI or ZSTD")
			continue
		}
		name := strings.TrimPrefix(a.GetType().String(), "TYPE_")
		if other, dup := first[a.GetType()]; dup {
			at.errorf("keep one of them", "%s is there already, as algorithm %d", name, other)
		} else {
			first[a.GetType()] = i
		}
		if l := a.GetLevel(); a.Level != nil && (l < levels[0] || l > levels[1]) {
			at.at("level").errorf("", "%s has levels %d to %d", name, levels[0], levels[1])
		}
	}
	for i, t := range c.GetContentTypes() {
		if plain, params, err := mime.ParseMediaType(t); err != nil || len(params) > 0 || !strings.Contains(plain, "/") || strings.Contains(plain, "*") {
			s.at("contentTypes").index(i).errorf("write it as application/json, without parameters", "%q is no type of content", t)
		}
	}
}
