package generation

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strings"
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
