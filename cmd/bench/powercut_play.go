package main

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"holdfast.dev/holdfast/storage/crashdisk"
)

// cutRig records stores and cuts the power.
type cutRig struct {
	self  string // this program
	dir   string // for marks, and what is kept of a failure
	rec   *crashdisk.Disk
	play  *crashdisk.Disk
	check cutChecker
	steps int // of a life, about
}

func openCutRig(self, dir string) (*cutRig, error) {
	r := &cutRig{self: self, dir: dir, check: cutChecker{self: self}}
	err := os.MkdirAll(dir, 0o700)
	if err != nil {
		return nil, err
	}
	if r.rec, err = crashdisk.Open(crashdisk.Options{Name: "record", Folder: dir, Bytes: cutBytes}); err == nil {
		r.play, err = crashdisk.Open(crashdisk.Options{Name: "play", Folder: dir, Bytes: cutBytes})
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *cutRig) close() error {
	err := r.check.close()
	for _, d := range []*crashdisk.Disk{r.rec, r.play} {
		if d != nil {
			err = errors.Join(err, d.Close())
		}
	}
	return err
}

// pickCuts chooses n cuts of a tape, in order, the models in turn: most of them
// just before a flush completes, when everything is at stake. A quarter are made
// while a store is being opened, and a quarter where more is at stake than usual: in
// a generation that is being copied.
func pickCuts(rec *recording, n int, models []crashdisk.Model, lot *rand.Rand) []crashdisk.Cut {
	flushes := rec.tape.Flushes()
	opening := within(flushes, rec)
	if len(opening) == 0 {
		opening = flushes
	}
	cuts := make([]crashdisk.Cut, n)
	for i := range cuts {
		at := lot.IntN(rec.tape.Len() + 1)
		switch k := lot.IntN(8); {
		case len(flushes) == 0 || k == 7:
		case k < 2:
			at = opening[lot.IntN(len(opening))]
		case k < 4:
			for range 12 {
				if f := flushes[lot.IntN(len(flushes))]; rec.tape.AtStake(f) > rec.tape.AtStake(at) {
					at = f
				}
			}
		default:
			at = flushes[lot.IntN(len(flushes))]
		}
		cuts[i] = crashdisk.Cut{At: at, Model: models[i%len(models)], Seed: lot.Uint64()}
	}
	slices.SortStableFunc(cuts, func(a, b crashdisk.Cut) int { return cmp.Compare(a.At, b.At) })
	return cuts
}

// within gives those of the flushes that happened while a store was being opened.
func within(flushes []int, rec *recording) []int {
	var out []int
	from := -1
	for _, m := range rec.marks {
		switch text := string(m.Text); {
		case strings.HasPrefix(text, "life "):
			from = m.At
		case text == "opened" && from >= 0:
			for _, f := range flushes {
				if f > from && f <= m.At {
					out = append(out, f)
				}
			}
			from = -1
		}
	}
	return out
}

// outcome is what one cut showed.
type outcome struct {
	cut      crashdisk.Cut
	mounted  crashdisk.Mounted
	findings findings
	opening  bool // it was a cut while a store was opened after a cut
}

// cut lays out one cut on a disk, mounts it, and has the store looked at.
func (r *cutRig) cut(d *crashdisk.Disk, rec *recording, c crashdisk.Cut, use bool) (o outcome, err error) {
	o.cut = c
	if err := d.Lay(rec.tape, c); err != nil {
		return o, err
	}
	if o.mounted, err = d.Mount(); err != nil {
		o.findings.Shut = err.Error()
		return o, nil
	}
	o.findings, err = r.check.ask(cutQuestion{InPlace: rec.inPlace, Dir: filepath.Join(d.Dir(), "store"),
		Marks: rec.file, Upto: rec.before(c.At), Room: rec.room, Use: use})
	return o, err
}

// cutOpening lets a store be opened and work for a moment on what a cut has left,
// and cuts the power again meanwhile.
func (r *cutRig) cutOpening(ctx context.Context, rec *recording, c crashdisk.Cut, n int, lot *rand.Rand, then func(*recording, outcome, *crashdisk.Disk) error) error {
	if err := r.play.Lay(rec.tape, c); err != nil {
		return err
	}
	if _, err := r.play.Mount(); err != nil {
		return then(rec, outcome{cut: c, findings: findings{Shut: err.Error()}, opening: true}, r.play)
	}
	if err := r.play.Record(); err != nil {
		return err
	}
	args := append(r.workArgs(r.play, c.Seed, 50, rec.room, 1<<20), "--steps", "20")
	if err := r.live(ctx, args...); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return then(rec, outcome{cut: c, findings: findings{Shut: err.Error()}, opening: true}, r.play)
	}
	t, err := r.play.Eject()
	if err != nil {
		return err
	}
	again, err := newRecording(r.dir, rec.seed, t, rec.texts(rec.before(c.At)))
	if err != nil {
		return err
	}
	defer os.Remove(again.file)
	again.room = rec.room
	for _, second := range pickCuts(again, n, cutModels(), lot) {
		o, err := r.cut(r.rec, again, second, false)
		if err != nil {
			return err
		}
		o.opening = true
		if err := then(again, o, r.rec); err != nil {
			return err
		}
	}
	return nil
}

func cutModels() []crashdisk.Model {
	return []crashdisk.Model{crashdisk.Revert, crashdisk.Torn, crashdisk.Noise}
}
