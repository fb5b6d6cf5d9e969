package proxyir

import (
	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// defaultMinLength is below what fits in one packet: there compression saves nothing.
const defaultMinLength = 1024

// textTypes are compressed unless a policy names others. Images, sound and archives are compressed already.
var textTypes = []string{
	"application/javascript", "application/json", "application/problem+json", "application/xhtml+xml", "application/xml", "image/svg+xml",
	"text/css", "text/html", "text/javascript", "text/plain", "text/xml",
}

var encodings = map[meshv1.Compression_Type]ir.CompressionAlgorithm{
	meshv1.Compression_TYPE_BROTLI: {Encoding: ir.Brotli, Level: 4},
	meshv1.Compression_TYPE_ZSTD:   {Encoding: ir.Zstd, Level: 3},
	meshv1.Compression_TYPE_GZIP:   {Encoding: ir.Gzip, Level: 6},
}

func compression(c *meshv1.Compression) *ir.Compression {
	out := &ir.Compression{MinLength: defaultMinLength, ContentTypes: textTypes, DecompressRequests: c.GetDecompressRequests()}
	if c.MinLength != nil {
		out.MinLength = c.GetMinLength()
	}
	if len(c.GetContentTypes()) > 0 {
		out.ContentTypes = c.GetContentTypes()
	}
	for _, a := range c.GetAlgorithms() {
		one := encodings[a.GetType()]
		if a.Level != nil {
			one.Level = a.GetLevel()
		}
		out.Algorithms = append(out.Algorithms, one)
	}
	if len(out.Algorithms) == 0 {
		for _, t := range []meshv1.Compression_Type{meshv1.Compression_TYPE_BROTLI, meshv1.Compression_TYPE_ZSTD, meshv1.Compression_TYPE_GZIP} {
			out.Algorithms = append(out.Algorithms, encodings[t])
		}
	}
	return out
}
