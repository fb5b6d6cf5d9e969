package ir

import "time"

// Limits bound what a proxy has under way to a cluster; nil members keep Envoy's default.
type Limits struct {
	Connections     *uint32
	PendingRequests *uint32
	Requests        *uint32
	// Retries are those under way; excludes RetryBudget.
	Retries     *uint32
	RetryBudget *RetryBudget
}

// RetryBudget bounds retries by the requests that are under way.
type RetryBudget struct {
	Percent        float64
	MinConcurrency uint32
}

// Outlier takes endpoints that fail out of balancing for a while. Detectors that are nil are off.
type Outlier struct {
	Interval         time.Duration
	BaseEjection     time.Duration
	MaxEjectionShare uint32 // percent
	// EjectOne lets one endpoint be out whatever its share is.
	EjectOne bool
	// SplitLocal tells errors on the way from those that the destination answered.
	SplitLocal bool

	TotalErrors   *uint32
	GatewayErrors *uint32
	LocalErrors   *uint32
	Deviation     *OutlierDeviation
	Failure       *OutlierFailure
}

// OutlierDeviation finds endpoints whose success rate is below that of the others.
type OutlierDeviation struct {
	RequestVolume uint32
	MinimumHosts  uint32
	// Thousandths of a standard deviation.
	Thousandths uint32
}

// OutlierFailure finds endpoints of which a share of requests fails.
type OutlierFailure struct {
	RequestVolume uint32
	MinimumHosts  uint32
	Percent       uint32
}
