package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// page is what a whole run has found, to be read by people.
type page struct {
	m       machine
	begun   time.Time
	took    time.Duration
	quick   bool
	figures []figure
}

// target is a row of the table of targets.
type target struct{ id, what, limit string }

// targets are what the store is to be held against, and where the limit is more than
// one figure's, all of it.
func targets() []target {
	return []target{
		{"S1", "kept while the uplink keeps up, against a plain log", "≥ 0.95 ×, never < 0.85 ×"},
		{"S2", "flushes a commit, groups of 64", "≤ 1.02 steady, ≤ 1.10 while moving; moving adds ≤ 1 a MiB"},
		{"S3", "bytes written a payload byte, groups of 64", "≤ 1.7 steady, ≤ 3.0 while moving; what was moved ≤ 0.8"},
		{"S4", "anonymous memory at any backlog", "≤ 48 MB; 5,000,000 against 10,000 messages ≤ 10 MB more"},
		{"S5", "from kill -9 at 5,000,000 messages to the first one read", "≤ 200 ms with warm caches"},
		{"S6", "disk a second after the full drain", "the ring, a state and a generation"},
		{"S7", "acknowledged and lost in power cuts, three models", "0"},
		{"S8", "full disk", "0 crashes, 0 acknowledged lost, resumes by itself"},
		{"S9", "acknowledgement under load on the SD model, against a commit", "p50 ≤ 1.4 ×, p99 ≤ 3 × (≤ 6 × while moving)"},
		{"S10", "against NATS JetStream that syncs, and badger with a transaction a message", "≥ 30 × (SD model ≥ 150 ×); ≥ 100 × (SD model)"},
		{"S11", "through the broker, 10 clients × 100 in flight, against mochi without a store and mosquitto without durability", "≥ 1.0 ×; ≥ 1.5 ×"},
		{"S12", "a lone client: p50 against the bare flush; against RabbitMQ", "≤ 1.15 ×; ≥ 2 ×"},
		{"S13", "durable against durable: RabbitMQ at 10 × 100; at 1 × 20", "≥ 12 ×; ≥ 5 ×"},
		{"S14", "barriers left out one by one, and noticed by the proof", "all"},
	}
}

// of gives the figures of an id, those that were judged first.
func (p page) of(id string) []figure {
	var judged, others []figure
	for _, f := range p.figures {
		switch {
		case f.ID != id:
		case f.OK != nil:
			judged = append(judged, f)
		default:
			others = append(others, f)
		}
	}
	return append(judged, others...)
}

// beside gives the figures that belong to no target.
func (p page) beside() []figure {
	known := targets()
	return slices.DeleteFunc(slices.Clone(p.figures), func(f figure) bool {
		return slices.ContainsFunc(known, func(t target) bool { return t.id == f.ID })
	})
}

// whys gives the reasons of what was missed or skipped, each once.
func (p page) whys(skippedOnes bool) []string {
	var out []string
	for _, f := range p.figures {
		if f.Why == "" || f.skipped() != skippedOnes {
			continue
		}
		line := f.ID + ", " + f.What + ": " + strings.TrimPrefix(f.Why, skipped)
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

// unmeasured says what this page has no figure for.
func (p page) unmeasured() []string {
	out := p.whys(true)
	for _, t := range targets() {
		if len(p.of(t.id)) == 0 {
			why := "no figure"
			if t.id == "S14" {
				why = "make prove leaves out each barrier and prints what noticed it"
			}
			out = append(out, t.id+", "+t.what+": "+why)
		}
	}
	return append(out, "a real SD card: the model takes 0.8 ms a write, 15 MB/s and 8 ms a flush, one thing after the other")
}

func (p page) head() string {
	kind := "bench all"
	if p.quick {
		kind += " --quick"
	}
	return fmt.Sprintf("Printed by `%s` on %s, in %s.", kind, p.begun.UTC().Format("2006-01-02 15:04 MST"), p.took.Round(time.Second))
}

// markdown is the page for docs/durability.md.
func (p page) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n### Targets\n\n| # | what | target | figure | |\n|---|---|---|---|---|\n", p.head())
	for _, t := range targets() {
		fmt.Fprintf(&b, "| **%s** | **%s** | **%s** | | |\n", t.id, t.what, t.limit)
		for _, f := range p.of(t.id) {
			fmt.Fprintf(&b, "| | %s | %s | %s | %s |\n", cell(f.What), cell(f.Target), cell(f.amount()), verdictCell(f))
		}
	}
	list(&b, "Missed, and why", p.whys(false))
	list(&b, "Not measured", p.unmeasured())
	b.WriteString("\n### Beside them\n\n| | what | figure |\n|---|---|---|\n")
	for _, f := range p.beside() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", f.ID, cell(f.What), cell(f.amount()))
	}
	list(&b, "The machine", p.m.lines())
	return b.String()
}

func list(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### %s\n\n", title)
	for _, l := range lines {
		fmt.Fprintf(b, "- %s\n", l)
	}
}

// cell keeps a text from ending its cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

func verdictCell(f figure) string {
	v := f.verdict()
	if v == "MISSED" {
		return "**missed**"
	}
	return v
}

// text is the page for a terminal.
func (p page) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", p.head())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, t := range targets() {
		fmt.Fprintf(w, "%s\t%s: %s\t\t\t\n", t.id, t.what, t.limit)
		for _, f := range p.of(t.id) {
			fmt.Fprintf(w, "\t  %s\t%s\t%s\t%s\n", f.What, f.amount(), f.Target, f.verdict())
		}
	}
	w.Flush()
	b.WriteString("\nBeside them\n\n")
	for _, f := range p.beside() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.ID, f.What, f.amount())
	}
	w.Flush()
	for _, part := range []struct {
		title string
		lines []string
	}{{"Missed, and why", p.whys(false)}, {"Not measured", p.unmeasured()}, {"The machine", p.m.lines()}} {
		if len(part.lines) > 0 {
			fmt.Fprintf(&b, "\n%s\n\n  %s\n", part.title, strings.Join(part.lines, "\n  "))
		}
	}
	return b.String()
}
