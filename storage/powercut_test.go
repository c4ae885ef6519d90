package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast.dev/holdfast/storage/journal"
)

// worker uses a store and says on the tape what it asks for and what it is told.
type worker struct {
	t    *testing.T
	tape *tape
	lot  *rand.Rand
	db   *DB
	wait sync.WaitGroup

	parking atomic.Bool // one is under way

	mu   sync.Mutex
	last map[string]Position // by queue, of what was acknowledged
	n    int
}

func (w *worker) open(dir string, o Options) {
	o.disk = w.tape.disk
	db, err := Open(dir, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.db = db
}

func (w *worker) append() {
	s := []string{"a", "b", "c"}[w.lot.IntN(3)]
	w.n++
	body := fmt.Sprintf("%s %d %s", s, w.n, strings.Repeat("x", w.lot.IntN(2)*w.lot.IntN(4)*w.lot.IntN(3000)))
	r := Record{Sender: s, Body: []byte(body)}
	for _, q := range [][]string{{"up"}, {"up"}, {"local"}, {"up", "local"}}[w.lot.IntN(4)] {
		r.To = append(r.To, Dest{Queue: q})
	}
	if w.lot.IntN(3) == 0 {
		key, value := fmt.Sprint("k", w.lot.IntN(5)), fmt.Sprint(w.n, strings.Repeat("v", 1000))
		w.wait.Wait()
		r.With = []Change{{Map: "m", Key: key, Value: []byte(value)}}
		w.tape.say(func(p *promise) { p.queue("up"); p.may(key, value) })
		defer w.wait.Wait()
	}
	w.wait.Add(1)
	w.db.Append(w.t.Context(), r, func(err error) {
		defer w.wait.Done()
		if err != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, d := range r.To {
			w.last[d.Queue]++
			pos := w.last[d.Queue]
			w.tape.say(func(p *promise) { p.queue(d.Queue).bodies[pos] = body })
		}
		for _, c := range r.With {
			w.tape.say(func(p *promise) { p.keys[c.Key] = []string{string(c.Value)} })
		}
	})
}

func (p *promise) may(key, value string) {
	if p.keys[key] == nil {
		p.keys[key] = []string{""}
	}
	p.keys[key] = append(p.keys[key], value)
}

func (w *worker) settle(all bool) {
	w.wait.Wait()
	name := []string{"up", "up", "local"}[w.lot.IntN(3)]
	q := w.db.Queue(name)
	items, _, err := q.Read(q.Checkpoint(), Limit{Records: 1000}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var ps []Position
	for _, it := range items {
		if all || w.lot.IntN(2) == 0 {
			ps = append(ps, it.Position)
		}
	}
	w.tape.say(func(p *promise) {
		for _, pos := range ps {
			p.queue(name).ending[pos] = true
		}
	})
	if w.lot.IntN(3) == 0 {
		q.Settle(ps, Delivered, nil)
		return
	}
	w.wait.Add(1)
	q.Settle(ps, Expired, func(err error) {
		defer w.wait.Done()
		if err == nil {
			w.tape.say(func(p *promise) {
				for _, pos := range ps {
					p.queue(name).ended[pos] = true
				}
			})
		}
	})
}

func (w *worker) park() {
	w.wait.Wait()
	if !w.parking.CompareAndSwap(false, true) {
		return // a full store takes its time
	}
	s := []string{"a", "b", "c"}[w.lot.IntN(3)]
	q := w.db.Queue("up")
	_, is := q.Parked()[s]
	w.tape.say(func(p *promise) { p.queue("up").parking[s] = true })
	done := func(err error) {
		defer w.parking.Store(false)
		if err == nil {
			w.tape.say(func(p *promise) { p.queue("up").parking[s], p.queue("up").parked[s] = false, !is })
		}
	}
	if is {
		q.Unpark(s, done)
	} else {
		q.Park(s, "refused", done)
	}
}

func (w *worker) parkOne() {
	w.wait.Wait()
	q := w.db.Queue("local")
	p := q.Checkpoint() + 1 + Position(w.lot.IntN(3))
	if w.lot.IntN(2) == 0 {
		q.ParkRecord(p, "strange")
		return
	}
	q.UnparkRecord(p)
	if w.lot.IntN(2) == 0 {
		w.tape.say(func(pr *promise) { pr.queue("local").ending[p] = true })
		q.Settle([]Position{p}, Discarded, nil)
	}
}

// record makes a tape of some opens and what comes between.
func record(t *testing.T, dir string, o Options, seed uint64, steps int) []event {
	w := &worker{t: t, tape: &tape{}, lot: rand.New(rand.NewPCG(seed, 1)), last: map[string]Position{}}
	for range 3 {
		w.open(dir, o)
		for range steps {
			switch n := w.lot.IntN(20); {
			case n < 12:
				w.append()
			case n < 15:
				w.settle(false)
			case n < 16:
				w.settle(true)
			case n < 18:
				w.park()
			default:
				w.parkOne()
			}
		}
		w.wait.Wait()
		if err := w.db.Verify(); err != nil {
			t.Fatal(err)
		}
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return w.tape.events
}

// cuts plays a tape and cuts the power at one in so many boundaries; it gives the
// number of cuts and the first promise that was not kept.
func cuts(t *testing.T, events []event, dir string, o Options, seed uint64, page, oneIn int) (n int, err error) {
	lot := rand.New(rand.NewPCG(seed, 2))
	p, told := newPlatter(lot, page), &promise{}
	told.queue("up")
	for i, e := range events {
		if e.said != nil {
			e.said(told)
			continue
		}
		if k := e.op.Kind; (k == journal.OpFlush || k == journal.OpSyncDir || k == journal.OpList) && lot.IntN(oneIn) == 0 {
			n++
			if err := cut(t, p, dir, o, told, lot); err != nil {
				return n, fmt.Errorf("seed %d, cut before operation %d (kind %d of %s): %w", seed, i, k, filepath.Base(e.op.Path), err)
			}
		}
		p.play(e.op)
	}
	return n, nil
}

// cut opens what a cut leaves, twice, uses it in between, and cuts the first
// opening too.
func cut(t *testing.T, p *platter, dir string, o Options, told *promise, lot *rand.Rand) error {
	to := filepath.Join(scratch(t), "store")
	defer os.RemoveAll(filepath.Dir(to))
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	p.fall(t, dir, to)
	again := newPlatter(lot, p.page)
	again.load(t, to)
	tp := &tape{}
	first := o
	first.disk = tp.disk
	if err := opened(to, first, told, true); err != nil {
		return err
	}
	if err := opened(to, o, told, false); err != nil {
		return fmt.Errorf("when opened again: %w", err)
	}
	if lot.IntN(4) > 0 {
		return nil
	}
	for i, e := range tp.events {
		if k := e.op.Kind; (k == journal.OpFlush || k == journal.OpSyncDir) && lot.IntN(4) == 0 {
			at := filepath.Join(scratch(t), "store")
			if err := os.MkdirAll(at, 0o700); err != nil {
				t.Fatal(err)
			}
			again.fall(t, to, at)
			err := opened(at, o, told, true)
			_ = os.RemoveAll(filepath.Dir(at))
			if err != nil {
				return fmt.Errorf("when the opening was cut before operation %d (kind %d of %s): %w", i, k, filepath.Base(e.op.Path), err)
			}
		}
		again.play(e.op)
	}
	return nil
}

// opened opens the store, looks whether the promise is kept, and puts something in.
func opened(dir string, o Options, told *promise, use bool) error {
	db, err := Open(dir, o)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := told.broken(db); err != nil || !use {
		return err
	}
	done := make(chan error, 1)
	r := Record{Sender: "z", Body: []byte("new"), To: []Dest{{Queue: "new"}}, With: []Change{{Map: "new", Key: "k", Value: []byte("v")}}}
	db.Append(context.Background(), r, func(err error) { done <- err })
	err = <-done
	if errors.Is(err, ErrFull) {
		return db.Verify()
	}
	if err != nil {
		return err
	}
	last := db.Queue("new").Stats().Last
	if err := db.Close(); err != nil {
		return err
	}
	o.disk = nil
	if db, err = Open(dir, o); err != nil {
		return fmt.Errorf("open after use: %w", err)
	}
	defer db.Close()
	if v, _ := db.Map("new").Get("k"); string(v) != "v" || db.Queue("new").Stats().Last != last {
		return fmt.Errorf("what was put in after the cut is lost")
	}
	return told.broken(db)
}

// scratch is a folder in memory where there is one: what a cut leaves is opened
// some thousand times.
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

// HOLDFAST_TEST_CUTS, a number of tapes, makes the test as long as one likes.
func tapes(t *testing.T, n int) int {
	if s := os.Getenv("HOLDFAST_TEST_CUTS"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// Whenever the power goes, what was acknowledged is there.
func TestPowerCuts(t *testing.T) {
	total := 0
	for i := range tapes(t, 4) {
		o := Options{SegmentBytes: 64 << 10, MaxBytes: 64 << 20, tiny: true, check: true, Linger: -1}
		if i%2 == 1 {
			o.MaxBytes = 5 * 64 << 10 // soon full
		}
		dir := filepath.Join(scratch(t), "store")
		seed := uint64(i) + rand.Uint64N(1<<40)
		events := record(t, dir, o, seed, 60)
		n, err := cuts(t, events, dir, o, seed, journal.Page, 4)
		_ = os.RemoveAll(filepath.Dir(dir))
		if total += n; err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cuts", total)
}

// A rig that lets one of these through proves nothing.
func TestPowerCutsCatchABrokenStore(t *testing.T) {
	segment := func(e event) bool { return len(filepath.Base(e.op.Path)) == 16 }
	for name, c := range map[string]struct {
		page   int
		change func([]event) []event
	}{
		"no flush of a frame": {journal.Page, func(es []event) []event {
			for i, e := range es {
				if e.op.Kind == journal.OpFlush && segment(e) {
					es[i].op.Kind = journal.OpList
				}
			}
			return es
		}},
		"no flush of the folder": {journal.Page, func(es []event) []event {
			for i, e := range es {
				if e.op.Kind == journal.OpSyncDir {
					es[i].op.Kind = journal.OpList
				}
			}
			return es
		}},
		// As if frames were not aligned: the page that is written to holds others.
		"frames that share a page": {4 * journal.Page, func(es []event) []event { return es }},
		"segments given up before the end of their records is durable": {journal.Page, func(es []event) []event {
			write := -1
			for i := 0; i+1 < len(es); i++ {
				switch e := es[i]; {
				case e.op.Kind == journal.OpWrite && segment(e):
					write = i
				case segment(e) && write >= 0 && (e.op.Kind == journal.OpRemove || e.op.Kind == journal.OpRename):
					drop := slices.Clone(es[i : i+2])
					copy(es[write+2:i+2], es[write:i])
					copy(es[write:], drop)
					write, i = write+2, i+1
				}
			}
			return es
		}},
	} {
		t.Run(name, func(t *testing.T) {
			caught := 0
			for seed := uint64(0); seed < 20 && caught == 0; seed++ {
				o := Options{SegmentBytes: 64 << 10, MaxBytes: 64 << 20, tiny: true, check: true, Linger: -1}
				dir := filepath.Join(scratch(t), "store")
				events := c.change(record(t, dir, o, seed, 60))
				if _, err := cuts(t, events, dir, o, seed, c.page, 4); err != nil {
					t.Log(err)
					caught++
				}
				_ = os.RemoveAll(filepath.Dir(dir))
			}
			if caught == 0 {
				t.Error("nothing was lost")
			}
		})
	}
}
