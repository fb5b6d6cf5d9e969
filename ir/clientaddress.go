package ir

// ClientAddress lets requests pass whose client is within Allow, or anywhere where that is empty, and not within Deny.
type ClientAddress struct {
	Allow []AddressRange
	Deny  []AddressRange
}

// AddressRange holds all addresses that begin with Bits bits of Address.
type AddressRange struct {
	Address string
	Bits    uint32
}
