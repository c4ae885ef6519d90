package storage

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Grade says how much a wall time is worth.
type Grade uint8

const (
	GradeNone    Grade = iota // nobody knows
	GradeFloor                // not before this: build time, newest record, last seen
	GradeNetwork              // a modem's, broker's or HTTP server's clock
	GradeRTC                  // a battery-backed clock
	GradeNTP                  // disciplined, better than a second
)

// String is the grade as it stands on the wire and on the page.
func (g Grade) String() string {
	if int(g) < len(grades) {
		return grades[g]
	}
	return "unknown"
}

var grades = [...]string{"none", "floor", "network", "rtc", "ntp"}

// Stamp is one instant as a gateway without a trustworthy clock can know it. It
// is part of a record's bytes, so that an age can be told after any restart.
type Stamp struct {
	Boot  uint64        // a random id of the boot it was taken in
	Up    time.Duration // time since that boot, suspend included
	Wall  time.Time     // UTC, to the millisecond on disk
	Grade Grade         // how sure Wall is
}

// Clock tells the time and the age of a Stamp.
type Clock interface {
	Now() Stamp
	// Age gives the bounds between which s's age lies. min is what may be acted
	// on: nothing expires by a guess. max is negative where it is unknown.
	Age(s Stamp) (min, max time.Duration)
}

// SystemClock is a plain Clock for computers with a clock of their own: boot id
// and boot time from the kernel, wall time from the system clock, graded by
// whether the kernel says that somebody disciplines it.
func SystemClock() Clock { return &systemClock{boot: bootID()} }

type systemClock struct {
	boot   uint64
	graded atomic.Int64 // when the kernel was asked last, since boot
	grade  atomic.Uint32
}

func (c *systemClock) Now() Stamp {
	up := sinceBoot()
	// The kernel is asked once a second: for each message it would cost more than
	// all else that is done for that.
	if last := c.graded.Load(); last == 0 || up-time.Duration(last) > time.Second {
		c.grade.Store(uint32(systemGrade()))
		c.graded.Store(int64(up))
	}
	return Stamp{Boot: c.boot, Up: up, Wall: time.Now().UTC(), Grade: Grade(c.grade.Load())}
}

func (c *systemClock) Age(s Stamp) (min, max time.Duration) {
	now := c.Now()
	if s.Boot == now.Boot {
		age := now.Up - s.Up
		return age, age
	}
	// Another boot: at least what this one has lasted. The wall clocks tell more
	// only if both could be trusted.
	min, max = now.Up, -1
	if s.Grade >= GradeNetwork && now.Grade >= GradeNetwork {
		if d := now.Wall.Sub(s.Wall); d > min {
			min, max = d, d
		}
	}
	return min, max
}

func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("storage: clock_gettime(CLOCK_BOOTTIME): " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

func systemGrade() Grade {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err == nil && t.Status&unix.STA_UNSYNC == 0 {
		return GradeNTP
	}
	return GradeRTC // a laptop's own clock; a card's comes from hal/clock
}

func bootID() uint64 {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		b = binary.LittleEndian.AppendUint64(b, uint64(time.Now().UnixNano()))
	}
	h := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(h[:])
}
