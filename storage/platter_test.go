package storage

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"holdfast.dev/holdfast/storage/journal"
)

// A tape records what a store does to its disk and what it says to its user, in
// order. A platter plays it back up to a flush, just before that completes, and
// becomes what a disk might hold when the power goes then: of every page that was
// not flushed the old content, the new one, or noise; of the renames and removals
// since the last flush of the folder the first few, for a file system keeps their
// order.

// event is one line of the tape: an operation, or something said.
type event struct {
	op   journal.Op
	said func(*promise) // to be played to what the user was promised
}

type tape struct {
	mu     sync.Mutex
	events []event
}

func (t *tape) disk(op journal.Op) error {
	op.Data = slices.Clone(op.Data)
	t.mu.Lock()
	t.events = append(t.events, event{op: op})
	t.mu.Unlock()
	return nil
}

func (t *tape) say(f func(*promise)) {
	t.mu.Lock()
	t.events = append(t.events, event{said: f})
	t.mu.Unlock()
}

// file is one file of the platter: what is on disk, and what may be.
type file struct {
	data []byte
	size int
	wet  map[int][]byte // pages written since the last flush
}

// platter is a disk that is being played to.
type platter struct {
	page  int
	lot   *rand.Rand
	names map[string]*file // as the program sees them
	dry   map[string]*file // as they are on disk
	wet   []map[string]*file
}

func newPlatter(lot *rand.Rand, page int) *platter {
	return &platter{page: page, lot: lot, names: map[string]*file{}, dry: map[string]*file{}}
}

// load takes a folder as it stands for what is on disk.
func (p *platter) load(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		p.names[path] = &file{data: b, size: len(b), wet: map[int][]byte{}}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.dry = maps.Clone(p.names)
}

func (p *platter) play(op journal.Op) {
	switch op.Kind {
	case journal.OpCreate:
		p.names[op.Path] = &file{wet: map[int][]byte{}}
	case journal.OpRename:
		p.names[op.To] = p.names[op.Path]
		delete(p.names, op.Path)
	case journal.OpRemove:
		delete(p.names, op.Path)
	case journal.OpWrite:
		p.names[op.Path].write(op, p.page)
		return
	case journal.OpFlush:
		p.names[op.Path].flush(p.page)
		return
	case journal.OpSyncDir:
		p.dry, p.wet = maps.Clone(p.names), nil
		return
	default:
		return
	}
	p.wet = append(p.wet, maps.Clone(p.names))
}

func (f *file) write(op journal.Op, page int) {
	f.size = max(f.size, int(op.Off)+len(op.Data))
	for at := int(op.Off) / page; at*page < int(op.Off)+len(op.Data); at++ {
		b := f.wet[at]
		if b == nil {
			b = make([]byte, page)
			if at*page < len(f.data) {
				copy(b, f.data[at*page:])
			}
			f.wet[at] = b
		}
		from := max(0, int(op.Off)-at*page)
		copy(b[from:], op.Data[max(0, at*page-int(op.Off)):])
	}
}

func (f *file) put(at, page int, b []byte) {
	if need := (at + 1) * page; len(f.data) < need {
		f.data = append(f.data, make([]byte, need-len(f.data))...)
	}
	copy(f.data[at*page:], b)
}

func (f *file) flush(page int) {
	for at, b := range f.wet {
		f.put(at, page, b)
	}
	f.wet = map[int][]byte{}
}

// fall writes what the disk holds after the cut into a folder.
func (p *platter) fall(t *testing.T, from, to string) {
	t.Helper()
	names := p.dry
	if n := p.lot.IntN(len(p.wet) + 1); n > 0 {
		names = p.wet[n-1]
	}
	mood := p.lot.IntN(4) // all revert, all keep, all noise, each by lot
	for path, f := range names {
		g := file{data: slices.Clone(f.data)}
		for _, at := range slices.Sorted(maps.Keys(f.wet)) {
			b, do := f.wet[at], mood
			if do == 3 {
				do = p.lot.IntN(3)
			}
			switch do {
			case 1:
				g.put(at, p.page, b)
			case 2:
				n := make([]byte, p.page)
				for i := range n {
					n[i] = byte(p.lot.Uint32())
				}
				g.put(at, p.page, n)
			}
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || strings.HasPrefix(rel, "..") {
			t.Fatalf("%s is not in %s", path, from)
		}
		name := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, g.data[:min(len(g.data), f.size)], 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
