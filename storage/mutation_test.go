package storage

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	"holdfast.dev/holdfast/storage/journal"
)

// A barrier is something that a store does for the sake of a cut alone: a flush, a
// rename, an order of two things. Each is left out of the tape in turn, and some cut
// must lose by it: a proof that lets one through is not a proof, or the barrier is
// none. A few have another one behind them: there nothing may be lost, and both
// together are a row of their own.
type barrier struct {
	name   string
	leave  func(es []event) []event // leaves it out
	page   int                      // what a write harms; a page if zero
	deep   int                      // how often recoveries must be cut too
	steps  int                      // of the tape; 0: the usual ones
	cold   bool                     // it takes a store with generations
	rare   bool                     // it takes some hundred tapes: in the long form only
	behind string                   // what holds if this one does not
}

var (
	segmentPath = regexp.MustCompile(`^journal/[0-9a-f]{16}$`)
	sparePath   = regexp.MustCompile(`^journal/spare\d*$`)
	spareTmp    = regexp.MustCompile(`^journal/spare\.tmp$`)
	markPath    = regexp.MustCompile(`^STORE$`)
	copyPath    = regexp.MustCompile(`^journal/STORE$`)
	markTmp     = regexp.MustCompile(`^STORE\.tmp$`)
	copyTmp     = regexp.MustCompile(`^journal/STORE\.tmp$`)
	coldTmp     = regexp.MustCompile(`^g-\d{8}\.tmp$`)
	coldFile    = regexp.MustCompile(`^g-\d{8}\.tmp/[^S]`)
	coldSeal    = regexp.MustCompile(`^g-\d{8}\.tmp/SEAL$`)
	coldPath    = regexp.MustCompile(`^g-\d{8}$`)
)

// without gives a change that leaves out the operations for which which is true.
func without(which func(es []event, i int) bool) func([]event) []event {
	return func(es []event) []event {
		var out []int
		for i, e := range es {
			if e.Word == nil && which(es, i) {
				out = append(out, i)
			}
		}
		for _, i := range out {
			es[i].Op.Kind, es[i].Left = journal.OpList, true
		}
		return es
	}
}

func is(kind journal.OpKind, path *regexp.Regexp) func([]event, int) bool {
	return func(es []event, i int) bool { return es[i].Op.Kind == kind && path.MatchString(es[i].Op.Path) }
}

// before gives the last change on the same path before event i, opening it included.
func before(es []event, i int) journal.Op {
	for k := i - 1; k >= 0; k-- {
		if es[k].Word == nil && es[k].Op.Path == es[i].Op.Path {
			return es[k].Op
		}
	}
	return journal.Op{}
}

// flushOf is a flush after a write, or one at opening, where nothing was written.
func flushOf(path *regexp.Regexp, opening bool, which func(op journal.Op) bool) func([]event, int) bool {
	return func(es []event, i int) bool {
		if !is(journal.OpFlush, path)(es, i) {
			return false
		}
		op := before(es, i)
		return (op.Kind == journal.OpOpen) == opening && (which == nil || which(op))
	}
}

// syncAfter is the flush of a folder that follows an operation: the next one of that
// folder.
func syncAfter(dir string, which func(es []event, i int) bool) func([]event, int) bool {
	return func(es []event, i int) bool {
		if es[i].Op.Kind != journal.OpSyncDir || es[i].Op.Path != dir {
			return false
		}
		for k := i - 1; k >= 0; k-- {
			switch {
			case es[k].Word != nil:
			case which(es, k):
				return true
			case es[k].Op.Kind == journal.OpSyncDir && es[k].Op.Path == dir:
				return false
			}
		}
		return false
	}
}

func renames(from, to *regexp.Regexp) func([]event, int) bool {
	return func(es []event, i int) bool {
		op := es[i].Op
		return es[i].Word == nil && op.Kind == journal.OpRename && from.MatchString(op.Path) && to.MatchString(op.To)
	}
}

// syncOpening is the flush of the journal's folder when it is opened.
func syncOpening(es []event, i int) bool {
	return syncAfter("journal", is(journal.OpList, regexp.MustCompile(`^journal$`)))(es, i)
}

// givenUp is the end of a segment.
func givenUp(es []event, i int) bool {
	return any(renames(segmentPath, sparePath), is(journal.OpRemove, segmentPath))(es, i)
}

func any(fs ...func([]event, int) bool) func([]event, int) bool {
	return func(es []event, i int) bool {
		return slices.ContainsFunc(fs, func(f func([]event, int) bool) bool { return f(es, i) })
	}
}

// inPlace writes a file under its last name from the beginning.
func inPlace(to *regexp.Regexp) func([]event) []event {
	return func(es []event) []event {
		for i, e := range es {
			if e.Word != nil || e.Op.Kind != journal.OpRename || e.Op.Path != e.Op.To+".tmp" || !to.MatchString(e.Op.To) {
				continue
			}
			from := e.Op.Path
			es[i].Op.Kind, es[i].Left = journal.OpList, true
			for k := i - 1; k >= 0; k-- {
				if es[k].Word == nil && es[k].Op.Path == from {
					es[k].Left = true
					if es[k].Op.Path = e.Op.To; es[k].Op.Kind == journal.OpCreate {
						break
					}
				}
			}
		}
		return es
	}
}

// earlier moves each operation for which which is true, and the flush of its folder
// where that follows at once, to before the last but n for which than is true: what is
// done there is not durable yet.
func earlier(which, than func(es []event, i int) bool, n int) func([]event) []event {
	return func(es []event) []event {
		var before []int
		for i := 0; i+1 < len(es); i++ {
			switch {
			case es[i].Word != nil:
			case than(es, i):
				before = append(before, i)
			case which(es, i) && len(before) > n:
				size := 1
				if es[i+1].Word == nil && es[i+1].Op.Kind == journal.OpSyncDir {
					size = 2
				}
				to := before[len(before)-1-n]
				es[i].Left = true
				moved := slices.Clone(es[i : i+size])
				copy(es[to+size:i+size], es[to:i])
				copy(es[to:], moved)
				for k := len(before) - 1 - n; k < len(before); k++ {
					before[k] += size
				}
				i += size - 1
			}
		}
		return es
	}
}

var barriers = []barrier{
	{name: "flush of a frame", leave: without(flushOf(segmentPath, false, nil))},
	{name: "flush of a picture's first frame", leave: without(flushOf(segmentPath, false, func(op journal.Op) bool { return op.Off == 0 }))},
	{name: "flush of a frame before it is acknowledged", leave: func(es []event) []event {
		for i := range len(es) - 1 { // the words come first
			for k := i; k >= 0 && es[k+1].Word != nil && flushOf(segmentPath, false, nil)(es, k); k-- {
				es[k], es[k+1] = es[k+1], es[k]
				es[k].Left = true
			}
		}
		return es
	}},
	{name: "flush of a segment when it is opened", leave: without(flushOf(segmentPath, true, nil))},
	{name: "flush of the folder when it is opened", leave: without(syncOpening), rare: true},
	{name: "flush of the folder after a segment was taken", leave: without(syncAfter("journal", renames(sparePath, segmentPath)))},
	{name: "flush of the folder after a segment was given up", leave: without(syncAfter("journal",
		givenUp))},
	{name: "ends of records before their segment is given up", leave: earlier(givenUp, is(journal.OpWrite, segmentPath), 0)},
	{name: "frames that begin on a page of their own", leave: func(es []event) []event { return es }, page: 4 * journal.Page},
	{name: "flush of a generation's files", leave: without(is(journal.OpFlush, coldFile)), cold: true},
	{name: "flush of a seal", leave: without(is(journal.OpFlush, coldSeal)), cold: true},
	{name: "flush of a generation's folder", leave: without(is(journal.OpSyncDir, coldTmp)), cold: true},
	{name: "flush of the folder after a generation got its name", leave: without(syncAfter(".", renames(coldTmp, coldPath))), cold: true},
	{name: "seal before segments are given up", leave: earlier(givenUp, is(journal.OpWrite, coldSeal), 0), cold: true},
	{name: "frame that ends or replaces a generation before it is dropped", leave: earlier(renames(coldPath, coldTmp), is(journal.OpWrite, segmentPath), 3), cold: true},
	{name: "flush of the folder after a generation lost its name", leave: without(syncAfter(".", renames(coldPath, coldTmp))), cold: true, rare: true},
	{name: "flush of a spare's zeros", leave: without(is(journal.OpFlush, spareTmp))},
	{name: "rename of a spare", leave: inPlace(sparePath), deep: 2, steps: 1, rare: true},
	{name: "flush of the folder after a spare", leave: without(syncAfter("journal", renames(spareTmp, sparePath))),
		behind: "the flush of the folder after a segment was taken"},
	{name: "flush of the journal's mark", leave: without(is(journal.OpFlush, copyTmp))},
	{name: "rename of the journal's mark", leave: inPlace(copyPath)},
	{name: "flush of the folder after the journal's mark", leave: without(syncAfter("journal", renames(copyTmp, copyPath))),
		behind: "the flush of the folder when it is opened"},
	{name: "both", leave: without(any(syncAfter("journal", renames(copyTmp, copyPath)), syncOpening))},
	{name: "flush of the mark", leave: without(is(journal.OpFlush, markTmp)), behind: "the journal's mark"},
	{name: "rename of the mark", leave: inPlace(markPath), behind: "the journal's mark"},
	{name: "flush of the folder after the mark", leave: without(syncAfter(".", renames(markTmp, markPath))), behind: "the journal's mark"},
	{name: "a disk that lies about files", leave: without(is(journal.OpFlush, regexp.MustCompile(``)))},
	{name: "a disk that lies about folders", leave: without(is(journal.OpSyncDir, regexp.MustCompile(``)))},
}

// Every barrier is missed when it is left out.
func TestPowerCutsMissEveryBarrier(t *testing.T) {
	c := newCampaign(t, 0)
	most := 60
	if c.long {
		most = 600
	}
	for i, b := range barriers {
		if !c.long && (b.rare || (uint64(i)+c.seed)%4 > 0) {
			continue // the short form takes a quarter of them, by the seed
		}
		t.Run(b.name, func(t *testing.T) {
			cuts, tapes, caught := 0, 0, error(nil)
			for ; caught == nil && tapes < most && (b.behind == "" || tapes < max(1, most/60)); tapes++ {
				o := forms[tapes%len(forms)]
				lives, steps := 3, 40
				if b.cold {
					o, steps = forms[tapes%2], 70
				}
				if b.steps > 0 {
					lives, steps = 1, b.steps
				}
				events := b.leave(record(t, o, c.seed+uint64(tapes), lives, steps))
				for i, m := range losses {
					r := newRig(t, o, m, c.seed+uint64(tapes*len(losses)+i))
					r.oneIn, r.deep, r.keen, r.page = 20, b.deep, true, max(b.page, r.page)
					if caught = r.play(events); caught != nil {
						caught = fmt.Errorf("%s: %w", m.name, caught)
					}
					if cuts += r.cuts; caught != nil {
						break
					}
				}
			}
			switch {
			case b.behind != "" && caught != nil:
				t.Errorf("%s does not hold: %v", b.behind, caught)
			case b.behind != "":
				t.Logf("nothing lost in %d cuts: %s holds", cuts, b.behind)
			case caught == nil:
				t.Errorf("nothing was lost in %d cuts of %d tapes", cuts, tapes)
			default:
				t.Logf("caught by cut %d, tape %d: %.200s", cuts, tapes, caught.Error())
			}
		})
	}
}
