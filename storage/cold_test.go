package storage

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// coldOptions make the mover work after a few hundred records.
func coldOptions() Options {
	return Options{SegmentBytes: 64 << 10, Ring: 4, MaxBytes: 512 * 64 << 10, tiny: true, check: true}
}

// within waits until ok, or fails.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func numbered(sender string, from, n int) (out []string) {
	for i := from; i < from+n; i++ {
		out = append(out, fmt.Sprintf("%s-%d", sender, i))
	}
	return out
}

// strip takes the filler off that makes records large.
func strip(bodies []string) (out []string) {
	for _, b := range bodies {
		out = append(out, strings.TrimRight(b, "."))
	}
	return out
}

func addLarge(t *testing.T, db *DB, sender string, from, n int, queues ...string) {
	t.Helper()
	done := make(chan error, n)
	for i := from; i < from+n; i++ {
		r := Record{Sender: sender, Stamp: db.o.Clock.Now(), Body: fmt.Appendf(nil, "%s-%d%s", sender, i, strings.Repeat(".", 400))}
		for _, q := range queues {
			r.To = append(r.To, Dest{Queue: q, Note: []byte(q)})
		}
		db.Append(context.Background(), r, func(err error) { done <- err })
	}
	for range n {
		if err := <-done; err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
}

// TestBacklogBecomesCold: what is not drained moves into generations, is read in
// order from there, survives restarts, and its space comes back when it is settled.
func TestBacklogBecomesCold(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, coldOptions())
	for i := range 20 {
		addLarge(t, db, "a", i*100, 100, "up", "sleeping")
		addLarge(t, db, "b", i*100, 50, "up")
	}
	within(t, "the journal is short", func() bool { s := db.Stats(); return s.Segments <= 3 && s.Generations > 3 })
	check := func(when string) {
		t.Helper()
		if got, want := strip(bodies(t, db.Queue("sleeping"))), numbered("a", 0, 2000); !slices.Equal(got, want) {
			t.Fatalf("%s: sleeping has %d records, want %d: %.200v", when, len(got), len(want), got)
		}
		if got := bodies(t, db.Queue("up")); len(got) != 3000 {
			t.Fatalf("%s: up has %d records, want 3000", when, len(got))
		}
		if err := db.Verify(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	check("moved")
	reopen := func() {
		t.Helper()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, coldOptions())
		if s := db.Stats(); len(s.Damage) > 0 {
			t.Fatalf("reopened: damage %+v", s.Damage)
		}
	}
	reopen()
	check("reopened")

	up := db.Queue("up")
	r := rand.New(rand.NewSource(1))
	var ps []Position
	for p := Position(1); p <= 3000; p++ {
		ps = append(ps, p)
	}
	r.Shuffle(len(ps), func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
	settleNow(t, up, Delivered, ps[:2500]...)
	if err := db.Verify(); err != nil {
		t.Fatal(err)
	}
	reopen()
	up = db.Queue("up")
	if got := bodies(t, up); len(got) != 500 {
		t.Fatalf("up has %d records, want 500", len(got))
	}
	settleNow(t, up, Delivered, ps[2500:]...)
	sleeping := db.Queue("sleeping")
	if got := len(bodies(t, sleeping)); got != 2000 {
		t.Fatalf("sleeping has %d records, want 2000", got)
	}
	var all []Position
	for p := Position(1); p <= 2000; p++ {
		all = append(all, p)
	}
	settleNow(t, sleeping, Discarded, all...)
	within(t, "the space is back", func() bool {
		left, _ := filepath.Glob(filepath.Join(dir, "g-*"))
		return db.Stats().Generations == 0 && len(left) == 0
	})
	reopen()
	for _, row := range db.Ledger() {
		if row.Balance() != 0 || row.Pending+row.Parked+row.Damaged != 0 {
			t.Errorf("ledger: %+v", row)
		}
	}
}

// TestParkedStayBehindCold: parked records and senders stay parked when they move,
// and after restarts.
func TestParkedStayBehindCold(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, coldOptions())
	q := db.Queue("up")
	addLarge(t, db, "a", 0, 50, "up")
	q.ParkRecord(7, "bad")
	q.Park("b", "refused", nil)
	for i := range 20 {
		addLarge(t, db, "b", i*100, 100, "up")
	}
	within(t, "it has moved", func() bool { return db.Stats().Generations > 2 && db.Stats().Segments <= 3 })
	q.ParkRecord(9, "bad too")
	for range 3 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, coldOptions())
		q = db.Queue("up")
		if got := q.ParkedRecords(); len(got) != 2 || got[0] != (ParkedRecord{7, "a", "bad"}) || got[1] != (ParkedRecord{9, "a", "bad too"}) {
			t.Fatalf("parked records: %+v", got)
		}
		if got := len(bodies(t, q)); got != 48 {
			t.Fatalf("%d records to be read, want 48", got)
		}
		addLarge(t, db, "b", 0, 300, "up") // pictures come and go
	}
	q.Unpark("b", nil)
	q.UnparkRecord(7)
	q.UnparkRecord(9)
	within(t, "they are read", func() bool { return len(bodies(t, q)) == 50+2000+900 })
}

// TestLeftoversMerge: one record that nobody takes does not hold a generation.
func TestLeftoversMerge(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, coldOptions())
	for i := range 60 {
		addLarge(t, db, "a", i*100, 100, "up")
	}
	within(t, "it has moved", func() bool { return db.Stats().Generations >= 20 && db.Stats().Segments <= 3 })
	var ps []Position
	for p := Position(1); p <= 6000; p++ {
		if p%100 != 0 {
			ps = append(ps, p)
		}
	}
	settleNow(t, db.Queue("up"), Delivered, ps...)
	within(t, "they are merged", func() bool { return db.Stats().Generations < manyPoor })
	if got := bodies(t, db.Queue("up")); len(got) != 60 {
		t.Fatalf("%d records, want 60", len(got))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir, coldOptions())
	if got := bodies(t, db.Queue("up")); len(got) != 60 || len(db.Stats().Damage) != 0 {
		t.Fatalf("%d records, want 60; damage %v", len(got), db.Stats().Damage)
	}
}

// peek reads the record at p, whatever its state.
func (q *Queue) peek(p Position) (Item, error) {
	f, _ := q.scan(p-1, Limit{Records: 1}, func(uint32, state) bool { return true }, false)
	if len(f) == 0 || f[0].pos != p {
		return Item{}, fmt.Errorf("position %d is not there", p)
	}
	return q.load(f[0])
}

// TestDamageIsReportedOnce: a generation that is gone costs its records, says so at
// the next opening, and not again.
func TestDamageIsReportedOnce(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, coldOptions())
	for i := range 10 {
		addLarge(t, db, "a", i*100, 100, "up")
	}
	within(t, "it has moved", func() bool { s := db.Stats(); return s.Generations > 2 && s.Segments <= 3 })
	addLarge(t, db, "a", 1000, 10, "up")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(dir, "g-*"))
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	if err := os.Remove(filepath.Join(all[1], "SEAL")); err != nil {
		t.Fatal(err)
	}
	o := coldOptions()
	o.check = false // which takes damage for a fault of replay
	var damaged uint64
	for life := range 3 {
		db = open(t, dir, o)
		r := db.Ledger()[0]
		switch s := db.Stats(); {
		case life == 0 && (len(s.Damage) == 0 || r.Damaged == 0):
			t.Fatalf("damage %v, row %+v", s.Damage, r)
		case life == 0:
			damaged = r.Damaged
		case len(s.Damage) > 0 || r.Damaged != damaged:
			t.Errorf("opened again: damage %v, %d records, want none new and %d", s.Damage, r.Damaged, damaged)
		}
		if got := len(bodies(t, db.Queue("up"))); uint64(got) != 1010-damaged {
			t.Errorf("%d records are read, want %d", got, 1010-damaged)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPackThatEndedStaysEnded: where the segments that a move came from are still
// there and its generation has gone with all its packs, replay lets the records go
// with their packs.
func TestPackThatEndedStaysEnded(t *testing.T) {
	dir := t.TempDir()
	o := coldOptions()
	db := open(t, dir, o)
	q := db.Queue("up")
	addLarge(t, db, "a", 0, 100, "up")
	for i := range 10 {
		addLarge(t, db, "a", 100+i*100, 100, "up")
	}
	within(t, "it has moved", func() bool { s := db.Stats(); return s.Generations > 2 && s.Segments <= 3 })
	// As the journal says it, to a queue that still has the records hot.
	k := q.cold[0]
	c := &endPack{q: q, k: k, outcome: Evicted}
	db.mu.Lock()
	c.encode(db, db.group())
	db.mu.Unlock()
	fresh := &DB{o: db.o, live: map[uint32]int{}, generations: map[uint32]*sealed{}, ledger: map[rowKey]*Row{}, byID: map[uint32]*Queue{},
		byName: map[string]*Queue{}, numbers: map[string]uint32{}}
	again := fresh.newQueue(q.id, "up")
	who := fresh.number("a")
	for range k.last + 5 {
		again.push(entry{segment: 1, length: 400, who: who})
		row := fresh.row(who, q.id)
		row.Accepted++
		row.Pending++
	}
	c.q = again
	c.apply(fresh)
	row := fresh.row(who, q.id)
	if row.Balance() != 0 || row.Pending != 5 || again.base != k.last+1 || len(again.entries) != 5 {
		t.Errorf("row %+v, base %d, %d entries; want 5 pending behind %d", *row, again.base, len(again.entries), k.last)
	}
}

// TestRingIsKept: what comes faster than it can be moved waits, so that the journal
// stays a ring, and nobody waits for ever.
func TestRingIsKept(t *testing.T) {
	db := open(t, t.TempDir(), coldOptions())
	most := 0
	for i := range 80 {
		addLarge(t, db, "a", i*100, 100, "up", "other")
		n, _ := db.j.Segments()
		most = max(most, n)
	}
	// What had passed before the gate was shut is beyond the ring: some segments where they
	// are as small as here. Without the gate it would be a hundred and more.
	if s := db.Stats(); most > 4*db.o.Ring || s.Generations < 10 {
		t.Errorf("the journal had up to %d segments, want at most 4 times %d; %d generations", most, db.o.Ring, s.Generations)
	}
	if got := len(bodies(t, db.Queue("up"))); got != 8000 {
		t.Errorf("%d records, want 8000", got)
	}
	// A gate that is shut lets those go who give up, and all when the store closes.
	db.mover.stop()
	db.mover.helps.Store(true)
	var waits atomic.Int32
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		done := make(chan error, 200)
		waits.Add(200)
		go func() {
			defer cancel()
			for i := range 200 {
				db.Append(ctx, large("b", i, "up", 0), func(err error) { done <- err; waits.Add(-1) })
			}
		}()
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "all are answered", func() bool { return waits.Load() == 0 })
}
