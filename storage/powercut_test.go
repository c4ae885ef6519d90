package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/storage/generation"
	"holdfast.dev/holdfast/storage/journal"
)

// rig cuts the power of a store that is played from a tape.
type rig struct {
	t     *testing.T
	o     Options
	page  int // what a write may harm
	loss  loss
	lot   *rand.Rand
	oneIn int  // boundaries are cut; four times as many operations between
	deep  int  // how often a recovery is cut
	last  bool // to cut at the end of the tape
	keen  bool // to cut recoveries: all of them
	hot   int  // so many operations after something was left out

	cuts, again int // of the tape, and of recoveries
	mu          sync.Mutex
	reached     map[string]int
}

func newRig(t *testing.T, o Options, m loss, seed uint64) *rig {
	return &rig{t: t, o: o, page: journal.Page, loss: m, lot: rand.New(rand.NewPCG(seed, 2)), oneIn: 4, deep: 2, reached: map[string]int{}}
}

// play plays a tape and gives the first promise that was not kept.
func (r *rig) play(events []event) error {
	p, told := newPlatter(r.lot, r.page), newPromise()
	for _, q := range []string{"up", "local"} {
		told.queue(q)
	}
	for i, e := range events {
		if e.Word != nil {
			told.hear(*e.Word)
			continue
		}
		if e.Left {
			r.hot = 8
		}
		if !e.changes() {
			continue
		}
		if r.here(e) {
			r.cuts++
			if err := r.cut(p, told, r.deep); err != nil {
				return fmt.Errorf("cut %d, before %s: %w", r.cuts, where(i, e), err)
			}
		}
		if e.Failed {
			p.fail(e.Op)
		} else {
			p.play(e.Op)
		}
	}
	if !r.last {
		return nil
	}
	r.cuts++
	if err := r.cut(p, told, r.deep); err != nil {
		return fmt.Errorf("cut at the end: %w", err)
	}
	return nil
}

func where(i int, e event) string {
	return fmt.Sprintf("operation %d (kind %d of %s)", i, e.Op.Kind, e.Op.Path)
}

func (r *rig) here(e event) bool {
	if r.hot--; r.hot >= 0 {
		return r.lot.IntN(2) == 0
	}
	if e.boundary() {
		return r.lot.IntN(r.oneIn) == 0
	}
	return r.lot.IntN(4*r.oneIn) == 0
}

// cut opens what a cut leaves, uses it, opens it again, and cuts the first opening
// too, and its recovery.
func (r *rig) cut(p *platter, told *promise, deep int) error {
	at := scratch(r.t)
	defer os.RemoveAll(at)
	dir := filepath.Join(at, "store")
	p.fall(r.t, r.loss, dir)
	again := newPlatter(r.lot, r.page)
	again.load(r.t, dir)
	tp := &tape{root: dir}
	if err := r.opened(dir, told, tp); err != nil {
		return err
	}
	if deep == 0 || !r.keen && r.lot.IntN(3) > 0 {
		return nil
	}
	stops := r.stops(tp.events)
	for i, e := range tp.events {
		if slices.Contains(stops, i) {
			r.again++
			if err := r.cut(again, told, deep-1); err != nil {
				return fmt.Errorf("and the recovery cut before %s: %w", where(i, e), err)
			}
		}
		again.play(e.Op)
	}
	return nil
}

// stops draws a few moments of a recovery.
func (r *rig) stops(events []event) (stops []int) {
	var all []int
	for i, e := range events {
		if e.changes() {
			all = append(all, i)
		}
	}
	for range min(3, len(all)) {
		stops = append(stops, all[r.lot.IntN(len(all))])
	}
	return stops
}

// opened opens the store, looks whether the promise is kept, puts something in, and
// looks again.
func (r *rig) opened(dir string, told *promise, tp *tape) error {
	o := r.o
	o.Clock = &handClock{now: told.now}
	o.disk = tp.disk
	o.reached = func(branch string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reached[branch]++
	}
	db, err := Open(dir, o)
	if err != nil {
		return err
	}
	defer db.Close()
	db.mover.stop() // it works when it is told to
	if err := told.broken(db); err != nil {
		return err
	}
	done := make(chan error, 1)
	rec := Record{Sender: "z", Body: []byte("new"), To: []Dest{{Queue: "new"}}, With: []Change{{Map: "new", Key: "k", Value: []byte("v")}}}
	db.Append(context.Background(), rec, func(err error) { done <- err })
	full := errors.Is(<-done, ErrFull)
	last := db.Queue("new").Stats().Last
	for more := r.lot.IntN(3) == 0; more; {
		if more, err = db.tidy(context.Background()); err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, generation.ErrNoSpace) {
			return fmt.Errorf("tidy: %w", err)
		}
	}
	if err := db.Close(); err != nil {
		return err
	}
	o.disk, o.reached = nil, nil
	if db, err = Open(dir, o); err != nil {
		return fmt.Errorf("open after use: %w", err)
	}
	defer db.Close()
	db.mover.stop()
	if v, _ := db.Map("new").Get("k"); !full && (string(v) != "v" || last == 0) || db.Queue("new").Stats().Last != last {
		return errors.New("what was put in after the cut is lost")
	}
	if err := told.broken(db); err != nil {
		return fmt.Errorf("opened after use: %w", err)
	}
	return nil
}

// scratch is a folder in memory where there is one: what a cut leaves is opened
// some ten thousand times.
func scratch(t *testing.T) string {
	t.Helper()
	root := "/dev/shm"
	if _, err := os.Stat(root); err != nil {
		root = t.TempDir()
	}
	dir, err := os.MkdirTemp(root, "holdfast-cut-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// campaign is how long a proof takes and what it is drawn by.
type campaign struct {
	cuts  int    // wanted in each model
	seed  uint64 // of the first tape
	given bool   // by somebody who wants it again
	part  int    // of parts
	parts int
	long  bool
}

// HOLDFAST_TEST_CUTS is the number of cuts in each model, HOLDFAST_TEST_PART=2/4
// makes the second of four parts of them, HOLDFAST_TEST_SEED draws as another run did.
func newCampaign(t *testing.T, cuts int) campaign {
	t.Helper()
	c := campaign{cuts: cuts, seed: rand.Uint64N(1 << 40), part: 1, parts: 1}
	for name, scan := range map[string]func(s string) error{
		"HOLDFAST_TEST_CUTS": func(s string) error { _, err := fmt.Sscan(s, &c.cuts); c.long = true; return err },
		"HOLDFAST_TEST_PART": func(s string) error { _, err := fmt.Sscanf(s, "%d/%d", &c.part, &c.parts); return err },
		"HOLDFAST_TEST_SEED": func(s string) error { _, err := fmt.Sscan(s, &c.seed); c.given = true; return err },
	} {
		if s := os.Getenv(name); s != "" {
			if err := scan(s); err != nil {
				t.Fatalf("%s=%s: %v", name, s, err)
			}
		}
	}
	if !c.given {
		c.seed += uint64(c.part) << 44
	}
	c.cuts = (c.cuts + c.parts - 1) / c.parts
	return c
}

// forms are the shapes of store that are cut: with room, soon full, and two in which
// most of a backlog becomes cold, one of them with little room.
var forms = []Options{
	{SegmentBytes: 32 << 10, MaxBytes: 64 << 20, Ring: 4, tiny: true, check: true, Linger: -1},
	{SegmentBytes: 64 << 10, MaxBytes: 64 << 20, tiny: true, check: true, Linger: -1},
	{SegmentBytes: 64 << 10, MaxBytes: 10 * 64 << 10, Ring: 4, tiny: true, check: true, Linger: -1},
	{SegmentBytes: 64 << 10, MaxBytes: 4 * 64 << 10, tiny: true, check: true, Linger: -1},
}

// Whenever the power goes, what was acknowledged is there, in order, once, and the
// ledger adds up.
func TestPowerCuts(t *testing.T) {
	c := newCampaign(t, 30)
	rigs, begin, told := make([]*rig, len(losses)), time.Now(), time.Now()
	for i, m := range losses {
		rigs[i] = newRig(t, Options{}, m, c.seed+uint64(i))
		if rigs[i].oneIn = 6; !c.long {
			rigs[i].oneIn = 24
		}
	}
	if name := os.Getenv("HOLDFAST_TEST_TAPE"); name != "" {
		playAll(t, rigs, loadTape(t, name))
		return
	}
	least := func() int { return slices.MinFunc(rigs, func(a, b *rig) int { return a.cuts - b.cuts }).cuts }
	tapes, reached := 0, map[string]int{}
	for ; least() < c.cuts; tapes++ {
		seed := c.seed + uint64(tapes)
		if !c.long && !c.given && tapes == 0 {
			seed = 1 // one that is the same each time
		}
		o := forms[seed%uint64(len(forms))]
		w := work(t, o, seed, 3, []int{120, 60, 100, 60}[seed%uint64(len(forms))])
		show(w.tape.events, reached)
		for b, n := range w.tally {
			reached[b] += n
		}
		playAll(t, rigs, kept{o.SegmentBytes, o.Ring, o.MaxBytes, seed, w.tape.events})
		if c.long && time.Since(told) > 10*time.Second {
			told = time.Now()
			fmt.Printf("    %d of %d cuts in each model, %d tapes, %.0f s\n", least(), c.cuts, tapes+1, time.Since(begin).Seconds())
		}
	}
	for _, r := range rigs {
		t.Logf("%-30s %6d cuts, %6d of recoveries, 0 lost", r.loss.name, r.cuts, r.again)
		for b, n := range r.reached {
			reached[b] += n
		}
	}
	t.Logf("%d tapes, part %d of %d, HOLDFAST_TEST_SEED=%d", tapes, c.part, c.parts, c.seed)
	for _, b := range slices.Sorted(maps.Keys(reached)) {
		t.Logf("%8d × %s", reached[b], b)
	}
	if !c.long {
		return
	}
	for _, b := range branches {
		if reached[b] == 0 {
			t.Errorf("never reached: %s", b)
		}
	}
}

// playAll plays a tape in every model. One that fails is kept: what the store did then
// depends on how its goroutines ran, and another run may do otherwise.
func playAll(t *testing.T, rigs []*rig, k kept) {
	t.Helper()
	for i, r := range rigs {
		r.o = Options{SegmentBytes: k.SegmentBytes, Ring: k.Ring, MaxBytes: k.MaxBytes, tiny: true, check: true, Linger: -1}
		r.lot = rand.New(rand.NewPCG(k.Seed, uint64(i)))
		if err := r.play(k.Events); err != nil {
			t.Fatalf("%s: %v\nHOLDFAST_TEST_SEED=%d draws such a tape again, HOLDFAST_TEST_TAPE=%s plays this one", r.loss.name, err, k.Seed, k.save(t))
		}
	}
}

// branches are what a long proof must have seen at least once: in the lives that are
// cut, and in the openings that follow.
var branches = []string{
	"founding interrupted before its first mark",
	"a mark is missing",
	"the newest frame is torn",
	"a picture was not finished",
	"the newest segment has no whole picture",
	"opened full, without a picture in the newest segment",
	"a generation does not count",
	"a generation that the journal speaks of is gone",
	"leftovers merge",
	"delivered", "expired", "evicted", "discarded", "parked", "records that moved",
	"segments taken", "segments recycled", "segments removed", "generations sealed", "generations dropped",
}
