package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/storage/journal"
)

// faulty is a disk whose n-th operation fails, once.
type faulty struct {
	mu    sync.Mutex
	n     int
	count int
	what  string
}

var errDisk = errors.New("input/output error")

func (f *faulty) disk(op journal.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.count != f.n {
		return nil
	}
	f.what = fmt.Sprintf("operation %d (kind %d of %s)", f.n, op.Kind, filepath.Base(op.Path))
	return errDisk
}

func (f *faulty) fired() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.what
}

// custody is what a user of a store may count on: what was acknowledged.
type custody struct {
	t     *testing.T
	mu    sync.Mutex
	calls map[string]int // of done, by record
	acked map[string]bool
	value string // of the map's key, as acknowledged
	tried []string
}

func (c *custody) put(db *DB, body string, pad int) {
	done := make(chan struct{})
	r := Record{Sender: "a", Body: append([]byte(body+" "), make([]byte, pad)...), To: []Dest{{Queue: "up"}},
		With: []Change{{Map: "m", Key: "k", Value: []byte(body)}}}
	c.mu.Lock()
	c.tried = append(c.tried, body)
	c.mu.Unlock()
	db.Append(context.Background(), r, func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calls[body]++
		if c.calls[body] == 1 {
			close(done)
		}
		if err == nil {
			c.acked[body], c.value, c.tried = true, body, []string{body}
		}
	})
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		c.t.Fatalf("nobody answers for %s", body)
	}
}

// drain settles the first n records; they are nobody's concern any more.
func (c *custody) drain(db *DB, n int) error {
	q := db.Queue("up")
	items, _, err := q.Read(q.Checkpoint(), Limit{Records: n}, nil)
	if err != nil {
		return err
	}
	var ps []Position
	for _, it := range items {
		ps = append(ps, it.Position)
		c.mu.Lock()
		delete(c.acked, first(it.Body))
		c.mu.Unlock()
	}
	done := make(chan error, 1)
	q.Settle(ps, Delivered, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		c.t.Fatal("nobody answers for a settlement")
		return nil
	}
}

func first(body []byte) (s string) {
	_, _ = fmt.Sscan(string(body), &s)
	return s
}

// check opens the store on a sound disk and looks whether everything is there.
func (c *custody) check(dir, after string) {
	c.t.Helper()
	db, err := Open(dir, Options{SegmentBytes: 64 << 10, tiny: true, check: true})
	if err != nil {
		c.t.Fatalf("after %s: %v", after, err)
	}
	defer db.Close()
	if err := db.Verify(); err != nil {
		c.t.Errorf("after %s: %v", after, err)
	}
	q, got := db.Queue("up"), map[string]bool{}
	items, _, _ := q.Read(q.Checkpoint(), Limit{Records: 1e6}, nil)
	for _, it := range items {
		got[first(it.Body)] = true
	}
	for b := range c.acked {
		if !got[b] {
			c.t.Errorf("after %s: %s was acknowledged and is lost", after, b)
		}
	}
	if v, _ := db.Map("m").Get("k"); c.value != "" && string(v) != c.value {
		late := false
		for _, b := range c.tried {
			late = late || b == string(v)
		}
		if !late {
			c.t.Errorf("after %s: map has %q, want %q", after, v, c.value)
		}
	}
	for b, n := range c.calls {
		if n != 1 {
			c.t.Errorf("after %s: done of %s was called %d times", after, b, n)
		}
	}
	if d := db.Stats().Damage; len(d) > 0 {
		c.t.Errorf("after %s: damage %+v", after, d)
	}
}

// Every operation on the disk fails in turn. Whatever it is, nothing that was
// acknowledged is lost, every done is called once, and nothing hangs.
func TestEveryOperationFailsInTurn(t *testing.T) {
	for n := 1; ; n++ {
		f := &faulty{n: n}
		c := &custody{t: t, calls: map[string]int{}, acked: map[string]bool{}}
		dir := filepath.Join(t.TempDir(), "store")
		o := Options{SegmentBytes: 64 << 10, tiny: true, disk: f.disk, Linger: -1}
		for round := range 2 {
			db, err := Open(dir, o)
			if err != nil {
				if !errors.Is(err, errDisk) && !errors.Is(err, ErrBroken) {
					t.Fatalf("%s: Open: %v", f.fired(), err)
				}
				continue
			}
			broken := false
			for i := range 14 {
				c.put(db, fmt.Sprintf("%d-%d", round, i), 5000*(i%3))
				if i%5 == 4 {
					_ = c.drain(db, 4)
				}
				select {
				case <-db.Failed():
					broken = true
				default:
				}
			}
			if broken {
				if n := len(c.acked); n > 0 && !errors.Is(db.Err(), ErrBroken) {
					t.Errorf("%s: broken store says %v", f.fired(), db.Err())
				}
			}
			_ = db.Close()
		}
		after := f.fired()
		c.check(dir, after)
		if t.Failed() {
			t.FailNow()
		}
		if after == "" {
			t.Logf("%d operations failed in turn", n-1)
			return
		}
	}
}

// A segment that cannot be given up breaks the store; those who were told that
// their record is kept are not told anything else.
func TestDoneIsCalledOnceWhenReclaimingFails(t *testing.T) {
	var mu sync.Mutex
	fail := false
	disk := func(op journal.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if fail && (op.Kind == journal.OpRemove || op.Kind == journal.OpRename && filepath.Base(op.To) == "spare") {
			return errDisk
		}
		return nil
	}
	dir := filepath.Join(t.TempDir(), "store")
	db, err := Open(dir, Options{SegmentBytes: 64 << 10, tiny: true, disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	c := &custody{t: t, calls: map[string]int{}, acked: map[string]bool{}}
	for i := range 8 {
		c.put(db, fmt.Sprint(i), 10_000)
	}
	mu.Lock()
	fail = true
	mu.Unlock()
	for i := range 8 {
		_ = c.drain(db, 3)
		c.put(db, fmt.Sprint("late", i), 10)
	}
	if err := db.Err(); !errors.Is(err, ErrBroken) {
		t.Errorf("store says %v, want ErrBroken", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	c.check(dir, "segments that stay")
}
