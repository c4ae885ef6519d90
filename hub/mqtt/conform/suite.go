package conform

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Row is one normative statement and the code that tries it.
type Row struct {
	ID   string // as in [MQTT-3.3.1-5], without "MQTT-" and brackets
	What string // what is tried, in a line
	Run  func(*Try)
}

// Other is a statement without a row.
type Other struct {
	ID  string
	Why string // it binds the client only, or does not show on the wire, or ...
}

// Suite is one standard.
type Suite struct {
	Name       string // "3.1.1"
	Version    byte   // protocol level of its clients
	Statements string // the numbers of all of its statements, see Numbers
	Rows       []Row
	Others     []Other
}

// Suites are the standards, in the order of the table.
func Suites() []Suite {
	return []Suite{suite311(), suite5()}
}

// Numbers reads the numbers of statements: a section on each line and what is
// counted in it, such as "3.3.1 1-4 6"; # begins a comment.
func Numbers(text string) ([]string, error) {
	var ids []string
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		for _, f := range fields[1:] {
			first, last, ranged := strings.Cut(f, "-")
			if !ranged {
				last = first
			}
			from, err1 := strconv.Atoi(first)
			to, err2 := strconv.Atoi(last)
			if err1 != nil || err2 != nil || from < 1 || to < from {
				return nil, fmt.Errorf("line %d: %q is not a number or a range", i+1, f)
			}
			for n := from; n <= to; n++ {
				ids = append(ids, fmt.Sprintf("%s-%d", fields[0], n))
			}
		}
	}
	return ids, nil
}

// Faults says what is wrong with a suite: statements that are neither a row nor
// listed with a reason, or both, or twice, or not in the standard.
func (s Suite) Faults() []string {
	all, err := Numbers(s.Statements)
	if err != nil {
		return []string{err.Error()}
	}
	var faults []string
	count := map[string]int{}
	note := func(id, text string) {
		count[id]++
		if !slices.Contains(all, id) {
			faults = append(faults, id+" is not a statement of the standard")
		}
		if text == "" {
			faults = append(faults, id+" has no words")
		}
	}
	for _, r := range s.Rows {
		note(r.ID, r.What)
	}
	for _, o := range s.Others {
		note(o.ID, o.Why)
	}
	for _, id := range all {
		if n := count[id]; n != 1 {
			faults = append(faults, fmt.Sprintf("%s stands %d times among rows and others", id, n))
		}
	}
	return faults
}
