package ir

import "time"

// Cache keeps answers and gives them again.
type Cache struct {
	// ID tells the answers of this route from those of others, and the cache's own requests for it from others.
	ID string
	// Folder is where the answers are kept, below the directory in which the proxy runs; it is there already. MaxBytes bounds
	// what it holds, and is the same for all that name the folder.
	Folder   string
	MaxBytes uint64
	// Upstream is the cluster that is asked for what isn't there.
	Upstream string
	// Vary are the request headers by which answers may differ, in lower case and sorted.
	Vary []string
	// IgnoreRequest passes over the Cache-Control of requests.
	IgnoreRequest bool
	// DefaultTTL is for answers that say nothing; 0 keeps none of these.
	DefaultTTL time.Duration
	// MaxBody in bytes; 0 means any.
	MaxBody uint32
	// PublicOnly keeps only what says that it is for everyone, since the route knows who asks.
	PublicOnly bool
	// StatusHeader of responses says whether the answer was there.
	StatusHeader string
}
