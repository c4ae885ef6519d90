package conform

import (
	"fmt"
	"strings"
	"time"
)

// Table prints what came of the suites: a line for each row with the outcome of
// each column, the totals, and then what was seen where a row did not pass.
func Table(suites []Suite, columns []Column) string {
	var b strings.Builder
	for i, s := range suites {
		fmt.Fprintf(&b, "MQTT %s\n%-16s %-72s", s.Name, "statement", "what is tried")
		for _, c := range columns {
			fmt.Fprintf(&b, " %9s", c.Name)
		}
		b.WriteByte('\n')
		for j, r := range s.Rows {
			fmt.Fprintf(&b, "%-16s %-72s", "[MQTT-"+r.ID+"]", r.What)
			for _, c := range columns {
				fmt.Fprintf(&b, " %9s", c.Verdicts[i][j].Outcome)
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	b.WriteString(totals(suites, columns))
	b.WriteString(details(suites, columns))
	return b.String()
}

func totals(suites []Suite, columns []Column) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s", "passed of rows")
	for _, c := range columns {
		fmt.Fprintf(&b, " %22s", c.Name)
	}
	b.WriteByte('\n')
	for i, s := range suites {
		fmt.Fprintf(&b, "MQTT %-19s", s.Name)
		for _, c := range columns {
			fmt.Fprintf(&b, " %22s", c.score(i))
		}
		fmt.Fprintf(&b, "   (%d statements, %d without a row)\n", len(s.Rows)+len(s.Others), len(s.Others))
	}
	fmt.Fprintf(&b, "%-24s", "seconds")
	for _, c := range columns {
		fmt.Fprintf(&b, " %22s", c.Took.Round(100*time.Millisecond))
	}
	b.WriteString("\n\n")
	return b.String()
}

func details(suites []Suite, columns []Column) string {
	var b strings.Builder
	for _, c := range columns {
		for i, s := range suites {
			for j, v := range c.Verdicts[i] {
				if v.Outcome != Pass {
					fmt.Fprintf(&b, "%-9s %-5s %-16s %s: %s\n", c.Name, s.Name, "[MQTT-"+s.Rows[j].ID+"]", v.Outcome, v.Seen)
				}
			}
		}
	}
	return b.String()
}

// Count is how many rows of a suite came out so.
func (c Column) Count(suite int, o Outcome) int {
	n := 0
	for _, v := range c.Verdicts[suite] {
		if v.Outcome == o {
			n++
		}
	}
	return n
}

func (c Column) score(suite int) string {
	s := fmt.Sprintf("%d of %d", c.Count(suite, Pass), len(c.Verdicts[suite]))
	if n := c.Count(suite, NotApplicable); n > 0 {
		s += fmt.Sprintf(" (n/a %d)", n)
	}
	return s
}
