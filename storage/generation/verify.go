package generation

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// slice is what is copied, and compared, at a time.
const slice = 256 << 10

// Seal reads SEAL and looks whether each file is there with its size. It gives the
// Mark and the directory that fill gave to Build. Cheap: no database is opened.
// Errors: ErrMissing, ErrDamaged, ErrVersion, and those of the disk.
func (s *Set) Seal(number uint32) (Mark, []byte, error) {
	e, err := s.use(number)
	if err != nil {
		return Mark{}, nil, fmt.Errorf("read seal of generation %d: %w", number, err)
	}
	defer s.leave(e)
	seal, err := s.readSeal(number)
	if err != nil {
		return Mark{}, nil, fmt.Errorf("read seal of generation %d: %w", number, err)
	}
	return seal.mark(), seal.directory, nil
}

// Verify reads all of a generation and compares it with SEAL, and SEAL with m.
// Errors as of Seal.
func (s *Set) Verify(m Mark) error {
	e, err := s.use(m.Number)
	if err == nil {
		_, err = s.compare(m, func(file) bool { return true })
		s.leave(e)
	}
	if err != nil {
		return fmt.Errorf("verify generation %d: %w", m.Number, err)
	}
	return nil
}

// compare reads SEAL and the files that are chosen, and says what is not as it was.
func (s *Set) compare(m Mark, chosen func(file) bool) (*seal, error) {
	seal, err := s.readSeal(m.Number)
	if err != nil {
		return nil, err
	}
	if seal.mark() != m {
		return nil, fmt.Errorf("SEAL has sum %08x and %d bytes, the journal speaks of %08x and %d: %w",
			seal.sum, seal.bytes, m.Sum, m.Bytes, ErrDamaged)
	}
	for _, f := range seal.files {
		if !chosen(f) {
			continue
		}
		if err := s.compareFile(filepath.Join(s.path(m.Number), f.name), f); err != nil {
			return nil, err
		}
	}
	return seal, nil
}

func (s *Set) compareFile(path string, want file) error {
	f, err := s.disk.OpenRead(path)
	if err != nil {
		return harm(err)
	}
	defer f.Close()
	buf := make([]byte, slice)
	var sum uint32
	for off := int64(0); off < want.size; {
		n, err := s.disk.ReadAt(f, buf[:min(slice, want.size-off)], off)
		if n == 0 {
			return fmt.Errorf("read %s at %d: %w", want.name, off, harm(err))
		}
		sum = crc32.Update(sum, castagnoli, buf[:n])
		off += int64(n)
	}
	if sum != want.sum {
		return fmt.Errorf("checksum of %s is wrong: %w", want.name, ErrDamaged)
	}
	return nil
}

// readSeal reads SEAL and compares it with the folder.
func (s *Set) readSeal(number uint32) (*seal, error) {
	b, err := s.readSmall(filepath.Join(s.path(number), sealName))
	if err != nil {
		return nil, err
	}
	seal, err := decodeSeal(b)
	if err != nil {
		return nil, err
	}
	if seal.store != s.o.StoreID || seal.number != number {
		return nil, fmt.Errorf("generation %d of store %016x in place of %d of %016x: %w",
			seal.number, seal.store, number, s.o.StoreID, ErrDamaged)
	}
	files, err := s.disk.List(s.path(number))
	if err != nil {
		return nil, harm(err)
	}
	sizes := map[string]int64{}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return nil, harm(err)
		}
		sizes[f.Name()] = info.Size()
	}
	for _, f := range seal.files {
		if got, ok := sizes[f.name]; !ok || got != f.size {
			return nil, fmt.Errorf("%s has %d bytes instead of %d: %w", f.name, got, f.size, ErrDamaged)
		}
	}
	// badger opens whatever looks like its own.
	if len(sizes) != len(seal.files)+1 {
		return nil, fmt.Errorf("%d files instead of %d: %w", len(sizes), len(seal.files)+1, ErrDamaged)
	}
	return seal, nil
}

func (s *Set) readSmall(path string) ([]byte, error) {
	f, err := s.disk.OpenRead(path)
	if err != nil {
		return nil, harm(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > sealLimit {
		return nil, fmt.Errorf("%s of %d bytes: %w", filepath.Base(path), info.Size(), ErrDamaged)
	}
	b := make([]byte, info.Size())
	if n, err := s.disk.ReadAt(f, b, 0); n < len(b) {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(path), harm(err))
	}
	return b, nil
}

// harm names what a disk that works does not answer: that a file is not there while
// its folder is, that it ends early, that it cannot be read.
func harm(err error) error {
	for _, e := range []error{fs.ErrNotExist, io.EOF, io.ErrUnexpectedEOF, unix.EIO} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", err, ErrDamaged)
		}
	}
	return err
}
