package hub

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is a number of bytes as configuration files write it: "512MiB", "1GiB",
// "4GB".
type Size int64

// UnmarshalText reads a size and says which forms there are when it cannot.
func (s *Size) UnmarshalText(text []byte) error {
	t := string(text)
	number := strings.TrimRight(t, "BKMGTikmgt ")
	factor, ok := sizeUnit(strings.TrimSpace(t[len(number):]))
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !ok || !(v >= 0) || v*factor > 1<<50 {
		return fmt.Errorf("size %q: want a number and a unit: 64KiB, 512MiB, 1GiB, 4GB", t)
	}
	*s = Size(v * factor)
	return nil
}

func sizeUnit(unit string) (factor float64, ok bool) {
	switch unit {
	case "B":
		return 1, true
	case "KiB":
		return 1 << 10, true
	case "MiB":
		return 1 << 20, true
	case "GiB":
		return 1 << 30, true
	case "TiB":
		return 1 << 40, true
	case "kB":
		return 1e3, true
	case "MB":
		return 1e6, true
	case "GB":
		return 1e9, true
	case "TB":
		return 1e12, true
	}
	return 0, false
}
