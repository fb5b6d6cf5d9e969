package ir

// BasicAuth lets requests pass that carry name and password of a user. It must not be printed.
type BasicAuth struct {
	// Users are lines of USER:{SHA}HASH.
	Users string
	// UserHeader tells the backend the user; empty tells nothing.
	UserHeader string
	// Realm is what clients are told; empty tells the address that they asked for.
	Realm string
	// Hide takes the header Authorization out of the request.
	Hide bool
}

// String redacts.
func (b BasicAuth) String() string { return "basic auth (users redacted)" }

// GoString redacts.
func (b BasicAuth) GoString() string { return b.String() }
