package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"holdfast.dev/holdfast/storage/crashdisk"
)

// cutSum is the account of cuts, by model, and of the controls.
type cutSum struct {
	models                       []cutRow
	controls                     []cutRow
	tapes, flushes, marks, moved int // recorded, and what is on them
}

type cutRow struct {
	name              string
	cuts, opening     int
	lost, wrong, shut int // cuts that showed it; one counts once, for the worst
	mended, found     int // ext4's own trouble
	example           string
}

func newCutSum() cutSum {
	var s cutSum
	for _, m := range cutModels() {
		s.models = append(s.models, cutRow{name: m.String()})
	}
	return s
}

func (r *cutRow) add(o outcome) {
	r.cuts++
	if o.opening {
		r.opening++
	}
	if o.mounted.Mended {
		r.mended++
	}
	if o.mounted.Found > 0 {
		r.found++
	}
	switch f := o.findings; {
	case f.Shut != "":
		r.shut++
	case len(f.Lost) > 0:
		r.lost++
	case len(f.Wrong) > 0:
		r.wrong++
	default:
		return
	}
	if r.example == "" {
		r.example, _, _ = strings.Cut(o.findings.String(), "\n")
	}
}

func (r *cutRow) failed() int { return r.lost + r.wrong + r.shut }

func (s *cutSum) add(o outcome) { s.models[o.cut.Model].add(o) }

func (s *cutSum) taped(rec *recording) {
	s.tapes++
	s.flushes += len(rec.tape.Flushes())
	s.marks += len(rec.marks)
	s.moved += rec.moved()
}

func (s *cutSum) made() int {
	n := 0
	for _, r := range s.models {
		n += r.cuts
	}
	return n
}

func (s *cutSum) failed() int {
	n := 0
	for _, r := range s.models {
		n += r.failed()
	}
	return n
}

// figures puts the rows into the report.
func (s *cutSum) figures(rep *report) {
	what := map[string]string{
		crashdisk.Revert.String(): "unflushed blocks reverted",
		crashdisk.Torn.String():   "random subset kept, sectors torn",
		crashdisk.Noise.String():  "unflushed blocks of files are noise",
	}
	for _, r := range s.models {
		if r.cuts == 0 {
			rep.skip("S7", what[r.name], "no cut was made")
			continue
		}
		rep.add(figure{ID: "S7", What: fmt.Sprintf("%s, %d cuts: not survived whole", what[r.name], r.cuts),
			Value: float64(r.failed()), Unit: "cuts"}.judged("= 0").because(r.example))
	}
	for _, r := range s.controls {
		rep.add(figure{ID: "S7-control", What: fmt.Sprintf("%s, %d cuts: must lose", r.name, r.cuts),
			Value: float64(r.failed()), Unit: "cuts"}.judged(">= 1").because("the cuts prove nothing: a control lost nothing"))
	}
}

// notes puts the whole table below.
func (s *cutSum) notes(rep *report, took time.Duration) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tcuts\twhile opening\tlost\twrong\tshut\te2fsck\tlost+found\t")
	for _, rows := range [][]cutRow{s.models, s.controls} {
		for _, r := range rows {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", r.name, r.cuts, r.opening, r.lost, r.wrong, r.shut, r.mended, r.found)
		}
	}
	w.Flush()
	for line := range strings.Lines(b.String()) {
		rep.note("%s", strings.TrimRight(line, "\n"))
	}
	rep.note("lost: something acknowledged is gone; wrong: order, ledger, an end undone, something invented; shut: the store does not open.")
	rep.note("e2fsck: ext4 did not mount before it; lost+found: and e2fsck found something without a name.")
	rep.note("%d cuts in %.0f s; recordings: %d, with %d flushes, %d words of the workload, %d records moved into generations.",
		s.made(), took.Seconds(), s.tapes, s.flushes, s.marks, s.moved)
}

func (s *cutSum) verdict() error {
	if n := s.failed(); n > 0 {
		return fmt.Errorf("%d of %d power cuts were not survived whole", n, s.made())
	}
	for _, r := range s.controls {
		if r.failed() == 0 {
			return fmt.Errorf("%s lost nothing in %d cuts: the cuts prove nothing", r.name, r.cuts)
		}
	}
	return nil
}

// cutWord writes a cut as --cut takes it.
func cutWord(c crashdisk.Cut) string { return fmt.Sprintf("%d:%v:%d", c.At, c.Model, c.Seed) }

func parseCutWord(s string) (c crashdisk.Cut, err error) {
	f := strings.Split(s, ":")
	if len(f) != 3 {
		return c, fmt.Errorf("--cut %q: want one as it was printed, e.g. 1234:noise:5678", s)
	}
	var err1, err2 error
	c.At, err1 = strconv.Atoi(f[0])
	c.Seed, err2 = strconv.ParseUint(f[2], 10, 64)
	for _, m := range cutModels() {
		if m.String() == f[1] {
			c.Model = m
			return c, errors.Join(err1, err2)
		}
	}
	return c, fmt.Errorf("--cut %q: %q is none of the models, which are %v", s, f[1], cutModels())
}
