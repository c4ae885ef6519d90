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
	"time"

	"holdfast.dev/holdfast/storage/generation"
	"holdfast.dev/holdfast/storage/journal"
)

// worker uses a store and says on the tape what it asks for and what it is told.
type worker struct {
	t     *testing.T
	at    string // folder of the folders that it works in
	seed  uint64
	tape  *tape
	lot   *rand.Rand
	clock *handClock
	o     Options
	db    *DB
	wait  sync.WaitGroup

	parking atomic.Bool // one is under way
	tidying sync.WaitGroup

	tally map[string]int // of what the tape is to show

	mu   sync.Mutex
	last map[string]Position // by queue, of what was acknowledged
	n    int
}

// record makes a tape of some lives of one store. They end with Close, but for some
// that are killed: the next one finds what the program saw at that moment.
func record(t *testing.T, o Options, seed uint64, lives, steps int) []event {
	t.Helper()
	return work(t, o, seed, lives, steps).tape.events
}

func work(t *testing.T, o Options, seed uint64, lives, steps int) *worker {
	t.Helper()
	w := newWorker(t, o, seed)
	w.run(lives, steps)
	return w
}

func newWorker(t *testing.T, o Options, seed uint64) *worker {
	t.Helper()
	at := scratch(t)
	t.Cleanup(func() { _ = os.RemoveAll(at) })
	w := &worker{t: t, at: at, tape: &tape{root: filepath.Join(at, "store")}, lot: rand.New(rand.NewPCG(seed, 1)), o: o, seed: seed, tally: map[string]int{},
		clock: &handClock{now: Stamp{Boot: 1, Up: time.Minute, Wall: time.UnixMilli(1e12).UTC()}}}
	w.o.Clock = w.clock
	w.o.reached = func(branch string) { w.mu.Lock(); defer w.mu.Unlock(); w.tally[branch]++ }
	return w
}

// run makes some lives, and ends with the first that a disk's fault has ended.
func (w *worker) run(lives, steps int) {
	defer os.RemoveAll(w.at)
	for life := range lives {
		if !w.open() {
			return
		}
		for i := 0; i < steps && w.db.Err() == nil; i++ {
			w.step()
		}
		w.tidying.Wait()
		w.wait.Wait()
		w.count()
		if life < lives-1 && w.tape.fault == nil && w.lot.IntN(2) == 0 {
			w.kill(filepath.Join(w.at, fmt.Sprint(life)))
			continue
		}
		if err := w.db.Verify(); err != nil {
			w.t.Fatalf("seed %d: %v", w.seed, err)
		}
		broken := w.db.Err() != nil
		if err := w.db.Close(); err != nil && !w.faulty() {
			w.t.Fatalf("seed %d: %v", w.seed, err)
		}
		if broken {
			return
		}
	}
}

// faulty says whether the disk has failed.
func (w *worker) faulty() bool {
	w.tape.mu.Lock()
	defer w.tape.mu.Unlock()
	return slices.ContainsFunc(w.tape.events, func(e event) bool { return e.Failed })
}

// count adds up what has become of records, at the end of a life.
func (w *worker) count() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally["records that moved"] += int(w.db.Stats().Moved)
	for _, r := range w.db.Ledger() {
		for what, n := range map[string]uint64{"delivered": r.Delivered, "expired": r.Expired, "evicted": r.Evicted, "discarded": r.Discarded, "parked": r.Parked} {
			w.tally[what] += int(n)
		}
	}
}

func (w *worker) open() bool {
	w.clock.pass(time.Minute, w.lot.IntN(2) == 0, w.tape.say)
	o := w.o
	o.disk = w.tape.disk
	db, err := Open(w.tape.root, o)
	if err != nil {
		if !w.faulty() {
			w.t.Fatal(err)
		}
		return false
	}
	db.mover.stop() // it works when it is told to
	if w.o.MaxBytes < 1<<20 {
		w.tape.say(word{Kind: wordEvicts, Queue: "local"})
		db.Queue("local").SetPolicy(Policy{Evict: true})
	}
	w.db, w.last = db, map[string]Position{}
	for _, q := range db.Queues() {
		w.last[q.Name()] = q.Stats().Last
	}
	return true
}

// kill ends a life as kill -9 does, some operations ago, and moves to a folder that
// holds what the program saw then.
func (w *worker) kill(to string) {
	if err := w.db.Close(); err != nil {
		w.t.Fatal(err)
	}
	end := len(w.tape.events) - w.lot.IntN(30)
	for ; end > 0 && !w.tape.events[end-1].boundary(); end-- { // what was written then is not flushed yet
	}
	end = max(0, end-1)
	p := newPlatter(w.lot, journal.Page)
	for _, e := range w.tape.events[:end] {
		if e.Word == nil {
			p.play(e.Op)
		}
	}
	w.tape = &tape{root: to, events: w.tape.events[:end:end]}
	p.show(w.t, to)
}

func (w *worker) step() {
	switch n := w.lot.IntN(45); {
	case n < 24:
		w.append()
	case n < 30:
		w.settle(2)
	case n < 32:
		w.settle([]int{1, 8, 8}[w.lot.IntN(3)])
	case n < 36:
		w.park()
	case n < 40:
		w.parkOne()
	case n < 41:
		w.expire()
	case n < 44:
		w.tidy()
	default:
		w.clock.pass(time.Duration(w.lot.IntN(5))*time.Minute, false, w.tape.say)
	}
}

func (w *worker) append() {
	s := []string{"a", "b", "c"}[w.lot.IntN(3)]
	w.n++
	body := fmt.Sprintf("%s %d %s", s, w.n, strings.Repeat("x", w.lot.IntN(2)*w.lot.IntN(4)*w.lot.IntN(3000)))
	r := Record{Sender: s, Stamp: w.clock.Now(), Body: []byte(body)}
	ttl := []time.Duration{0, 0, 0, 5 * time.Minute}[w.lot.IntN(4)]
	for _, q := range [][]string{{"up"}, {"up"}, {"local"}, {"up", "local"}}[w.lot.IntN(4)] {
		r.To = append(r.To, Dest{Queue: q, TTL: ttl})
		w.tape.say(word{Kind: wordTried, Queue: q, Text: body})
	}
	if w.lot.IntN(3) == 0 {
		key, value := fmt.Sprint("k", w.lot.IntN(5)), fmt.Sprint(w.n, strings.Repeat("v", 1000+w.lot.IntN(1500)))
		w.wait.Wait()
		r.With = []Change{{Map: "m", Key: key, Value: []byte(value)}}
		w.tape.say(word{Kind: wordMay, Name: key, Text: value})
		defer w.wait.Wait()
	}
	w.wait.Add(1)
	w.db.Append(w.t.Context(), r, func(err error) { defer w.wait.Done(); w.appended(r, err) })
}

func (w *worker) appended(r Record, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range r.To {
		said := word{Kind: wordKept, Queue: d.Queue, Text: string(r.Body), Stamp: r.Stamp, TTL: d.TTL}
		switch {
		case err == nil:
			w.last[d.Queue]++
			said.Positions = []Position{w.last[d.Queue]}
		case errors.Is(err, ErrFull):
			said.Kind = wordRefused
		default:
			continue
		}
		w.tape.say(said)
	}
	for _, c := range r.With {
		if err == nil {
			w.tape.say(word{Kind: wordHas, Name: c.Key, Text: string(c.Value)})
		}
	}
}

// settle ends what is read of a queue: one in two of it, all but one in eight, or all.
func (w *worker) settle(but int) {
	w.wait.Wait()
	name := []string{"up", "up", "local"}[w.lot.IntN(3)]
	var ps []Position
	for _, it := range w.read(name) {
		if but == 1 || w.lot.IntN(but) > 0 {
			ps = append(ps, it.Position)
		}
	}
	w.lot.Shuffle(len(ps), func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
	w.end(name, ps, []Outcome{Delivered, Delivered, Discarded, Evicted}[w.lot.IntN(4)], w.lot.IntN(3) > 0)
}

// tidy does what the mover does, beside what follows or before it.
func (w *worker) tidy() {
	w.tidying.Wait()
	w.tidying.Add(1)
	go func() {
		defer w.tidying.Done()
		w.db.sweep()
		for more := true; more; {
			var err error
			if more, err = w.db.tidy(context.Background()); err != nil && w.db.Err() == nil && !w.faulty() && !errors.Is(err, ErrFull) && !errors.Is(err, generation.ErrNoSpace) {
				w.t.Errorf("tidy: %v", err)
			}
		}
	}()
	if w.lot.IntN(2) == 0 {
		w.tidying.Wait()
	}
}

// expire ends what has lived its time, as a forwarder does when it meets it.
func (w *worker) expire() {
	w.wait.Wait()
	for _, name := range []string{"up", "local"} {
		var ps []Position
		for _, it := range w.read(name) {
			if age, _ := w.clock.Age(it.Stamp); it.TTL > 0 && age > it.TTL {
				ps = append(ps, it.Position)
			}
		}
		w.end(name, ps, Expired, true)
	}
}

func (w *worker) read(name string) []Item {
	q := w.db.Queue(name)
	items, _, err := q.Read(q.Checkpoint(), Limit{Records: 1000}, nil)
	if err != nil && !w.faulty() {
		w.t.Error(err)
	}
	return items
}

func (w *worker) end(name string, ps []Position, o Outcome, wait bool) {
	q := w.db.Queue(name)
	w.tape.say(word{Kind: wordEnding, Queue: name, Positions: ps})
	if !wait {
		q.Settle(ps, o, nil)
		return
	}
	w.wait.Add(1)
	q.Settle(ps, o, func(err error) {
		defer w.wait.Done()
		if err == nil {
			w.tape.say(word{Kind: wordEnded, Queue: name, Positions: ps})
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
	w.tape.say(word{Kind: wordParking, Queue: "up", Name: s})
	done := func(err error) {
		defer w.parking.Store(false)
		if err == nil {
			w.tape.say(word{Kind: wordParked, Queue: "up", Name: s, Is: !is})
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
		w.end("local", []Position{p}, Discarded, false)
	}
}
