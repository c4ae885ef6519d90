package generation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// SEAL, little-endian. At most 64 MiB.
//
//	 0  4  version "HFG1"
//	 4  8  store id
//	12  4  number of the generation
//	16  4  number of files
//	20  …  for each file, by name: 1 length of its name, name, 8 size, 4 CRC-32C of it
//	 …  4  length of the directory
//	 …  …  directory, the caller's
//	end 4  CRC-32C (Castagnoli) of all before: the Sum of the Mark
//
// Every later version begins with "HFG" and ends with that sum, so that a newer one
// can be told from a damaged one. The sum leaves its own bytes out: a CRC over data
// and its CRC is the same for all data.
const (
	sealName    = "SEAL"
	sealVersion = "HFG1"
	sealLimit   = 64 << 20
)

// slice is what is copied, and compared, at a time.
const slice = 256 << 10

// seal is what SEAL says.
type seal struct {
	store     uint64
	number    uint32
	files     []file
	directory []byte
	sum       uint32
	bytes     int64 // of all files, SEAL's own as well
}

// file is what SEAL says of one.
type file struct {
	name string
	size int64
	sum  uint32
}

func (s *seal) mark() Mark {
	return Mark{Number: s.number, Sum: s.sum, Bytes: s.bytes}
}

// encode gives the bytes of SEAL and completes s.
func (s *seal) encode() []byte {
	b := append([]byte(nil), sealVersion...)
	b = binary.LittleEndian.AppendUint64(b, s.store)
	b = binary.LittleEndian.AppendUint32(b, s.number)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.files)))
	for _, f := range s.files {
		b = append(b, byte(len(f.name)))
		b = append(b, f.name...)
		b = binary.LittleEndian.AppendUint64(b, uint64(f.size))
		b = binary.LittleEndian.AppendUint32(b, f.sum)
		s.bytes += f.size
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.directory)))
	b = append(b, s.directory...)
	s.sum = crc32.Checksum(b, castagnoli)
	b = binary.LittleEndian.AppendUint32(b, s.sum)
	s.bytes += int64(len(b))
	return b
}

var errShortSeal = fmt.Errorf("SEAL does not add up: %w", ErrDamaged)

// decodeSeal is the inverse of encode. It believes nothing before the sum was right.
func decodeSeal(b []byte) (*seal, error) {
	if len(b) < len(sealVersion)+4 {
		return nil, fmt.Errorf("SEAL of %d bytes: %w", len(b), ErrDamaged)
	}
	body := b[:len(b)-4]
	s := &seal{sum: crc32.Checksum(body, castagnoli), bytes: int64(len(b))}
	if binary.LittleEndian.Uint32(b[len(body):]) != s.sum {
		return nil, fmt.Errorf("SEAL's checksum is wrong: %w", ErrDamaged)
	}
	if v := string(body[:len(sealVersion)]); v != sealVersion {
		if strings.HasPrefix(v, sealVersion[:3]) {
			return nil, fmt.Errorf("SEAL of version %q, this one reads %q: %w", v, sealVersion, ErrVersion)
		}
		return nil, fmt.Errorf("SEAL begins with %q: %w", v, ErrDamaged)
	}
	c := cursor{b: body[len(sealVersion):]}
	s.store, s.number = c.uint64(), c.uint32()
	for n := c.uint32(); n > 0 && !c.short; n-- {
		f := file{name: string(c.bytes(int(c.byte()))), size: int64(c.uint64()), sum: c.uint32()}
		if f.size < 0 || !fs.ValidPath(f.name) || f.name == "." || strings.Contains(f.name, "/") {
			return nil, errShortSeal
		}
		s.files = append(s.files, f)
		s.bytes += f.size
	}
	s.directory = c.bytes(int(c.uint32()))
	if c.short || len(c.b) > 0 {
		return nil, errShortSeal
	}
	return s, nil
}

// cursor reads numbers until there are none.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) bytes(n int) []byte {
	if n > len(c.b) {
		c.short = true
		c.b = nil
		return nil
	}
	b := c.b[:n:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) byte() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

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
