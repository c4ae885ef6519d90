package generation

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast.dev/holdfast/storage/journal"
)

var errInjected = errors.New("injected")

// faults is a disk that fails.
type faults struct {
	mu    sync.Mutex
	ops   []journal.Op
	nth   int   // this operation fails, from 0; -1 none
	after bool  // and all after it
	err   error // how
}

func (f *faults) disk(op journal.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.ops)
	op.Data = nil
	f.ops = append(f.ops, op)
	if f.nth >= 0 && (n == f.nth || f.after && n > f.nth) {
		return f.err
	}
	return nil
}

// eachFault calls do with a disk whose first operation fails, then the second, until
// one never fails.
func eachFault(t *testing.T, after bool, err error, do func(t *testing.T, f *faults)) {
	for n := 0; ; n++ {
		if n > 1000 {
			t.Fatal("operations without end")
		}
		f := &faults{nth: n, after: after, err: err}
		do(t, f)
		if t.Failed() {
			t.Fatalf("with operation %d of %d failing: %+v", n, len(f.ops), f.ops[min(n, len(f.ops)-1)])
		}
		if len(f.ops) <= n {
			if n < 3 {
				t.Fatalf("only %d operations", n)
			}
			return
		}
	}
}

// Whatever fails while a generation is built: afterwards it is there as a whole and
// said to be, or it is not there, and it can be built again.
func TestBuildWithEveryFault(t *testing.T) {
	content := values(1, 300_000, 1000)
	for _, tt := range []struct {
		name  string
		after bool
		err   error
	}{
		{"one operation fails", false, errInjected},
		{"all from one on fail", true, errInjected},
		{"the disk is full once", false, unix.ENOSPC},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			eachFault(t, tt.after, tt.err, func(t *testing.T, f *faults) {
				dir := ramDir(t)
				s := open(t, dir, opts())
				s.disk = f.disk
				m, err := tryBuild(context.Background(), s, 7, content)
				s.disk = nil
				if err == nil {
					checkWhole(t, s, m, content)
				} else if len(s.Numbers()) > 0 || !errors.Is(err, tt.err) || errors.Is(tt.err, unix.ENOSPC) != errors.Is(err, ErrNoSpace) {
					t.Errorf("lists %v after %v", s.Numbers(), err)
				}
				nothingInScratch(t, s)
				failed := err != nil

				// A second process finds none or a whole one.
				s2 := open(t, dir, opts())
				if n := s2.Numbers(); len(n) > 0 {
					m, _, err := s2.Seal(7)
					if err != nil {
						t.Fatal(err)
					}
					checkWhole(t, s2, m, content)
				} else if !failed {
					t.Error("what was built is not there")
				}
				if !tt.after && failed && len(s2.Numbers()) > 0 {
					t.Error("a generation that could not be built was left behind")
				}
				if !failed {
					return
				}
				// The first one tries again.
				m, err = tryBuild(context.Background(), s, 7, content)
				if err != nil {
					t.Fatal(err)
				}
				checkWhole(t, s, m, content)
			})
		})
	}
}

func nothingInScratch(t *testing.T, s *Set) {
	t.Helper()
	if files, err := os.ReadDir(s.diskScratch()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left in scratch: %v, %v", files, err)
	}
}

// A generation is dropped as a whole, or is there as a whole.
func TestDropWithEveryFault(t *testing.T) {
	content := values(1, 1000, 100_000)
	for name, after := range map[string]bool{"one operation": false, "all from one on": true} {
		t.Run(name, func(t *testing.T) {
			eachFault(t, after, errInjected, func(t *testing.T, f *faults) {
				dir := ramDir(t)
				s := open(t, dir, opts())
				m := build(t, s, 7, content)
				checkWhole(t, s, m, content) // and so it is open
				s.disk = f.disk
				err := s.Drop(7)
				s.disk = nil
				if err == nil && (len(s.Numbers()) > 0 || s.Bytes() > 0) {
					t.Errorf("has %v after Drop", s.Numbers())
				}
				if len(s.Numbers()) > 0 {
					checkWhole(t, s, m, content)
				}
				s2 := open(t, dir, opts())
				if !slices.Equal(s.Numbers(), s2.Numbers()) {
					t.Errorf("has %v, and %v when it is opened again", s.Numbers(), s2.Numbers())
				}
				if err := s.Drop(7); err != nil {
					t.Error(err)
				}
				if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
					t.Errorf("left after Drop: %v", left)
				}
			})
		})
	}
}

// A fault of the disk is an error, and the next call has what it wants.
func TestReadWithEveryFault(t *testing.T) {
	content := values(1, 1000, 100_000)
	dir := ramDir(t)
	m := build(t, open(t, dir, opts()), 7, content)
	eachFault(t, false, errInjected, func(t *testing.T, f *faults) {
		o := opts()
		o.Disk = f.disk
		s, err := Open(dir, o)
		if err != nil {
			if !errors.Is(err, errInjected) {
				t.Error(err)
			}
			return
		}
		defer s.Close()
		for k, want := range content {
			v, err := s.Get(m, []byte(k))
			if err == nil && string(v) != string(want) || err != nil && !errors.Is(err, errInjected) {
				t.Errorf("Get gives %d bytes, %v", len(v), err)
			}
		}
		if err := s.Verify(m); err != nil && !errors.Is(err, errInjected) {
			t.Error(err)
		}
		if err := s.Verify(m); err != nil && !errors.Is(err, errInjected) {
			t.Error(err)
		}
		s.disk = nil
		checkWhole(t, s, m, content)
	})
}

func TestSetAside(t *testing.T) {
	content := values(1, 1000)
	eachFault(t, false, errInjected, func(t *testing.T, f *faults) {
		dir := ramDir(t)
		quarantine := filepath.Join(dir, "quarantine")
		if err := os.Mkdir(quarantine, 0o700); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, opts())
		m := build(t, s, 7, content)
		checkWhole(t, s, m, content)
		s.disk = f.disk
		to := filepath.Join(quarantine, "g-00000007")
		err := s.SetAside(7, to)
		s.disk = nil
		_, there := os.Stat(to)
		if (len(s.Numbers()) == 0) != (there == nil) {
			t.Errorf("has %v, and aside: %v", s.Numbers(), there)
		}
		if err != nil {
			return
		}
		if there != nil || !slices.Equal(f.kinds(), []journal.OpKind{journal.OpRename, journal.OpSyncDir, journal.OpSyncDir}) {
			t.Errorf("set aside: %v, by %+v", there, f.ops)
		}
		if err := s.SetAside(7, to); !errors.Is(err, ErrMissing) {
			t.Errorf("set aside what is not there: %v", err)
		}
	})
}

func (f *faults) kinds() []journal.OpKind {
	var kinds []journal.OpKind
	for _, op := range f.ops {
		kinds = append(kinds, op.Kind)
	}
	return kinds
}

// What a power cut may undo is never what something after it relies on.
func TestBuildOrder(t *testing.T) {
	dir := ramDir(t)
	s := open(t, dir, opts())
	f := &faults{nth: -1}
	s.disk = f.disk
	m := build(t, s, 7, values(1, 600_000, 1000))
	ops := f.ops
	tmp := s.path(7) + ".tmp"

	index := func(kind journal.OpKind, path string) int {
		t.Helper()
		i := slices.IndexFunc(ops, func(op journal.Op) bool { return op.Kind == kind && op.Path == path })
		if i < 0 {
			t.Fatalf("no operation %d of %s in %+v", kind, path, ops)
		}
		return i
	}
	seal := index(journal.OpCreate, filepath.Join(tmp, sealName))
	files := 0
	for i, op := range ops {
		if op.Kind != journal.OpWrite {
			continue
		}
		flush := index(journal.OpFlush, op.Path)
		if i > flush {
			t.Errorf("%s is written to after its flush", op.Path)
		}
		if base := filepath.Base(op.Path); base != sealName {
			files++
			if flush > seal {
				t.Errorf("%s is flushed after SEAL was begun", base)
			}
			if next := ops[i+1]; next.Kind != journal.OpWriteOut || next.Off != op.Off || next.Path != op.Path {
				t.Errorf("%s at %d is not written out", base, op.Off)
			}
		}
		if strings.Contains(op.Path, "DISCARD") || strings.Contains(op.Path, "LOCK") {
			t.Errorf("%s was copied", op.Path)
		}
	}
	order := []int{
		index(journal.OpMkdir, tmp), seal, index(journal.OpFlush, filepath.Join(tmp, sealName)),
		index(journal.OpSyncDir, tmp), index(journal.OpRename, tmp), index(journal.OpSyncDir, dir),
	}
	if !slices.IsSorted(order) || order[len(order)-1] != len(ops)-1 || files < 5 {
		t.Errorf("folder, SEAL, flush, names, rename, name: operations %v of %d", order, len(ops))
	}

	// Drop takes the name for good before it removes a file.
	f.ops = nil
	if err := s.Drop(m.Number); err != nil {
		t.Fatal(err)
	}
	ops = f.ops
	remove := slices.IndexFunc(ops, func(op journal.Op) bool { return op.Kind == journal.OpRemove })
	if !slices.IsSorted([]int{index(journal.OpRename, s.path(7)), index(journal.OpSyncDir, dir), remove}) {
		t.Errorf("Drop does %+v", ops)
	}
}
