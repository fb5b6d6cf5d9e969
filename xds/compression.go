package xds

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	brotliv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/compressor/v3"
	unbrotliv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/decompressor/v3"
	gzipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	gunzipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/decompressor/v3"
	zstdv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/compressor/v3"
	unzstdv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/decompressor/v3"
	compressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	decompressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/decompressor/v3"
	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// inflaters read every encoding that clients may send.
var inflaters = []struct {
	name    string
	library validated
}{{"brotli", &unbrotliv3.Brotli{}}, {"zstd", &unzstdv3.Zstd{}}, {"gzip", &gunzipv3.Gzip{}}}

// routeCompression is a chain of one filter for each algorithm, since what compression a route has is for Envoy a matter of the
// filter and not of the route.
func routeCompression(r *ir.Route) (validated, error) {
	c := r.Filters.Compression
	if c == nil {
		return nil, nil
	}
	chain := &filterchainv3.FilterChain{}
	var errs []error
	add := func(name string, config validated, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("compression: %s: %w", name, err))
			return
		}
		packed, err := pack(config)
		if err != nil {
			errs = append(errs, fmt.Errorf("compression: %s: %w", name, err))
			return
		}
		chain.Filters = append(chain.Filters, &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed})
	}
	if c.DecompressRequests {
		for _, i := range inflaters {
			config, err := decompressor(i.name, i.library)
			add(i.name+"-requests", config, err)
		}
	}
	for i, a := range c.Algorithms {
		config, err := compressor(c, i)
		add(string(a.Encoding), config, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &filterchainv3.FilterChainConfigPerRoute{FilterChain: chain}, nil
}

// compressor is the filter of one algorithm. Among those that a client likes equally the first is chosen.
func compressor(c *ir.Compression, i int) (validated, error) {
	library, err := compressorLibrary(c.Algorithms[i])
	if err != nil {
		return nil, err
	}
	packed, err := pack(library)
	if err != nil {
		return nil, err
	}
	name := string(c.Algorithms[i].Encoding)
	direction := &compressorv3.Compressor_ResponseDirectionConfig{
		CommonConfig: &compressorv3.Compressor_CommonDirectionConfig{MinContentLength: wrapperspb.UInt32(c.MinLength)},
		// A strong ETag names the bytes, which are others now; a weak one still names the content.
		WeakenEtagOnCompress: true,
		// The last filter alone may hide from the backend what the client accepts: those before it must see it.
		RemoveAcceptEncodingHeader: i == len(c.Algorithms)-1,
		// A part of a body must not be taken for one that can be decompressed by itself.
		UncompressibleResponseCodes: []uint32{206},
	}
	for _, t := range c.ContentTypes {
		direction.CommonConfig.ContentTypeMatcher = append(direction.CommonConfig.ContentTypeMatcher, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: t}, IgnoreCase: true,
		})
	}
	return &compressorv3.Compressor{
		CompressorLibrary:       &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed},
		ResponseDirectionConfig: direction,
		ChooseFirst:             i == 0,
	}, nil
}

func compressorLibrary(a ir.CompressionAlgorithm) (validated, error) {
	switch a.Encoding {
	case ir.Gzip:
		// Its enumeration of levels has the numbers of the levels.
		level := gzipv3.Gzip_CompressionLevel(a.Level) // #nosec G115 -- pack refuses what is no level
		return &gzipv3.Gzip{CompressionLevel: level}, nil
	case ir.Brotli:
		return &brotliv3.Brotli{Quality: wrapperspb.UInt32(a.Level)}, nil
	case ir.Zstd:
		return &zstdv3.Zstd{CompressionLevel: wrapperspb.UInt32(a.Level)}, nil
	}
	return nil, fmt.Errorf("unknown encoding %q", a.Encoding)
}

// decompressor is for requests alone: what backends compress is passed on as it is.
func decompressor(name string, library validated) (validated, error) {
	packed, err := pack(library)
	if err != nil {
		return nil, err
	}
	return &decompressorv3.Decompressor{
		DecompressorLibrary: &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed},
		RequestDirectionConfig: &decompressorv3.Decompressor_RequestDirectionConfig{
			AdvertiseAcceptEncoding: wrapperspb.Bool(false),
		},
		ResponseDirectionConfig: &decompressorv3.Decompressor_ResponseDirectionConfig{
			CommonConfig: &decompressorv3.Decompressor_CommonDirectionConfig{Enabled: &corev3.RuntimeFeatureFlag{
				DefaultValue: wrapperspb.Bool(false), RuntimeKey: "zoneforge.decompress_responses",
			}},
		},
	}, nil
}
