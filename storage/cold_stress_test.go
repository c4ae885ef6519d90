package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"holdfast.dev/holdfast/storage/journal"
)

// coldStore has 600 records of one sender in one queue, most of them cold, and
// was opened anew.
func coldStore(t *testing.T, dir string) (*DB, *Queue) {
	t.Helper()
	db := open(t, dir, coldOptions())
	for i := range 6 {
		addLarge(t, db, "a", i*100, 100, "up")
	}
	within(t, "it has moved", func() bool { s := db.Stats(); return s.Segments <= 2 && s.Generations > 1 })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir, coldOptions())
	return db, db.Queue("up")
}

// What ends with its pack is not ended or parked once more by those who came for it
// before and are committed after.
func TestEndThatComesAfterThePack(t *testing.T) {
	dir := t.TempDir()
	db, q := coldStore(t, dir)
	by := map[uint32][]Position{}
	q.settling([]Position{1, 2, 3}, by)
	done := make(chan error, 1)
	wait := func(c change) {
		t.Helper()
		db.submit(&request{changes: []change{c}, done: func(err error) { done <- err }, spans: 1})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	db.mu.Lock()
	db.endPack(q.cold[0], Evicted, func(err error) { done <- err })
	last := q.cold[0].last
	db.mu.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for who, ps := range by {
		wait(&settle{q: q, who: who, outcome: Delivered, spans: spansOf(append(ps, last+1))})
		wait(&parkRecord{q: q, who: who, pos: 4, reason: "late"})
	}
	for _, when := range []string{"at once", "reopened"} {
		if err := db.Verify(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if r := db.Ledger()[0]; r.Delivered != 1 || r.Evicted != uint64(last) || r.Parked != 0 {
			t.Errorf("%s: ledger %+v", when, r)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, coldOptions())
	}
}

// A settlement that a full store refuses leaves cold records as they were.
func TestRefusedEndOfColdRecords(t *testing.T) {
	db, q := coldStore(t, t.TempDir())
	ps := []Position{1, 2, 300}
	q.ParkRecord(300, "bad")
	settleNow(t, q, Delivered, 599) // the parking is committed before it
	by := map[uint32][]Position{}
	for left := ps; len(left) > 0; {
		left = q.settling(left, by)
	}
	for who, ps := range by {
		db.unsettle(&request{changes: []change{&settle{q: q, who: who, spans: spansOf(ps)}}})
	}
	items, _, err := q.Read(0, Limit{Records: 2}, nil)
	if err != nil || len(items) != 2 || items[0].Position != 1 || items[1].Position != 2 {
		t.Errorf("read %+v, %v", items, err)
	}
	q.UnparkRecord(300)
	settleNow(t, q, Delivered, ps...)
	if r := db.Ledger()[0]; r.Delivered != 4 || r.Parked != 0 {
		t.Errorf("ledger %+v", r)
	}
}

// A move makes the room that a parking waits for: it may pass it.
func TestMovePassesParkingThatWaits(t *testing.T) {
	db := &DB{aside: []*request{{again: true}}}
	batch := []*request{{again: true, alone: true}, {again: true}}
	verdict := make([]error, 2)
	db.queueUp(batch, verdict)
	if verdict[0] != nil || verdict[1] != errLater {
		t.Errorf("verdict %v", verdict)
	}
}

// Positions in any order end, and only a few packs are in memory for that.
func TestEndsInAnyOrder(t *testing.T) {
	db, q := coldStore(t, t.TempDir())
	for left := slices.Sorted(slices.Values(scattered(500))); len(left) > 0; {
		c, n := q.contents(left)
		if len(c) > contentsPacks || n == 0 {
			t.Fatalf("%d packs at once, for %d positions", len(c), n)
		}
		left = left[n:]
	}
	settleNow(t, q, Delivered, scattered(500)...)
	if r := db.Ledger()[0]; r.Delivered != 500 {
		t.Errorf("ledger %+v", r)
	}
}

func scattered(n int) (ps []Position) {
	for i := range n {
		ps = append(ps, Position(1+i*7%n))
	}
	return ps
}

// When the frame that commits a move rots as the newest, and its source is gone, what
// was moved is taken in all the same.
func TestMoveWhoseFrameRotsAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, coldOptions())
	for i := 0; db.Stats().Generations < 3; i++ {
		addLarge(t, db, "a", i*100, 20, "up")
	}
	within(t, "the journal is short", func() bool { return db.Stats().Segments <= 2 })
	want := len(bodies(t, db.Queue("up")))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(dir, "journal", "????????????????"))
	file := segments[len(segments)-1]
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for off := 0; off < len(b); off += journal.Page {
		if string(b[off:off+4]) == "HFJ1" {
			last = off
		}
	}
	harm(t, file, last+50, []byte{0xaa, 0x55, 0xaa})
	o := coldOptions()
	o.check = false
	db = open(t, dir, o)
	if got := len(bodies(t, db.Queue("up"))); got != want {
		t.Errorf("%d records are left of %d: %s", got, want, fmt.Sprint(db.Stats().Damage))
	}
}

// A generation that cannot be removed for the moment does not keep those behind it
// on the disk until the store is opened again.
func TestRemovalThatFailsForgetsNone(t *testing.T) {
	dir := t.TempDir()
	db, _ := coldStore(t, dir)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var fails, failed atomic.Bool
	fails.Store(true)
	o := coldOptions()
	o.disk = func(op journal.Op) error {
		if op.Kind == journal.OpRename && filepath.Ext(op.To) == ".tmp" && fails.Load() {
			failed.Store(true)
			return errors.New("input/output error")
		}
		return nil
	}
	db = open(t, dir, o)
	settleNow(t, db.Queue("up"), Delivered, scattered(600)...)
	within(t, "a removal has failed, and the mover rests for ten seconds", func() bool {
		db.mu.Lock()
		defer db.mu.Unlock()
		left := 0
		for _, g := range db.generations {
			left += g.n
		}
		return failed.Load() && left == 0 && len(db.dropped) > 0
	})
	fails.Store(false)
	if _, err := db.tidy(context.Background()); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "g-*")); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
}
