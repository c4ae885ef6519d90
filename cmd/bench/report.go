package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// figure is one measured line of a report. Its JSON form is one line of what a
// subcommand prints with --json.
//
// A figure that can be held against a target is made and judged in one breath:
//
//	r.add(figure{ID: "S1", What: "steady, against R", Value: 1.02, Unit: "x"}.judged(">= 0.95"))
//
// and what could not be measured is said with report.skip, never left out.
type figure struct {
	ID     string  `json:"id"` // "S1" … "S14", or a name of its own, e.g. "peer-nats"
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`             // "x" for ratios, "ms", "MB", "flushes", …
	Low    float64 `json:"low,omitempty"`    // the least of the rounds whose median Value is;
	High   float64 `json:"high,omitempty"`   // and the most; both zero: one round
	Target string  `json:"target,omitempty"` // e.g. ">= 0.95"; empty: none
	OK     *bool   `json:"ok,omitempty"`     // nil: no target, or not measured
	Why    string  `json:"why,omitempty"`    // of a missed target, or of a skipped row ("skipped: …")
}

// skipped begins the Why of a row that was not measured.
const skipped = "skipped: "

// judged holds the figure against a target: ">= 0.95", "<= 1.4" or "= 0", in the
// figure's own unit. A value that is no number misses every target. A target that
// cannot be parsed is a mistake in the program, and panics.
func (f figure) judged(target string) figure {
	op, number, _ := strings.Cut(target, " ")
	limit, err := strconv.ParseFloat(number, 64)
	if err != nil {
		panic(fmt.Sprintf("target %q of %s: want \">= 0.95\", \"<= 1.4\" or \"= 0\"", target, f.ID))
	}
	var ok bool
	switch op {
	case ">=":
		ok = f.Value >= limit
	case "<=":
		ok = f.Value <= limit
	case "=":
		ok = f.Value == limit
	default:
		panic(fmt.Sprintf("target %q of %s: it begins with >=, <= or =", target, f.ID))
	}
	f.Target, f.OK = target, &ok
	return f
}

// because says why a target was missed; a target that was met needs no reason.
func (f figure) because(why string) figure {
	if f.OK != nil && !*f.OK {
		f.Why = why
	}
	return f
}

func (f figure) skipped() bool { return strings.HasPrefix(f.Why, skipped) }

// verdict is the last word of a row.
func (f figure) verdict() string {
	switch {
	case f.skipped():
		return "not measured"
	case f.OK == nil:
		return ""
	case *f.OK:
		return "ok"
	}
	return "MISSED"
}

// amount is the value with its unit and, of several rounds, their range.
func (f figure) amount() string {
	if f.skipped() {
		return "–"
	}
	s := number(f.Value)
	if f.Low != 0 || f.High != 0 {
		s += " [" + number(f.Low) + ".." + number(f.High) + "]"
	}
	if f.Unit != "" {
		s += " " + f.Unit
	}
	return s
}

// number writes a value with the digits that can be trusted: three, all of those
// before the point.
func number(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) && a < 1e15:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// measure is what each measuring subcommand is told.
type measure struct {
	json, quick bool
	tiny        bool   // as little as possible, with quick: tests want to see that it works
	dir         string // work folder on the disk to measure; empty: a temporary one
}

// measureFlags adds --json, --quick and --dir.
func measureFlags(cmd *cobra.Command) *measure {
	var m measure
	f := cmd.Flags()
	f.BoolVar(&m.json, "json", false, "print one JSON object a figure instead of a table")
	f.BoolVar(&m.quick, "quick", false, "a form of about 20 s, on less data")
	f.StringVar(&m.dir, "dir", "", "work `folder` on the disk to measure; a temporary one if not given")
	f.BoolVar(&m.tiny, "tiny", false, "with --quick, less than can be measured well")
	f.MarkHidden("tiny") // fails only for a flag that does not exist
	return &m
}

// report collects the figures of one subcommand and prints them as one table or,
// with --json, as one JSON object a line.
type report struct {
	title   string
	json    bool
	notes   []string // below the table
	figures []figure
}

// newReport reads the flags that measureFlags has added to cmd.
func newReport(cmd *cobra.Command, title string) *report {
	flag := func(name string) bool {
		v, err := cmd.Flags().GetBool(name)
		return err == nil && v
	}
	if flag("quick") {
		title += " (quick: less data, shorter rounds)"
	}
	return &report{title: title, json: flag("json")}
}

func (r *report) add(figures ...figure) { r.figures = append(r.figures, figures...) }

// skip says that a row was not measured, and why: what it needs.
func (r *report) skip(id, what, why string) {
	r.add(figure{ID: id, What: what, Why: skipped + why})
}

// note adds a line of text below the table; it is left out of the JSON form.
func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// print writes what was collected, also of a run that has failed half way.
func (r *report) print(w io.Writer) error {
	var b bytes.Buffer
	if r.json {
		if err := r.lines(&b); err != nil {
			return err
		}
	} else {
		r.table(&b)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (r *report) lines(b *bytes.Buffer) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false) // ">= 0.95" is to be read
	for _, f := range r.figures {
		if math.IsNaN(f.Value) || math.IsInf(f.Value, 0) { // JSON has neither
			f.Value, f.OK, f.Why = 0, nil, skipped+"the measurement gave no number"
		}
		if err := e.Encode(f); err != nil {
			return fmt.Errorf("print %s: %w", f.ID, err)
		}
	}
	return nil
}

func (r *report) table(b *bytes.Buffer) {
	fmt.Fprintf(b, "%s\n\n", r.title)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "id\twhat\tfigure\ttarget\tverdict")
	for _, f := range r.figures {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.ID, f.What, f.amount(), f.Target, f.verdict())
	}
	w.Flush()
	for _, f := range r.figures {
		if f.Why != "" {
			fmt.Fprintf(b, "\n%s, %s: %s", f.ID, f.What, f.Why)
		}
	}
	for _, n := range r.notes {
		fmt.Fprintf(b, "\n%s", n)
	}
	b.WriteString("\n")
}
