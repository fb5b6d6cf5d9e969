package ir

import "time"

// Wasm is a WebAssembly module; exactly one of File, Module and Remote is set.
type Wasm struct {
	// Name is what Envoy calls it; equal modules with equal configurations have the same.
	Name string
	// File is its path, relative to the directory in which the proxy runs.
	File   string
	Module []byte
	Remote *RemoteModule
	// Configuration is what the module gets.
	Configuration string
	// FailOpen lets requests pass when the module fails.
	FailOpen bool
}

// RemoteModule is fetched by the proxy.
type RemoteModule struct {
	Cluster string
	URL     string
	// SHA256 of the module in lower-case hexadecimal digits.
	SHA256  string
	Timeout time.Duration
}
