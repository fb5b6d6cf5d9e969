package resource

import "strconv"

// CacheSizes are the sizes that a cache may have, in MiB.
var CacheSizes = []uint32{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}

// DefaultCacheSize is that of a cache without one, in MiB.
const DefaultCacheSize uint32 = 64

// CacheFolder is where a proxy keeps the cache of a size, below the directory in which it runs. Envoy makes no folder, and
// takes one size only for each, so that there is one for each size.
func CacheFolder(size uint32) string { return "cache/" + strconv.FormatUint(uint64(size), 10) }
