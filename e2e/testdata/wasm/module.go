//go:build wasip1

// Command wasm is a module of the Proxy-Wasm ABI 0.2.1 for tests: it tells its configuration in a header of responses, refuses to be
// configured with "refuse" and, configured with "break", breaks at a request with the header x-break.
package main

import "unsafe"

func main() {}

//go:wasmimport env proxy_add_header_map_value
func addHeader(kind uint32, name unsafe.Pointer, nameSize uint32, value unsafe.Pointer, valueSize uint32) uint32

//go:wasmimport env proxy_get_header_map_value
func headerValue(kind uint32, name unsafe.Pointer, nameSize uint32, data, dataSize unsafe.Pointer) uint32

//go:wasmimport env proxy_get_buffer_bytes
func bufferBytes(kind, start, size uint32, data, dataSize unsafe.Pointer) uint32

const (
	requestHeaders      = 0
	responseHeaders     = 2
	pluginConfiguration = 7
)

var (
	configuration string
	// given is what the host asked to have made, which must stay until the call is over.
	given [][]byte
)

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) uint32 {
	b := make([]byte, max(size, 1))
	given = append(given, b)
	return uint32(uintptr(unsafe.Pointer(&b[0])))
}

//go:wasmexport proxy_on_context_create
func contextCreate(uint32, uint32) {}

//go:wasmexport proxy_on_vm_start
func vmStart(uint32, uint32) uint32 { return 1 }

//go:wasmexport proxy_on_configure
func configure(_, size uint32) uint32 {
	configuration = ""
	if size > 0 {
		var data, n uint32
		if bufferBytes(pluginConfiguration, 0, size, unsafe.Pointer(&data), unsafe.Pointer(&n)) != 0 {
			return 0
		}
		configuration = string(given[len(given)-1][:n])
	}
	given = nil
	if configuration == "refuse" {
		return 0
	}
	return 1
}

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(uint32, uint32, uint32) uint32 {
	name := "x-break"
	var data, n uint32
	status := headerValue(requestHeaders, unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), unsafe.Pointer(&data), unsafe.Pointer(&n))
	given = nil
	if configuration == "break" && status == 0 && n > 0 {
		panic("told to break")
	}
	return 0
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(uint32, uint32, uint32) uint32 {
	name, value := "x-module", configuration
	addHeader(responseHeaders, unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)), unsafe.Pointer(unsafe.StringData(value)), uint32(len(value)))
	return 0
}

//go:wasmexport proxy_on_done
func onDone(uint32) uint32 { return 1 }

//go:wasmexport proxy_on_delete
func onDelete(uint32) {}
