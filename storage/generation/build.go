package generation

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/klauspost/compress/zstd"
)

// commitBytes is how much badger is given at once: what it holds in memory.
const commitBytes = 256 << 10

// limit is what may be put into a generation, a quarter more than it should hold.
func (s *Set) limit() int64 {
	return s.o.GenerationBytes + s.o.GenerationBytes/4
}

// Build makes a generation. fill puts what it is to hold, each key once, of 1 to 256
// bytes, no value empty, and gives a directory of it, which Seal gives back. Key
// and value are the caller's again after put. When Build returns without an error,
// the generation is on the disk and a power cut does not harm it; with one, nothing
// is left of it. It can then be built again.
//
// Errors: ErrNoSpace; ctx's; fill's; those of the disk. Builds come one after another.
func (s *Set) Build(ctx context.Context, number uint32, fill func(put func(key, value []byte) error) (directory []byte, err error)) (m Mark, err error) {
	s.building.Lock()
	defer s.building.Unlock()
	if err := s.begin(number); err != nil {
		return Mark{}, fmt.Errorf("build generation %d: %w", number, err)
	}
	defer func() { s.end(number, m) }() // also if fill panics
	if m, err = s.build(ctx, number, fill); err != nil {
		err = fmt.Errorf("build generation %d: %w", number, noSpace(err))
		if rerr := s.remove(number); rerr != nil {
			err = fmt.Errorf("%w; remove what was built of it: %w", err, rerr)
		}
	}
	return m, err
}

// begin keeps the number for the build, and everybody else from it.
func (s *Set) begin(number uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.have[number] != nil {
		return errors.New("there is one of this number")
	}
	s.have[number] = &entry{away: true}
	return nil
}

// end lists what was built; the zero Mark says that nothing was.
func (s *Set) end(number uint32, m Mark) {
	s.mu.Lock()
	delete(s.have, number)
	if m != (Mark{}) {
		s.have[number] = &entry{bytes: m.Bytes}
	}
	s.mu.Unlock()
	s.changed.Broadcast()
}

func (s *Set) build(ctx context.Context, number uint32, fill func(put func(key, value []byte) error) ([]byte, error)) (Mark, error) {
	// What an earlier attempt could not remove.
	if err := s.remove(number); err != nil {
		return Mark{}, err
	}
	defer func() {
		if rerr := s.emptyScratch(); rerr != nil { // the next build tries again
			s.log.Debug("scratch was not emptied", "err", rerr)
		}
	}()
	at, err := s.makeScratch()
	if err != nil {
		return Mark{}, err
	}
	directory, err := s.fill(ctx, at, fill)
	if err != nil {
		return Mark{}, err
	}
	return s.seal(ctx, number, at.db, directory)
}

// fill makes the database in scratch.
func (s *Set) fill(ctx context.Context, at scratch, fill func(put func(key, value []byte) error) ([]byte, error)) (directory []byte, err error) {
	w := &writer{ctx: ctx, at: at, room: s.limit()}
	if w.enc, err = newEncoder(); err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	if err := guard(func() error {
		w.db, err = badger.Open(s.forBuilding(at.db))
		return err
	}); err != nil {
		return nil, fmt.Errorf("open database in scratch: %w", err)
	}
	defer func() { // also if fill panics
		cerr := errors.Join(at.release(), guard(w.db.Close))
		if cerr != nil && err == nil {
			err = fmt.Errorf("close database in scratch: %w", cerr)
		}
	}()
	if directory, err = fill(w.put); err != nil {
		return nil, err
	}
	return directory, w.finish()
}

// writer gives badger what is put, a transaction at a time.
type writer struct {
	ctx   context.Context
	at    scratch
	db    *badger.DB
	enc   *zstd.Encoder
	room  int64 // that is left of the limit
	arena []byte
	batch []*badger.Entry
	err   error // the first one: no generation without what could not be put
}

// put packs a value and keeps it for the next transaction.
func (w *writer) put(key, value []byte) error {
	if w.err == nil {
		w.err = w.add(key, value)
	}
	return w.err
}

func (w *writer) add(key, value []byte) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if len(key) == 0 || len(key) > maxKey || len(value) == 0 {
		return fmt.Errorf("put key %.32x of %d bytes with a value of %d: a key has 1 to %d, a value at least 1", key, len(key), len(value), maxKey)
	}
	if int64(len(value)) > 2*w.room+slack {
		return fmt.Errorf("put key %x: value of %d bytes is larger than what is left of the generation", key, len(value))
	}
	at := len(w.arena)
	w.arena = append(w.arena, key...)
	mid := len(w.arena)
	w.arena = appendValue(w.arena, w.enc, key, value)
	// Slices of an arena that grew keep the old one alive, with the same bytes.
	e := badger.NewEntry(w.arena[at:mid:mid], w.arena[mid:len(w.arena):len(w.arena)])
	w.room -= int64(len(w.arena)-at) + entryBytes
	if w.room < 0 {
		return fmt.Errorf("put key %x: generation is full, it may hold a quarter more than GenerationBytes", key)
	}
	w.batch = append(w.batch, e)
	if len(w.arena) >= commitBytes || len(w.batch) >= commitEntries {
		return w.commit()
	}
	return nil
}

const (
	maxKey        = 256 // bytes
	entryBytes    = 64  // that badger adds to a key and its value, in log, table and index
	commitEntries = 256 // of maxKey and a value kept in a table: 82 of the 157 KB it takes at once
)

// commit gives the batch to badger. Before, it looks whether there is room for it:
// others may have filled the disk since the build began.
func (w *writer) commit() error {
	if err := w.at.needs(int64(len(w.arena)) + slack/2); err != nil {
		return err
	}
	err := guard(func() error {
		txn := w.db.NewTransaction(true)
		defer txn.Discard()
		for _, e := range w.batch {
			if err := txn.SetEntry(e); err != nil {
				return fmt.Errorf("put key %x: %w", e.Key, err)
			}
		}
		return txn.Commit()
	})
	if err != nil {
		return fmt.Errorf("write to database in scratch: %w", err)
	}
	clear(w.batch)
	w.batch, w.arena = w.batch[:0], w.arena[:0]
	return nil
}

func (w *writer) finish() error {
	if w.err == nil && len(w.batch) > 0 {
		w.err = w.commit()
	}
	return w.err
}
