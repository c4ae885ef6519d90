package console

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"holdfast.dev/holdfast/storage"
)

// table is rows of cells, the first of them the heads.
type table struct {
	right string // which columns are numbers: "r" for each that is, "l" for others
	rows  [][]string
}

func newTable(right string, heads ...string) *table {
	return &table{right, [][]string{heads}}
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write writes the rows with their columns under one another. Cells are made
// printable here, so that none can be forgotten.
func (t *table) write(w io.Writer) error {
	var widths []int
	for _, r := range t.rows {
		for i := range r {
			r[i] = printable(r[i])
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	var b strings.Builder
	for _, r := range t.rows {
		line := ""
		for i, c := range r {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if t.right[i] == 'r' {
				line += gap + c + "  "
			} else {
				line += c + gap + "  "
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable has a dot for everything that could make a terminal do more than show
// it, or that has no shape of its own.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, s)
}

// preview is the beginning of a body in at most n characters.
func preview(body []byte, n int) string {
	end, count := 0, 0
	for end < len(body) && count < n {
		_, size := utf8.DecodeRune(body[end:])
		end += size
		count++
	}
	s := printable(string(body[:end]))
	if end < len(body) {
		s += "…"
	}
	return s
}

// age writes an age of which the least and the most are known.
func age(least, most time.Duration) string {
	if most != least {
		return "over " + span(least)
	}
	return span(least)
}

func (d *Desk) age(s storage.Stamp) string {
	if s == (storage.Stamp{}) {
		return "-"
	}
	return age(d.Clock.Age(s))
}

// span writes a time in its two largest units: "2 h 5 min".
func span(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
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

// size writes a number of bytes in powers of 1024: "512 B", "1.5 MiB".
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1024 && unit < 3 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %s", f, []string{"KiB", "MiB", "GiB", "TiB"}[unit])
}

// counted writes a number and what it is the number of.
func counted(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func messages(n uint64) string { return counted(n, "message") }
