// Package generation keeps what was not drained soon in small badger databases,
// each written once: built aside, closed, copied, flushed, sealed, renamed, and from
// then on only read. A database that is never written in place cannot be harmed by a
// power cut, and gives its space back as a whole.
//
//	{folder}/g-%08d/       a generation: badger's files and SEAL, which is written last
//	{folder}/g-%08d.tmp/   an unfinished or dropped one, removed when the set is opened
//	{folder}/scratch/      where one is built when the RAM disk is too small for it
//
// A Set is the generations of one folder. Build makes one, Get reads a value, Drop
// gives one back. What a journal remembers of a generation is its Mark: it is only
// read while what lies on the disk is what the Mark says.
//
// badger does not report damage by itself: a harmed file may open as an empty
// database, and a harmed value be empty without an error. So nothing it says is
// believed. Its files are compared with SEAL before it opens them, all but the value
// log, and a value is believed by its own checksum.
//
// It knows keys and values, not what is in them. Other files of the folder are left
// alone. One thing stays after Close: a database in which badger panicked, as on a
// page that the disk can no longer read, keeps its goroutines and maps until the
// process ends.
package generation

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"holdfast.dev/holdfast/storage/journal"
)

var (
	// ErrDamaged says that a value, SEAL or another file is missing or not what it
	// was. What is wrong is in the text.
	ErrDamaged = errors.New("generation is damaged")
	// ErrNoSpace says that neither the scratch folder nor the disk has room for
	// another generation. Nothing was left behind.
	ErrNoSpace = errors.New("no space for another generation")
	// ErrMissing says that there is no such generation.
	ErrMissing = errors.New("no such generation")
	// ErrVersion says that a newer version made it: it is whole, and cannot be read.
	ErrVersion = errors.New("generation was made by a newer version")
	// ErrClosed says that the Set was closed.
	ErrClosed = errors.New("set of generations is closed")
)

// Options of a Set. StoreID must be set.
type Options struct {
	StoreID uint64       // a generation of another store is refused
	Disk    journal.Disk // sees what is done in the folder; not what badger does in scratch
	// Scratch is a folder on a RAM disk in which generations are built, in a folder of
	// the store's own; "" builds beside the others. Where it has too little room, the
	// disk is taken.
	Scratch string
	// GenerationBytes is what one should hold, of keys and packed values; it may be
	// exceeded by a quarter. 1 MiB to 256 MiB; 0 is 16 MiB.
	GenerationBytes int64
	// Hurry says whether a build should not rest between two slices; nil: never.
	Hurry func() bool
	Log   *slog.Logger // nil discards
}

// Mark identifies a sealed generation: what a journal says of it must be what is on disk.
type Mark struct {
	Number uint32
	Sum    uint32 // CRC-32C of SEAL but for its last four bytes, which hold it
	Bytes  int64  // of all its files
}

// Set is the generations of a folder. All its methods may be called at once.
type Set struct {
	dir  string
	o    Options
	disk journal.Disk
	log  *slog.Logger

	building sync.Mutex // held by the one Build

	mu      sync.Mutex // guards what follows
	changed sync.Cond  // of mu: a user left, a database was opened or closed
	have    map[uint32]*entry
	open    int    // databases that are open, being opened or being closed
	tick    uint64 // of the last use
	closed  bool
}

// entry is a generation that is on disk, or on its way there.
type entry struct {
	bytes   int64
	users   int     // calls that are reading it; it is neither closed nor removed meanwhile
	away    bool    // is being made, moved or removed: nobody new reads it
	reader  *reader // nil while it is not open
	opening bool
	used    uint64 // tick of the last use
}

// Open lists the generations in dir, which it makes if need be, and removes what an
// earlier process did not finish. It reads none of them: that is for Seal.
func Open(dir string, o Options) (*Set, error) {
	if o.GenerationBytes == 0 {
		o.GenerationBytes = 16 << 20
	}
	if o.GenerationBytes < 1<<20 || o.GenerationBytes > 256<<20 {
		return nil, fmt.Errorf("open generations %s: generations of %d bytes: must be 1 MiB to 256 MiB", dir, o.GenerationBytes)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Set{dir: dir, o: o, disk: o.Disk, log: o.Log, have: map[uint32]*entry{}}
	s.changed.L = &s.mu
	if err := s.list(); err != nil {
		return nil, fmt.Errorf("open generations %s: %w", dir, err)
	}
	return s, nil
}

func (s *Set) list() error {
	if _, err := os.Stat(s.dir); errors.Is(err, fs.ErrNotExist) {
		if err := s.disk.Mkdir(s.dir); err != nil {
			return err
		}
		if err := s.disk.SyncDir(filepath.Dir(s.dir)); err != nil {
			return err
		}
	}
	if err := s.emptyScratch(); err != nil {
		return err
	}
	files, err := s.disk.List(s.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		name, unfinished := strings.CutSuffix(f.Name(), ".tmp")
		number, ok := numberOf(name)
		if !ok || !f.IsDir() {
			continue
		}
		if unfinished {
			if err := s.removeTree(filepath.Join(s.dir, f.Name())); err != nil {
				return err
			}
			continue
		}
		e := &entry{}
		if e.bytes, err = s.size(number); err != nil {
			return err
		}
		s.have[number] = e
	}
	return nil
}

// size adds up the files of a generation.
func (s *Set) size(number uint32) (int64, error) {
	files, err := s.disk.List(s.path(number))
	if err != nil {
		return 0, err
	}
	var n int64
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return 0, err
		}
		n += info.Size()
	}
	return n, nil
}

func (s *Set) path(number uint32) string {
	return filepath.Join(s.dir, fmt.Sprintf("g-%08d", number))
}

// numberOf is the inverse of path's last part.
func numberOf(name string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, "g-")
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), ok && err == nil && name == fmt.Sprintf("g-%08d", n)
}

// Numbers gives the generations that are on disk, in order.
func (s *Set) Numbers() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var numbers []uint32
	for n, e := range s.have {
		if !e.away {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// Bytes gives what all generations take on disk.
func (s *Set) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n int64
	for _, e := range s.have {
		n += e.bytes
	}
	return n
}

// Close waits for the calls that are under way, and closes what is open. A Build
// ends as its context does.
func (s *Set) Close() error {
	s.mu.Lock()
	s.closed = true
	for s.busy() {
		s.changed.Wait()
	}
	var open []*reader
	for _, e := range s.have {
		if e.reader != nil {
			open = append(open, e.reader)
			e.reader = nil
		}
	}
	s.open -= len(open)
	s.mu.Unlock()
	var errs []error
	for _, r := range open {
		errs = append(errs, r.close())
	}
	return errors.Join(errs...)
}

// busy says whether a call is under way.
func (s *Set) busy() bool {
	for _, e := range s.have {
		if e.users > 0 || e.away {
			return true
		}
	}
	return false
}

// use keeps a generation where it is until leave is called.
func (s *Set) use(number uint32) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	e := s.have[number]
	if e == nil || e.away {
		return nil, ErrMissing
	}
	e.users++
	return e, nil
}

func (s *Set) leave(e *entry) {
	s.mu.Lock()
	e.users--
	s.mu.Unlock()
	s.changed.Broadcast()
}
