package ir

// Compression compresses responses as the client accepts it.
type Compression struct {
	// Algorithms are the preferred first; there is at least one.
	Algorithms []CompressionAlgorithm
	// MinLength in bytes; shorter responses stay as they are.
	MinLength uint32
	// ContentTypes are compressed; without parameters.
	ContentTypes []string
	// DecompressRequests hands requests to the backend decompressed.
	DecompressRequests bool
}

// CompressionAlgorithm is one way to compress.
type CompressionAlgorithm struct {
	Encoding Encoding
	Level    uint32
}

// Encoding is a name of the HTTP content coding registry.
type Encoding string

// Encodings.
const (
	Gzip   Encoding = "gzip"
	Brotli Encoding = "br"
	Zstd   Encoding = "zstd"
)
