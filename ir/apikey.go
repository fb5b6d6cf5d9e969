package ir

// APIKey lets requests pass that carry the key of a client.
type APIKey struct {
	// Keys are ordered; none is there twice.
	Keys []ClientKey
	// Places are looked at in order; the first that holds a key counts.
	Places []KeyPlace
	// Allowed are the clients that may pass; empty allows all.
	Allowed []string
	// ClientHeader tells the backend the client; empty tells nothing.
	ClientHeader string
	// Hide takes the key out of the request.
	Hide bool
}

// KeyPlace is where a key is looked for; exactly one member is set.
type KeyPlace struct {
	Header string
	Query  string
	Cookie string
}

// ClientKey is a key of a client. It must not be printed.
type ClientKey struct {
	Client string
	Key    string
}

// String redacts.
func (k ClientKey) String() string { return "key of " + k.Client + " (redacted)" }

// GoString redacts.
func (k ClientKey) GoString() string { return k.String() }
