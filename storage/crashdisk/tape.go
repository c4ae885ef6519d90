package crashdisk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// block is what ext4 writes at once here, and what a card may harm at once.
const block = 4096

// sector is what a disk promises to write as a whole, or not at all.
const sector = 512

// Tape is everything that reached a device from one moment on, in order: writes,
// completed flushes, and the marks that programs made in between.
type Tape struct {
	base   []byte // the disk as it was before, all of it durable
	events []event
}

// event is one write, one completed flush, or one mark.
type event struct {
	kind eventKind
	off  int64  // of a write
	data []byte // of a write or a mark
}

type eventKind uint8

const (
	wrote eventKind = iota + 1
	flushed
	marked
)

// Mark is what a program said, and when.
type Mark struct {
	At   int // events of the tape before it
	Text []byte
}

// Record begins a tape, with the disk as it is now: everything that waits is
// flushed first.
func (d *Disk) Record() error {
	if d.p == nil {
		return fmt.Errorf("record disk %s: it is plain, or another process serves it", d.o.Name)
	}
	dir, err := os.Open(d.Dir())
	if err != nil {
		return fmt.Errorf("record disk %s: %w", d.o.Name, err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("record disk %s: flush it before: %w", d.o.Name, err)
	}
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	d.p.tape = &Tape{base: bytes.Clone(d.p.bytes)}
	return nil
}

// Eject ends the tape and gives it.
func (d *Disk) Eject() (*Tape, error) {
	if d.p == nil {
		return nil, errors.New("eject a tape: there is none")
	}
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	t := d.p.tape
	d.p.tape = nil
	if t == nil {
		return nil, errors.New("eject a tape: there is none")
	}
	return t, nil
}

// Marks is a file that programs write to while a tape is recorded. Each write
// becomes one Mark, and when it returns, the mark stands on the tape behind
// everything that was flushed before it was made and before everything that is
// flushed later.
func (d *Disk) Marks() string { return filepath.Join(d.root, "dev", "marks") }

// Len is how many events there are.
func (t *Tape) Len() int { return len(t.events) }

// Flushes gives, for each completed flush, how many events were before it: a cut
// there is just before it completes, when most is at stake.
func (t *Tape) Flushes() []int { return t.all(flushed) }

// AtStake is how many bytes a cut after so many events finds unflushed.
func (t *Tape) AtStake(at int) (n int) {
	for i := at - 1; i >= 0 && t.events[i].kind != flushed; i-- {
		if t.events[i].kind == wrote {
			n += len(t.events[i].data)
		}
	}
	return n
}

func (t *Tape) all(k eventKind) []int {
	var at []int
	for i, e := range t.events {
		if e.kind == k {
			at = append(at, i)
		}
	}
	return at
}

// Marks gives the marks in order.
func (t *Tape) Marks() []Mark {
	at := t.all(marked)
	marks := make([]Mark, len(at))
	for i, n := range at {
		marks[i] = Mark{n, t.events[n].data}
	}
	return marks
}

// Lie gives the tape of a disk that answers each flush at once and really makes
// only one in so many, by lot. Nothing can be kept on it: it shows that cuts are
// real.
func (t *Tape) Lie(oneIn int, seed uint64) *Tape {
	lot := rand.New(rand.NewPCG(seed, 3))
	out := &Tape{base: t.base, events: slices.Clone(t.events)}
	for i, e := range out.events {
		if e.kind == flushed && lot.IntN(oneIn) > 0 {
			out.events[i] = event{} // keeps its place
		}
	}
	return out
}

func (t *Tape) write(off int64, b []byte) {
	t.events = append(t.events, event{kind: wrote, off: off, data: bytes.Clone(b)})
}

func (t *Tape) flush() { t.events = append(t.events, event{kind: flushed}) }

func (t *Tape) mark(b []byte) {
	t.events = append(t.events, event{kind: marked, data: bytes.Clone(b)})
}
