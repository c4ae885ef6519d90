package generation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// slack is what badger needs beside the values and their keys: one half for the
// memtables' logs while it is filled, the other, the reserve, for the tables that
// Close writes. It writes one table at a time and then removes the log it is made of.
const slack = 4 << 20 // bytes

// ramScratch is the folder of this store on the RAM disk, diskScratch the one beside
// the generations. Both are badger's while it builds, and nothing in them counts.
func (s *Set) ramScratch() string {
	return filepath.Join(s.o.Scratch, fmt.Sprintf("%016x", s.o.StoreID))
}

func (s *Set) diskScratch() string {
	return filepath.Join(s.dir, "scratch")
}

func (s *Set) emptyScratch() error {
	var err error
	if s.o.Scratch != "" {
		err = os.RemoveAll(s.ramScratch())
	}
	return errors.Join(err, os.RemoveAll(s.diskScratch()))
}

// scratch is the folder of one build.
type scratch struct {
	dir     string // holds the other two
	db      string // folder of the database
	reserve string // file that takes half the slack until Close needs it
}

// makeScratch makes the folder to build in. badger writes through memory maps, and
// a full disk under a map kills the process: so the room is there before it begins.
func (s *Set) makeScratch() (scratch, error) {
	if err := s.emptyScratch(); err != nil {
		return scratch{}, fmt.Errorf("empty scratch: %w", err)
	}
	if s.o.Scratch != "" {
		at, err := makeScratchAt(s.ramScratch(), 3*s.o.GenerationBytes+slack)
		if !errors.Is(err, ErrNoSpace) {
			return at, err
		}
		s.log.Debug("building on disk", "err", err)
	}
	return makeScratchAt(s.diskScratch(), 4*s.o.GenerationBytes+slack)
}

func makeScratchAt(dir string, need int64) (scratch, error) {
	at := scratch{dir: dir, db: filepath.Join(dir, "db"), reserve: filepath.Join(dir, "reserve")}
	if err := os.MkdirAll(at.db, 0o700); err != nil {
		return scratch{}, fmt.Errorf("make scratch: %w", noSpace(err))
	}
	if err := at.needs(need); err != nil {
		return scratch{}, err
	}
	f, err := os.Create(at.reserve)
	if err != nil {
		return scratch{}, fmt.Errorf("make reserve in scratch: %w", noSpace(err))
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, slack/2)
	if errors.Is(err, unix.EOPNOTSUPP) { // then only the looks before each write help
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return scratch{}, fmt.Errorf("make reserve in scratch: %w", noSpace(err))
	}
	return at, nil
}

// needs is ErrNoSpace when less than so many bytes are free.
func (at scratch) needs(bytes int64) error {
	free, err := freeBytes(at.dir)
	if err != nil {
		return fmt.Errorf("look for room in scratch: %w", err)
	}
	if free < bytes {
		return fmt.Errorf("scratch %s has %d bytes free, needs %d: %w", at.dir, free, bytes, ErrNoSpace)
	}
	return nil
}

// release gives the reserve to badger's Close, which writes its last tables: also
// when the build is given up because others filled the disk.
func (at scratch) release() error {
	return os.Remove(at.reserve)
}

// freeBytes gives what may still be written to the disk that path is on.
func freeBytes(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// noSpace names a full disk so that a caller can tell it.
func noSpace(err error) error {
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("%w: %w", err, ErrNoSpace)
	}
	return err
}
