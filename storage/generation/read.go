package generation

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
)

// maxOpen is how many databases are open at once: each takes ten goroutines, five
// descriptors, and its files in address space.
const maxOpen = 4

// errPanic says that badger panicked.
var errPanic = errors.New("badger panicked")

// reader is an open database.
type reader struct {
	db   *badger.DB
	mark Mark // that it was compared with
}

func (r *reader) close() error {
	return guard(r.db.Close)
}

// Get gives a value as it was put, in memory of its own; it is never empty. Errors:
// ErrMissing if there is no such generation; ErrDamaged if it is not what m says, or
// the value is not there or not what it was; ErrVersion; and those of the disk.
func (s *Set) Get(m Mark, key []byte) ([]byte, error) {
	value, err := s.get(m, key)
	if err != nil {
		return nil, fmt.Errorf("read from generation %d: %w", m.Number, err)
	}
	return value, nil
}

func (s *Set) get(m Mark, key []byte) ([]byte, error) {
	e, err := s.use(m.Number)
	if err != nil {
		return nil, err
	}
	defer s.leave(e)
	r, err := s.reader(e, m)
	if err != nil {
		return nil, err
	}
	value, err := r.get(key)
	if errors.Is(err, errPanic) {
		s.abandon(e, r)
		return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	return value, err
}

// get reads a value from badger and opens it while badger keeps it mapped.
func (r *reader) get(key []byte) (value []byte, err error) {
	err = guard(func() error {
		return r.db.View(func(txn *badger.Txn) error {
			item, err := txn.Get(key)
			if errors.Is(err, badger.ErrKeyNotFound) {
				return fmt.Errorf("key %x is not there: %w", key, ErrDamaged)
			}
			if err != nil {
				return fmt.Errorf("look for key %x: %w: %w", key, err, ErrDamaged)
			}
			return item.Value(func(packed []byte) error {
				value, err = openValue(packed, key)
				return err
			})
		})
	})
	return value, err
}

// abandon forgets a database in which badger panicked. It is not closed: badger may
// hold a lock that Close waits for. Its goroutines and maps stay until the process
// ends, which is why the caller sets such a generation aside.
func (s *Set) abandon(e *entry, r *reader) {
	s.mu.Lock()
	if e.reader == r {
		e.reader = nil
		s.open--
	}
	s.mu.Unlock()
	s.changed.Broadcast()
}

// reader gives the open database of a generation that is in use, and opens it if
// need be. For the fifth the one is closed that was not used for longest.
func (s *Set) reader(e *entry, m Mark) (*reader, error) {
	s.mu.Lock()
	var idle *reader
	for {
		if e.reader != nil {
			s.tick++
			e.used = s.tick
			r := e.reader
			s.mu.Unlock()
			return r, r.is(m)
		}
		if !e.opening {
			if s.open < maxOpen {
				s.open++
				break
			}
			if idle = s.takeIdle(); idle != nil {
				break
			}
		}
		s.changed.Wait()
	}
	e.opening = true
	s.mu.Unlock()

	if idle != nil {
		if err := idle.close(); err != nil {
			s.log.Debug("generation did not close well", "err", err)
		}
	}
	r, err := s.openReader(m)

	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Broadcast()
	e.opening = false
	if err != nil {
		s.open--
		return nil, err
	}
	s.tick++
	e.reader, e.used = r, s.tick
	return r, nil
}

// takeIdle takes the database that nobody uses and that was not used for longest
// from its generation. Its place goes to the caller, who closes it.
func (s *Set) takeIdle() *reader {
	var oldest *entry
	for _, e := range s.have {
		if e.reader != nil && e.users == 0 && !e.away && (oldest == nil || e.used < oldest.used) {
			oldest = e
		}
	}
	if oldest == nil {
		return nil
	}
	r := oldest.reader
	oldest.reader = nil
	return r
}

// is says whether the database is the one that the journal speaks of.
func (r *reader) is(m Mark) error {
	if r.mark != m {
		return fmt.Errorf("sum %08x and %d bytes, the journal speaks of %08x and %d: %w",
			r.mark.Sum, r.mark.Bytes, m.Sum, m.Bytes, ErrDamaged)
	}
	return nil
}

// openReader compares what badger believes without looking with SEAL, and only then
// lets it open the database: harmed tables make it panic in goroutines of its own.
func (s *Set) openReader(m Mark) (*reader, error) {
	valueLog := func(f file) bool { return strings.HasSuffix(f.name, ".vlog") }
	seal, err := s.compare(m, func(f file) bool { return !valueLog(f) })
	if err != nil {
		return nil, err
	}
	for _, f := range seal.files {
		if valueLog(f) {
			if err := s.checkValueLogHead(filepath.Join(s.path(m.Number), f.name)); err != nil {
				return nil, err
			}
		}
	}
	r := &reader{mark: m}
	err = guard(func() error {
		r.db, err = badger.Open(s.forReading(s.path(m.Number)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open database: %w", harm(err))
	}
	return r, nil
}

// checkValueLogHead looks at the one part of a value log that no value's sum covers:
// the number of the key it is encrypted with, which is none.
func (s *Set) checkValueLogHead(path string) error {
	f, err := s.disk.OpenRead(path)
	if err != nil {
		return harm(err)
	}
	defer f.Close()
	var key [8]byte
	if n, err := s.disk.ReadAt(f, key[:], 0); n < len(key) {
		return fmt.Errorf("read head of %s: %w", filepath.Base(path), harm(err))
	}
	if key != [8]byte{} {
		return fmt.Errorf("head of %s is wrong: %w", filepath.Base(path), ErrDamaged)
	}
	return nil
}
