package generation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// slack is what badger needs beside the values: memtables, their logs, tables.
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

// makeScratch makes the folder to build in. badger writes through memory maps, and
// a full disk under a map kills the process: so the room is there before it begins.
func (s *Set) makeScratch() (string, error) {
	if err := s.emptyScratch(); err != nil {
		return "", fmt.Errorf("empty scratch: %w", err)
	}
	if s.o.Scratch != "" {
		dir := s.ramScratch()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fmt.Errorf("make scratch: %w", err)
		}
		free, err := freeBytes(dir)
		if err != nil {
			return "", fmt.Errorf("look for room in scratch: %w", err)
		}
		if free >= 3*s.o.GenerationBytes+slack {
			return dir, nil
		}
		s.log.Debug("scratch has too little room, building on disk", "scratch", dir, "free", free)
	}
	dir := s.diskScratch()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make scratch: %w", err)
	}
	free, err := freeBytes(dir)
	if err != nil {
		return "", fmt.Errorf("look for room in scratch: %w", err)
	}
	if need := 4*s.o.GenerationBytes + slack; free < need {
		return "", fmt.Errorf("scratch %s has %d bytes free, needs %d: %w", dir, free, need, ErrNoSpace)
	}
	return dir, nil
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
