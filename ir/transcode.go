package ir

// Transcode takes JSON for gRPC services.
type Transcode struct {
	// Descriptor is a FileDescriptorSet that holds the services and all that they refer to.
	Descriptor []byte
	// Services are full names.
	Services []string
	// AutoMapping takes POST /SERVICE/METHOD for methods without an HTTP option.
	AutoMapping bool
	// IgnoreUnknownQuery passes over query parameters that a request has no field for, IgnoredQuery those of these names.
	IgnoreUnknownQuery bool
	IgnoredQuery       []string
	// ConvertStatus writes an error of gRPC as a JSON body.
	ConvertStatus bool

	Whitespace          bool
	PrintZeroPrimitives bool
	EnumsAsNumbers      bool
	ProtoFieldNames     bool
}
