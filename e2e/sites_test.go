package e2e

import (
	"net"
	"os/exec"
)

// sites are where the processes and workloads of a federation run that isn't all on the loopback network.
type sites struct {
	// command has the words before those of a process, by its name.
	command func(process string) []string
	// listen listens where an address is.
	listen func(address string) (net.Listener, error)
}

// command is the product with arguments, under a name.
func (f *federation) command(name string, args ...string) *exec.Cmd {
	words := append([]string{binary}, args...)
	if f.sites != nil {
		words = append(f.sites.command(name), words...)
	}
	return exec.Command(words[0], words[1:]...)
}

func (f *federation) listen(address string) (net.Listener, error) {
	if f.sites != nil {
		return f.sites.listen(address)
	}
	return net.Listen("tcp", address)
}
