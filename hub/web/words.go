package web

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"time"
)

// words turn numbers into what a person reads.
var words = template.FuncMap{
	"age":   Age,
	"size":  func(n any) string { return Size(number(n)) },
	"count": func(n any) string { return Count(number(n)) },
	"rate":  func(r float64) string { return strconv.FormatFloat(r, 'f', 1, 64) },
	"since": since,
	"ratio": func(a, b uint64) string {
		if b == 0 {
			return "–"
		}
		return strconv.FormatFloat(float64(a)/float64(b), 'f', 1, 64)
	},
}

// Age writes a number of seconds: "0 s", "12 s", "3 min 5 s", "4 h 10 min", "9 d 3 h".
func Age(seconds float64) string {
	if seconds < 0 || math.IsNaN(seconds) || seconds > math.MaxInt64/1e10 {
		return "unknown"
	}
	s := int64(seconds)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%d d %d h", s/86400, s%86400/3600)
}

// Size writes a number of bytes in powers of 1024: "512 B", "1.5 MiB".
func Size(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", n)
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

// Count writes a whole number with blanks between the thousands: "1 234 567".
func Count(n float64) string {
	s := strconv.FormatFloat(math.Abs(n), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:] // a narrow blank that does not break
	}
	if n < 0 {
		return "-" + s
	}
	return s
}

func since(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func number(n any) float64 {
	switch n := n.(type) {
	case int:
		return float64(n)
	case int64:
		return float64(n)
	case uint64:
		return float64(n)
	}
	return math.NaN()
}
