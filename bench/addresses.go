package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

const (
	// firstPrefix leaves free what the demo's federation uses.
	firstPrefix, prefixes = 10, 240
	reservedPort          = 5680
)

// reserve takes the first three numbers of loopback addresses for this process alone, until the listener is closed, so that
// several may measure at once. It begins elsewhere in each process.
func reserve(network string) (string, net.Listener, error) {
	var last error
	for i := range prefixes {
		prefix := network + "." + strconv.Itoa(firstPrefix+(os.Getpid()+i)%prefixes)
		held, err := net.Listen("tcp", hostPort(prefix+".254", reservedPort))
		if err == nil {
			return prefix, held, nil
		}
		last = err
	}
	return "", nil, fmt.Errorf("all addresses of %s.0.0/16 are taken: give another -network: %w", network, last)
}
