package ir

import "time"

// Transform changes messages that hold a JSON object; a nil member changes nothing.
type Transform struct {
	Request  *Transformation
	Response *Transformation
}

// Transformation makes the new headers and body of a message.
type Transformation struct {
	// Headers have values that are templates, unlike those of a route.
	Headers HeaderChange
	Body    *BodyTemplate
}

// BodyTemplate makes a body; exactly one of JSON and Text is set.
type BodyTemplate struct {
	// JSON is an object whose texts are templates.
	JSON string
	// Merge keeps the members of the old body that JSON doesn't name; with JSON.
	Merge bool
	Text  string
	// ContentType is empty where it stays.
	ContentType string
}

// TransformService makes bodies by an HTTP service.
type TransformService struct {
	Cluster string
	// Host is the Host header that the service gets.
	Host     string
	Path     string
	Request  bool
	Response bool
	Timeout  time.Duration
	// FailOpen lets a message pass as it is when the service fails.
	FailOpen bool
}

// Lua is a script.
type Lua struct {
	Script string
	// FailOpen lets a message pass when the script fails at it.
	FailOpen bool
}
