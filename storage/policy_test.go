package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// large is a record of about 400 bytes.
func large(sender string, i int, queue string, ttl time.Duration) Record {
	return Record{Sender: sender, Stamp: Stamp{Boot: 1}, Body: fmt.Appendf(nil, "%s-%d%s", sender, i, strings.Repeat(".", 400)),
		To: []Dest{{Queue: queue, TTL: ttl}}}
}

// keep appends one and says what became of it.
func keep(db *DB, r Record) error {
	done := make(chan error, 1)
	db.Append(context.Background(), r, func(err error) { done <- err })
	return <-done
}

// sums adds the ledger's rows of a queue up.
func sums(db *DB, queue string) (r Row) {
	for _, x := range db.Ledger() {
		if x.Queue == queue {
			r.Accepted, r.Evicted, r.Expired, r.Pending = r.Accepted+x.Accepted, r.Evicted+x.Evicted, r.Expired+x.Expired, r.Pending+x.Pending
		}
	}
	return r
}

// TestOwnBound: a queue that refuses takes exactly what it may, and takes more when
// something has gone; one that evicts loses its oldest, in order.
func TestOwnBound(t *testing.T) {
	db := open(t, t.TempDir(), coldOptions())
	strict, loose := db.Queue("strict"), db.Queue("loose")
	strict.SetPolicy(Policy{MaxBytes: 100_000})
	loose.SetPolicy(Policy{MaxBytes: 100_000, Evict: true})
	n := 0
	for ; n < 1000; n++ {
		if err := keep(db, large("a", n, "strict", 0)); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if got := strict.Stats().Bytes; n == 1000 || got > 100_000 || got < 99_000 {
		t.Fatalf("strict took %d records and %d bytes, want about 100,000 bytes", n, got)
	}
	for i := range 1000 {
		if err := keep(db, large("a", i, "loose", 0)); err != nil {
			t.Fatal(err)
		}
	}
	within(t, "loose is within its bound", func() bool { return loose.Stats().Bytes <= 100_000 })
	got := strip(bodies(t, loose))
	if first := fmt.Sprintf("a-%d", 1000-len(got)); len(got) < 150 || got[0] != first || got[len(got)-1] != "a-999" {
		t.Errorf("loose has %d records from %s to %s, want the newest", len(got), got[0], got[len(got)-1])
	}
	if r := sums(db, "loose"); r.Evicted != uint64(1000-len(got)) {
		t.Errorf("%d evicted, want %d", r.Evicted, 1000-len(got))
	}
	settleNow(t, strict, Delivered, 1, 2, 3)
	if err := keep(db, large("a", n, "strict", 0)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestLeastUrgentMakesWay: a store that is nearly full goes on taking what is
// urgent while there is something less urgent to let go, and only that goes.
func TestLeastUrgentMakesWay(t *testing.T) {
	dir := t.TempDir()
	o := coldOptions()
	o.MaxBytes = 24 * int64(o.SegmentBytes)
	db := open(t, dir, o)
	policies := func() {
		db.Queue("urgent").SetPolicy(Policy{Priority: 0, Evict: true})
		db.Queue("idle").SetPolicy(Policy{Priority: 9, Evict: true})
	}
	policies()
	kept, refused := 0, 0
	// Random bodies would not shrink; these do, so more goes in than MaxBytes.
	for i := 0; sums(db, "idle").Evicted < 500 && i < 60_000; i++ {
		queue := "idle"
		if i%10 == 0 {
			queue = "urgent"
		}
		r := large("a", i, queue, 0)
		r.Body = append(r.Body, noise(i, 300)...)
		switch err := keep(db, r); {
		case err == nil:
			kept++
		case errors.Is(err, ErrFull):
			refused++
			time.Sleep(time.Millisecond)
		default:
			t.Fatal(err)
		}
	}
	idle, urgent := sums(db, "idle"), sums(db, "urgent")
	if idle.Evicted < 500 || urgent.Evicted != 0 {
		t.Errorf("idle lost %d of %d, urgent %d of %d; want only idle to lose (%d kept, %d refused)", idle.Evicted, idle.Accepted, urgent.Evicted, urgent.Accepted, kept, refused)
	}
	if s := db.Stats(); s.Disk > s.MaxBytes {
		t.Errorf("it takes %d bytes of %d", s.Disk, s.MaxBytes)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir, o)
	if got := sums(db, "idle"); got != idle {
		t.Errorf("reopened: %+v, want %+v", got, idle)
	}
}

// noise is bytes that do not shrink.
func noise(seed, n int) []byte {
	b, x := make([]byte, n), uint64(seed)*2654435761+1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// timed is a clock that a test moves.
type timed struct{ now time.Duration }

func (c *timed) Now() Stamp                              { return Stamp{Boot: 1, Up: c.now} }
func (c *timed) Age(s Stamp) (least, most time.Duration) { return c.now - s.Up, c.now - s.Up }

// TestTimeToLive: zero lives for ever, less is over at once, and what is over is
// never read; packs that are over go without being read.
func TestTimeToLive(t *testing.T) {
	clock := &timed{now: time.Hour}
	o := coldOptions()
	o.Clock = clock
	db := open(t, t.TempDir(), o)
	for i, ttl := range []time.Duration{0, -1, 5 * time.Hour, 30 * time.Minute, time.Hour} {
		r := large("a", i, "up", ttl)
		r.Stamp = Stamp{Boot: 1}
		if err := keep(db, r); err != nil {
			t.Fatal(err)
		}
	}
	if got := strip(bodies(t, db.Queue("up"))); len(got) != 2 || got[0] != "a-0" || got[1] != "a-2" {
		t.Errorf("after an hour %v are read, want a-0 and a-2", got)
	}
	within(t, "three have expired", func() bool { return sums(db, "up").Expired == 3 })

	clock.now = time.Hour
	for i := range 1500 {
		r := large("b", i, "old", time.Hour)
		r.Stamp = clock.Now()
		if err := keep(db, r); err != nil {
			t.Fatal(err)
		}
	}
	within(t, "they are cold", func() bool { return db.Stats().Generations > 3 })
	db.sweep()
	if got := sums(db, "old").Expired; got != 0 {
		t.Fatalf("%d expired before their time", got)
	}
	db.mu.Lock() // the mover reads the clock under it
	clock.now = 3 * time.Hour
	db.mu.Unlock()
	db.sweep()
	within(t, "the cold ones are gone, unread", func() bool {
		s := db.Stats()
		return s.Generations <= 1 && sums(db, "old").Expired > 1000
	})
	if got := len(bodies(t, db.Queue("old"))); got != 0 {
		t.Errorf("%d of them are still read", got)
	}
}
