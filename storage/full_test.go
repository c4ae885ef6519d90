package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast.dev/holdfast/storage/journal"
)

func tiny(t *testing.T, o Options) *DB {
	t.Helper()
	o.SegmentBytes, o.tiny, o.check = 64<<10, true, true
	return open(t, filepath.Join(t.TempDir(), "store"), o)
}

// try appends one record and says what became of it.
func try(t *testing.T, db *DB, r Record) error {
	t.Helper()
	done := make(chan error, 2)
	db.Append(context.Background(), r, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("nobody answers")
		return nil
	}
}

// More ends than a frame can hold at once.
func TestManyEndsAtOnce(t *testing.T) {
	db := tiny(t, Options{})
	const n = 60_000
	var wg sync.WaitGroup
	wg.Add(n)
	r := Record{Sender: "a", Body: []byte("x"), To: []Dest{{Queue: "up"}}}
	for range n {
		db.Append(context.Background(), r, func(error) { wg.Done() })
	}
	wg.Wait()
	var every []Position
	for p := Position(2); p <= n; p += 2 {
		every = append(every, p)
	}
	settleNow(t, db.Queue("up"), Delivered, every...)
	if s := db.Queue("up").Stats(); s.Pending != n/2 || db.Err() != nil {
		t.Errorf("pending %d, want %d; store says %v", s.Pending, n/2, db.Err())
	}
}

// One record opens more queues than a page has room for names, wherever in a
// segment that falls.
func TestManyNewQueuesAtOnce(t *testing.T) {
	db := tiny(t, Options{})
	for i := range 30 {
		r := Record{Sender: "a", Body: []byte("x")}
		for k := range 60 {
			r.To = append(r.To, Dest{Queue: fmt.Sprintf("%s-%d-%d", strings.Repeat("q", 100), i, k)})
		}
		if err := try(t, db, r); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}

// The picture alone takes more than a segment; the store goes on, and is the same
// when it is opened again.
func TestStateThatNeedsMoreThanASegment(t *testing.T) {
	o := Options{SegmentBytes: 64 << 10, tiny: true, check: true}
	dir := filepath.Join(t.TempDir(), "store")
	db := open(t, dir, o)
	for i := range 600 {
		add(t, db, "a", i, 1, fmt.Sprintf("%s-%d", strings.Repeat("q", 150), i))
	}
	for range 2 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, dir, o)
	}
	if n := len(db.Queues()); n != 600 {
		t.Errorf("%d queues, want 600", n)
	}
	if err := db.Verify(); err != nil {
		t.Error(err)
	}
}

// A full store still forgets, parks, lets go and, in the end, drains, however often
// something small happens meanwhile.
func TestFullStoreIsNeverStuck(t *testing.T) {
	db := tiny(t, Options{MaxBytes: 4 * 64 << 10})
	q := db.Queue("up")
	if err := db.Map("m").Set(context.Background(), map[string][]byte{"k": []byte("v")}); err != nil {
		t.Fatal(err)
	}
	r := Record{Sender: "a", Body: make([]byte, 3000), To: []Dest{{Queue: "up"}}}
	kept := 0
	for {
		err := try(t, db, r)
		if errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kept++
	}
	if err := db.Map("m").Set(context.Background(), map[string][]byte{"k": nil}); err != nil {
		t.Errorf("a full store does not forget: %v", err)
	}
	var parks atomic.Int64
	for i := range 100 {
		q.Park("b", fmt.Sprint("refused", i), func(error) { parks.Add(1) })
		q.Unpark("b", nil)
		q.ParkRecord(Position(i%kept+1), "strange")
		q.UnparkRecord(Position(i%kept + 1))
		settleNow(t, q, Delivered, 1<<40) // there is no such record, and nothing to wait for
		if err := try(t, db, r); !errors.Is(err, ErrFull) {
			t.Fatalf("full store says %v", err)
		}
	}
	for p := Position(1); p <= Position(kept); p += 8 {
		settleNow(t, q, Delivered, p, p+1, p+2, p+3, p+4, p+5, p+6, p+7)
	}
	if err := try(t, db, r); err != nil {
		t.Errorf("after the drain: %v", err)
	}
	if n := parks.Load(); n != 100 {
		t.Errorf("%d parkings were answered, want 100", n)
	}
}

// The disk itself is full: appends are refused, all the rest goes on, and what has
// drained is room again.
func TestFullDisk(t *testing.T) {
	var full atomic.Bool
	disk := func(op journal.Op) error {
		if full.Load() && (op.Kind == journal.OpCreate || op.Kind == journal.OpWrite && strings.HasSuffix(op.Path, ".tmp")) {
			return unix.ENOSPC
		}
		return nil
	}
	db := tiny(t, Options{disk: disk})
	r := Record{Sender: "a", Body: make([]byte, 3000), To: []Dest{{Queue: "up"}}}
	full.Store(true)
	kept := 0
	for {
		err := try(t, db, r)
		if errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if kept++; kept > 1000 {
			t.Fatal("never full")
		}
	}
	q := db.Queue("up")
	if n := len(bodies(t, q)); n != kept {
		t.Errorf("%d records, want %d", n, kept)
	}
	for range 3 {
		for p := q.Checkpoint() + 1; p <= q.Stats().Last; p += 8 {
			settleNow(t, q, Delivered, p, p+1, p+2, p+3, p+4, p+5, p+6, p+7)
		}
		for i := range 3 {
			if err := try(t, db, r); err != nil {
				t.Errorf("record %d after the drain: %v", i, err)
			}
		}
	}
}
