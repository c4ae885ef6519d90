package hub

import (
	"fmt"
	"time"
)

// Duration is a time.Duration as configuration files write it: "90s", "1h30m",
// "7d". It is never negative.
type Duration time.Duration

// UnmarshalText reads a duration and says which forms there are when it cannot.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if n := len(s); n > 1 && s[n-1] == 'd' {
		var days float64
		if _, err := fmt.Sscanf(s, "%gd", &days); err == nil && days >= 0 {
			*d = Duration(days * 24 * float64(time.Hour))
			return nil
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("duration %q: want a number and a unit: 500ms, 90s, 15m, 2h, 7d", s)
	}
	*d = Duration(v)
	return nil
}

// Or is d, or def where d is zero.
func (d Duration) Or(def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}
