package storage

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// linger waits a little for company before a commit, if the last group had any: a
// lone client would only lose by it.
//
// First it looks on while somebody hands over, for half a commit at most, so that a
// burst is not split in two. Then, on a disk that is slow enough for a sleep not to
// count, it waits for others, a tenth of what a commit takes; if that brings nobody
// again and again, it is left out, and tried only now and then. (A sleep that was
// meant to last 27 µs cost 20 publishes under way a third of their rate; one that
// brought nobody, a tenth of a single caller's.)
func (db *DB) linger() {
	if db.lastGroup <= 1 || db.o.Linger < 0 {
		return
	}
	db.lookOn()
	d := min(db.o.Linger, db.usual/10)
	if db.tries++; d < timerSlack || db.company < 0 && db.tries%seldom != 0 {
		return
	}
	n := db.waiting()
	time.Sleep(d)
	if db.waiting() > n {
		db.company = min(db.company+1, 2)
	} else {
		db.company = max(db.company-1, -2)
	}
}

// lookOn waits while others hand over. It gives way to threads as well as to
// goroutines: the kernel likes to wake this one on the processor of the one who has
// just handed over, and who would then stand still while it is looked at.
func (db *DB) lookOn() {
	begin, gap := time.Now(), max(handover, db.usual/100)
	for n, last, looks := db.waiting(), begin, 0; looks < maxLooks; looks++ {
		runtime.Gosched()
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		now := time.Now()
		if m := db.waiting(); m != n {
			n, last = m, now
		}
		if now.Sub(last) > gap || now.Sub(begin) > db.usual/2 {
			return
		}
	}
}

const (
	// timerSlack is about what the shortest sleep really takes.
	timerSlack = 200 * time.Microsecond
	// handover is a little longer than what lies between two records that one caller
	// hands over in a row. On a slow disk it may be a hundredth of a commit: a caller
	// that is interrupted is worth more there.
	handover = 10 * time.Microsecond
	// maxLooks ends it where time stands still.
	maxLooks = 10_000
	// seldom is how often a sleep that brings nobody is tried all the same.
	seldom = 16
)

// waiting is how many requests have come into the line. It takes no lock: linger asks
// again and again, and must not stand in the way of those it waits for.
func (db *DB) waiting() int { return int(db.lined.Load()) }
