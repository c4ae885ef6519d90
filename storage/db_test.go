package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func open(t *testing.T, dir string, o Options) *DB {
	t.Helper()
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 1 << 20
	}
	db, err := Open(dir, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Verify(); err != nil {
			t.Errorf("Verify: %v", err)
		}
		_ = db.Close()
	})
	return db
}

// add appends n numbered records and waits for all of them.
func add(t *testing.T, db *DB, sender string, from, n int, queues ...string) {
	t.Helper()
	var wg sync.WaitGroup
	for i := from; i < from+n; i++ {
		r := Record{Sender: sender, Stamp: db.o.Clock.Now(), Body: fmt.Appendf(nil, "%s-%d", sender, i)}
		for _, q := range queues {
			r.To = append(r.To, Dest{Queue: q})
		}
		wg.Add(1)
		db.Append(context.Background(), r, func(err error) {
			defer wg.Done()
			if err != nil {
				t.Errorf("Append: %v", err)
			}
		})
	}
	wg.Wait()
}

func bodies(t *testing.T, q *Queue) []string {
	t.Helper()
	var out []string
	for after := q.Checkpoint(); ; {
		items, next, err := q.Read(after, Limit{Records: 100}, nil)
		if err != nil {
			t.Fatalf("Read: %v", err)
		}
		for _, it := range items {
			out = append(out, string(it.Body))
		}
		if next == after {
			return out
		}
		after = next
	}
}

// settleNow settles and waits for the disk.
func settleNow(t *testing.T, q *Queue, o Outcome, ps ...Position) {
	t.Helper()
	done := make(chan error, 1)
	q.Settle(ps, o, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatalf("Settle: %v", err)
	}
}

func TestReopenFindsWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, Options{})
	add(t, db, "a", 1, 5, "up", "local")
	add(t, db, "b", 1, 2, "up")
	settleNow(t, db.Queue("up"), Delivered, 1, 3)
	settleNow(t, db.Queue("local"), Expired, 2)
	db.Unrouted("c")
	if err := db.Map("m").Set(context.Background(), map[string][]byte{"k": []byte("v"), "gone": []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := db.Map("m").Set(context.Background(), map[string][]byte{"gone": nil}); err != nil {
		t.Fatal(err)
	}
	before := db.Ledger()
	check := func(db *DB) {
		t.Helper()
		if got, want := fmt.Sprint(bodies(t, db.Queue("up"))), "[a-2 a-4 a-5 b-1 b-2]"; got != want {
			t.Errorf("up holds %s, want %s", got, want)
		}
		if got, want := fmt.Sprint(bodies(t, db.Queue("local"))), "[a-1 a-3 a-4 a-5]"; got != want {
			t.Errorf("local holds %s, want %s", got, want)
		}
		if got, want := fmt.Sprint(db.Ledger()), fmt.Sprint(before); got != want {
			t.Errorf("ledger\n%s, want\n%s", got, want)
		}
		if v, ok := db.Map("m").Get("k"); string(v) != "v" || !ok {
			t.Errorf("map has k = %q, %v", v, ok)
		}
		if _, ok := db.Map("m").Get("gone"); ok {
			t.Errorf("map still has a key that was removed")
		}
		if c := db.Queue("up").Checkpoint(); c != 1 {
			t.Errorf("checkpoint %d, want 1", c)
		}
	}
	check(db)
	for range 3 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, Options{})
		check(db)
	}
}

func TestParkedSendersAndRecordsStayParked(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, Options{})
	add(t, db, "a", 1, 3, "up")
	add(t, db, "b", 1, 3, "up")
	q := db.Queue("up")
	q.Park("a", "refused", nil)
	q.ParkRecord(5, "too strange")
	add(t, db, "a", 4, 1, "up")
	for range 2 {
		if got, want := fmt.Sprint(bodies(t, q)), "[b-1 b-3]"; got != want {
			t.Errorf("readable %s, want %s", got, want)
		}
		if s := q.Stats(); s.Pending != 2 || s.Parked != 5 {
			t.Errorf("pending %d, parked %d, want 2 and 5", s.Pending, s.Parked)
		}
		if p := q.Parked(); p["a"] != "refused" {
			t.Errorf("parked senders %v", p)
		}
		if p := q.ParkedRecords(); len(p) != 1 || p[0] != (ParkedRecord{5, "b", "too strange"}) {
			t.Errorf("parked records %v", p)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, Options{})
		q = db.Queue("up")
	}
	q.Unpark("a", nil)
	q.UnparkRecord(5)
	settleNow(t, q, Delivered, 4)
	if n, a, b := q.Unparked(), q.UnparkedOf("a"), q.UnparkedOf("b"); n != 2 || a != 1 || b != 1 {
		t.Errorf("unparked %d, of a %d, of b %d", n, a, b)
	}
	if p := q.ParkedRecords(); len(p) != 0 {
		t.Errorf("still parked: %v", p)
	}
	if got, want := fmt.Sprint(bodies(t, q)), "[a-1 a-2 a-3 b-2 b-3 a-4]"; got != want {
		t.Errorf("readable after unparking %s, want %s", got, want)
	}
}

func TestReadPassesOverSenders(t *testing.T) {
	db := open(t, t.TempDir(), Options{})
	for i := range 3 {
		add(t, db, "a", i, 1, "up")
		add(t, db, "b", i, 1, "up")
	}
	items, next, err := db.Queue("up").Read(1, Limit{Records: 2}, func(s string) bool { return s == "a" })
	if err != nil || len(items) != 2 || items[0].Position != 2 || items[1].Position != 4 || next != 4 {
		t.Errorf("Read gave %+v, next %d, %v", items, next, err)
	}
}

func TestSettledIsNotReadAgain(t *testing.T) {
	db := open(t, t.TempDir(), Options{})
	add(t, db, "a", 1, 3, "up")
	q := db.Queue("up")
	q.Settle([]Position{2}, Delivered, nil) // rides later, and yet
	if got, want := fmt.Sprint(bodies(t, q)), "[a-1 a-3]"; got != want {
		t.Errorf("readable %s, want %s", got, want)
	}
	q.Settle([]Position{2, 99}, Expired, nil)
	settleNow(t, q, Delivered, 1)
	if r := db.Ledger()[0]; r.Delivered != 2 || r.Expired != 0 || r.Pending != 1 {
		t.Errorf("ledger %+v", r)
	}
}

func TestSpaceComesBack(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, Options{})
	body := []byte(strings.Repeat("x", 10_000))
	q := db.Queue("up")
	for round := range 10 {
		var wg sync.WaitGroup
		for range 80 {
			wg.Add(1)
			db.Append(context.Background(), Record{Sender: "a", Body: body, To: []Dest{{Queue: "up"}}}, func(err error) {
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				wg.Done()
			})
		}
		wg.Wait()
		items, _, _ := q.Read(q.Checkpoint(), Limit{Records: 80}, nil)
		var ps []Position
		for _, it := range items {
			ps = append(ps, it.Position)
		}
		settleNow(t, q, Delivered, ps...)
	}
	if s := db.Stats(); s.Segments > 2 {
		t.Errorf("%d segments are kept after the drain, want 2 at most", s.Segments)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir, Options{})
	if r := db.Ledger()[0]; r.Accepted != 800 || r.Delivered != 800 {
		t.Errorf("ledger %+v", r)
	}
	add(t, db, "a", 1, 1, "up")
	if c := db.Queue("up").Stats(); c.Last != 801 {
		t.Errorf("position %d after reopening, want 801", c.Last)
	}
}

func TestFullStoreRefusesAndDrains(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir, Options{MaxBytes: 4 << 20})
	body := []byte(strings.Repeat("x", 50_000))
	put := func() error {
		done := make(chan error, 1)
		db.Append(context.Background(), Record{Sender: "a", Body: body, To: []Dest{{Queue: "up"}}}, func(err error) { done <- err })
		return <-done
	}
	kept := 0
	var err error
	for ; err == nil; kept++ {
		err = put()
		if kept > 200 {
			t.Fatal("never full")
		}
	}
	kept--
	if !errors.Is(err, ErrFull) {
		t.Fatalf("full store says %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir, Options{MaxBytes: 4 << 20})
	q := db.Queue("up")
	if n := len(bodies(t, q)); n != kept {
		t.Errorf("%d records kept, want %d", n, kept)
	}
	for p := Position(1); p <= Position(kept); p++ {
		settleNow(t, q, Delivered, p)
	}
	if err := put(); err != nil {
		t.Errorf("after the drain: %v", err)
	}
}

func TestForeignLockedAndDamagedFoldersAreRefused(t *testing.T) {
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "letter.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(foreign, Options{}); !errors.Is(err, ErrForeign) {
		t.Errorf("foreign folder: %v", err)
	}
	if names, _ := os.ReadDir(foreign); len(names) != 1 {
		t.Errorf("foreign folder was written to: %v", names)
	}

	dir := t.TempDir()
	db := open(t, dir, Options{})
	add(t, db, "a", 1, 10, "up")
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("locked folder: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "STORE")); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir, Options{}) // the copy serves
	if n := len(bodies(t, db.Queue("up"))); n != 10 {
		t.Errorf("%d records after STORE was lost", n)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(dir, "journal", "0*"))
	for _, s := range segments {
		if err := os.Rename(s, s+".away"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, Options{SegmentBytes: 1 << 20}); !errors.Is(err, ErrDamaged) {
		t.Errorf("store without segments: %v", err)
	}
}

// A backlog that has drained gives its memory back, however much was added since.
func TestDrainedBacklogGivesMemoryBack(t *testing.T) {
	q := &Queue{db: &DB{live: map[uint32]int{}}, base: 1}
	for range 1 << 17 {
		q.push(entry{length: 1})
	}
	for p := Position(1); p <= 1<<17-100; p++ {
		q.end(p, 0)
	}
	if c := cap(q.entries) + q.gone; c > 4096 {
		t.Errorf("100 records hold the memory of %d", c)
	}
	if q.base != 1<<17-99 || len(q.entries) != 100 {
		t.Errorf("base %d, %d entries", q.base, len(q.entries))
	}
}
