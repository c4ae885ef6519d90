package generation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Drop removes a generation; what it took is free afterwards. It waits for those who
// read it. One that is not there is no error. After an error it may be called again.
func (s *Set) Drop(number uint32) error {
	if err := s.take(number, func() error { return s.remove(number) }); err != nil {
		return fmt.Errorf("drop generation %d: %w", number, err)
	}
	return nil
}

// SetAside moves a damaged generation to the path to, whose parent must exist, so
// that it can be looked into. ErrMissing if there is none.
func (s *Set) SetAside(number uint32, to string) error {
	err := s.take(number, func() error {
		err := s.disk.Rename(s.path(number), to)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", err, ErrMissing)
		}
		if err != nil {
			return err
		}
		// The new name first: between the two it may have both, but never none.
		if err := s.disk.SyncDir(filepath.Dir(to)); err != nil {
			return err
		}
		return s.disk.SyncDir(s.dir)
	})
	if err != nil {
		return fmt.Errorf("set generation %d aside: %w", number, err)
	}
	return nil
}

// take lets nobody new read a generation, waits for the others, closes it, and does
// what moves it. If it is still there afterwards, it may be read again.
func (s *Set) take(number uint32, move func() error) error {
	s.mu.Lock()
	e := s.have[number]
	for e != nil && e.away { // another call is at it
		s.changed.Wait()
		e = s.have[number]
	}
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	if e == nil {
		e = &entry{}
		s.have[number] = e
	}
	e.away = true
	for e.users > 0 {
		s.changed.Wait()
	}
	r := e.reader
	e.reader = nil
	s.mu.Unlock()

	var err error
	if r != nil {
		if cerr := r.close(); cerr != nil {
			s.log.Debug("generation did not close well", "number", number, "err", cerr)
		}
	}
	err = move()
	_, still := os.Lstat(s.path(number))

	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Broadcast()
	if r != nil {
		s.open--
	}
	e.away = false
	if still != nil {
		delete(s.have, number)
	}
	return err
}

// remove takes the name from a generation, makes that durable, and then removes its
// files: one that has its name has all its files.
func (s *Set) remove(number uint32) error {
	path, tmp := s.path(number), s.path(number)+".tmp"
	if _, err := os.Lstat(path); err == nil {
		if err := s.removeTree(tmp); err != nil {
			return err
		}
		if err := s.disk.Rename(path, tmp); err != nil {
			return err
		}
	} else if _, err := os.Lstat(tmp); err != nil {
		return nil
	}
	if err := s.disk.SyncDir(s.dir); err != nil {
		return err
	}
	return s.removeTree(tmp)
}

// removeTree removes a folder and its files. One that is not there is no error.
func (s *Set) removeTree(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	files, err := s.disk.List(path)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := s.disk.Remove(filepath.Join(path, f.Name())); err != nil {
			return err
		}
	}
	return s.disk.Remove(path)
}
