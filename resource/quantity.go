package resource

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

var (
	bandwidthText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([gmk]bps)$`)
	bytesText     = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(k|M|G|Ki|Mi|Gi)?B?$`)
)

// Bandwidth reads bits a second, such as "50 mbps", and gives KiB a second, in which proxies count.
func Bandwidth(text string) (kib uint64, err error) {
	m := bandwidthText.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is no bandwidth", text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no bandwidth", text)
	}
	bits := n * map[string]float64{"kbps": 1e3, "mbps": 1e6, "gbps": 1e9}[m[2]]
	if kib := bits / 8 / 1024; kib >= 1 && kib <= 1<<40 {
		return uint64(math.Round(kib)), nil
	}
	return 0, fmt.Errorf("%q is out of bounds: proxies keep to 9 kbps and more", text)
}

// Bytes reads a number of bytes, such as 512, 1Mi or 10MB.
func Bytes(text string) (uint64, error) {
	m := bytesText.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is no number of bytes", text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of bytes", text)
	}
	n *= map[string]float64{"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}[m[2]]
	if n < 1 || n > 1<<50 {
		return 0, fmt.Errorf("%q is out of bounds", text)
	}
	return uint64(n), nil
}
