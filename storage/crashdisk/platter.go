package crashdisk

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Delay is how long a device takes over what it is asked for, one thing after the
// other. Reading takes no time.
type Delay struct {
	Write     time.Duration // each write
	PerSecond int64         // bytes written in a second; no limit if zero
	Flush     time.Duration // each flush
}

// SDCard is a model of a flash card of the common sort: 0.8 ms a write, 15 MB/s,
// 8 ms a flush. It is a model; no card was measured for it.
func SDCard() Delay {
	return Delay{Write: 800 * time.Microsecond, PerSecond: 15e6, Flush: 8 * time.Millisecond}
}

func (d Delay) of(bytes int) time.Duration {
	t := d.Write
	if d.PerSecond > 0 {
		t += time.Duration(int64(bytes) * int64(time.Second) / d.PerSecond)
	}
	return t
}

// platter is what the device's bytes are written on: shared memory, so that it is
// not counted as this process's own and pages that are never written cost nothing.
type platter struct {
	turn  sync.Mutex // one thing after the other, in time; guards delay and busy
	delay Delay
	busy  time.Duration // until when, on the monotonic clock

	mu    sync.Mutex // guards all below
	bytes []byte     // nil: gone
	n     Counts
	tape  *Tape // being recorded, or nil
	past  *past // being replayed, or nil
}

func newPlatter(size int64) (*platter, error) {
	fd, err := unix.MemfdCreate("holdfast-crashdisk", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("reserve memory for a disk: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, size); err != nil {
		return nil, fmt.Errorf("reserve %d bytes of memory for a disk: %w", size, err)
	}
	b, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of memory for a disk: %w", size, err)
	}
	return &platter{bytes: b}, nil
}

func (p *platter) release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.bytes
	p.bytes = nil
	return unix.Munmap(b)
}

// within says whether a range is on the disk, and the disk still there.
func (p *platter) within(off int64, n int) bool {
	return off >= 0 && n >= 0 && off <= int64(len(p.bytes))-int64(n)
}

func (p *platter) read(b []byte, off int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.within(off, len(b)) {
		return false
	}
	copy(b, p.bytes[off:])
	return true
}

func (p *platter) write(b []byte, off int64) bool {
	p.takes(func(d Delay) time.Duration { return d.of(len(b)) })
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.within(off, len(b)) {
		return false
	}
	copy(p.bytes[off:], b)
	p.n.Writes++
	p.n.Bytes += uint64(len(b))
	p.past.touch(off, len(b))
	if p.tape != nil {
		p.tape.write(off, b)
	}
	return true
}

// flush makes what was written before durable: what a tape says between two flushes
// is what the second one covers.
func (p *platter) flush() bool {
	p.takes(func(d Delay) time.Duration { return d.Flush })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n.Flushes++
	if p.tape != nil {
		p.tape.flush()
	}
	return p.bytes != nil
}

// mark notes what a program says, between the writes that came before and after.
func (p *platter) mark(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tape != nil {
		p.tape.mark(b)
	}
}

func (p *platter) received() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// slow makes the device take its time from now on.
func (p *platter) slow(d Delay) {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.delay = d
}

// takes waits for its turn and then for as long as the device takes. A wait that
// was too long, as they all are a little, is taken off the next one that is already
// there: a busy device must not be slower than it says.
func (p *platter) takes(cost func(Delay) time.Duration) {
	asked := monotonic()
	p.turn.Lock()
	defer p.turn.Unlock()
	end, waits := p.ends(asked, cost(p.delay))
	if !waits {
		return
	}
	until := unix.NsecToTimespec(int64(end))
	for {
		// time.Sleep rounds what is below a millisecond up to one.
		err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &until, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// ends says when the device is done with what it was asked for at a time. Called
// with turn held.
func (p *platter) ends(asked, cost time.Duration) (end time.Duration, waits bool) {
	if cost == 0 {
		return asked, false
	}
	p.busy = max(p.busy, asked) + cost
	return p.busy, true
}

func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("crashdisk: clock_gettime(CLOCK_MONOTONIC): " + err.Error()) // every Linux has it
	}
	return time.Duration(ts.Nano())
}
