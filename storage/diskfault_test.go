package storage

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast.dev/holdfast/storage/journal"
)

// affliction is a way in which a disk refuses: from the n-th operation of some kinds
// on, so many of them fail.
type affliction struct {
	name  string
	kinds []journal.OpKind
	err   error
	times int
}

var afflictions = []affliction{
	{"no space, once", []journal.OpKind{journal.OpCreate, journal.OpWrite, journal.OpMkdir}, unix.ENOSPC, 1},
	{"no space for a while", []journal.OpKind{journal.OpCreate, journal.OpWrite, journal.OpMkdir}, unix.ENOSPC, 30},
	{"flush fails, once", []journal.OpKind{journal.OpFlush, journal.OpSyncDir}, unix.EIO, 1},
	{"flush fails for good", []journal.OpKind{journal.OpFlush, journal.OpSyncDir}, unix.EIO, 1 << 30},
	{"anything else fails, once", []journal.OpKind{journal.OpOpen, journal.OpRead, journal.OpList, journal.OpRename, journal.OpRemove}, unix.EIO, 1},
}

// from gives a disk that fails from the n-th on, and how many such operations it saw.
func (a affliction) from(n int) (fault func(journal.Op) error, seen func() int) {
	var mu sync.Mutex
	count := 0
	return func(op journal.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if !slices.Contains(a.kinds, op.Kind) {
				return nil
			}
			if count++; count >= n && count < n+a.times {
				return a.err
			}
			return nil
		}, func() int {
			mu.Lock()
			defer mu.Unlock()
			return count
		}
}

// Every operation on the disk is refused in turn, those of generations too, and then
// the power goes. Nothing that was acknowledged is lost, and after a flush that
// failed nothing is, though later ones succeed.
func TestPowerCutsAfterEveryFault(t *testing.T) {
	c := newCampaign(t, 0)
	for _, a := range afflictions {
		t.Run(a.name, func(t *testing.T) {
			stride := 60
			if c.long {
				stride = 1
			}
			n, refused := 1+int(c.seed%uint64(stride)), 0
			for ; ; n += stride {
				o := forms[refused%len(forms)]
				w := newWorker(t, o, c.seed)
				fault, seen := a.from(n)
				w.tape.fault = fault
				w.run(2, 60)
				if seen() < n {
					break
				}
				refused++
				if err := silent(w.tape.events); err != nil {
					t.Fatalf("operation %d refused: %v", n, err)
				}
				for i, m := range losses {
					r := newRig(t, o, m, c.seed+uint64(i))
					r.oneIn, r.deep, r.last = 1000, 0, true
					if err := r.play(w.tape.events); err != nil {
						t.Fatalf("operation %d refused, %s: %v\nHOLDFAST_TEST_SEED=%d", n, m.name, err, c.seed)
					}
				}
			}
			t.Logf("%d operations of %d refused", refused, n)
			if refused == 0 {
				t.Error("nothing was refused")
			}
		})
	}
}

// silent looks that nothing is acknowledged after the flush of a frame has failed.
func silent(events []event) error {
	failed := -1
	for i, e := range events {
		if e.Failed && e.Op.Kind == journal.OpFlush && segmentPath.MatchString(e.Op.Path) {
			failed = i
		}
		if e.Word != nil && failed >= 0 && (e.Word.Kind == wordKept || e.Word.Kind == wordEnded || e.Word.Kind == wordHas || e.Word.Kind == wordParked) {
			return fmt.Errorf("%+v was said after %s had failed", *e.Word, where(failed, events[failed]))
		}
	}
	return nil
}
