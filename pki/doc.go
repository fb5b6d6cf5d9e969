// Package pki makes and checks the certificates of a federation: the root of each mesh, the intermediate of each zone in
// a mesh, the SVIDs of services, and the certificates by which control planes serve TLS. Every certificate is made in
// three steps: build a template, sign it, validate the result.
//
// The package is pure: it reads no file and no clock, starts no goroutine and logs nothing. Time and randomness are
// passed in. Its values are not changed after they are made, so they are safe for concurrent use.
//
// Since Go 1.26 the standard library draws keys and ECDSA signatures from the system's random source whatever reader it
// is given; the reader that is passed in decides serial numbers.
package pki
