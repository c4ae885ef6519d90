package crashdisk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// A tape on disk, little-endian:
//
//	"HFCRASH1"                        what this is, and its version
//	u64 size                          of the disk
//	u64 block, 4096 bytes             for each block that is not zero; then ^0
//	u8 kind, u64 offset, u32 n, n bytes   for each event; then 255
//	u32 crc32c                        of all before
const (
	tapeMagic = "HFCRASH1"
	tapeEnd   = 255
	tapeMost  = 8 << 30 // bytes of a disk; more is no tape of ours
)

// Save writes the tape to a file, so that a cut can be looked at again.
func (t *Tape) Save(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("save tape: %w", err)
	}
	w := &summed{w: bufio.NewWriterSize(f, 1<<20)}
	w.bytes([]byte(tapeMagic))
	w.bytes(binary.LittleEndian.AppendUint64(nil, uint64(len(t.base))))
	for off := 0; off < len(t.base); off += block {
		if b := t.base[off : off+block]; !zero(b) {
			w.bytes(binary.LittleEndian.AppendUint64(nil, uint64(off/block)))
			w.bytes(b)
		}
	}
	w.bytes(binary.LittleEndian.AppendUint64(nil, ^uint64(0)))
	for _, e := range t.events {
		head := binary.LittleEndian.AppendUint64([]byte{byte(e.kind)}, uint64(e.off))
		w.bytes(binary.LittleEndian.AppendUint32(head, uint32(len(e.data))))
		w.bytes(e.data)
	}
	w.bytes([]byte{tapeEnd})
	w.bytes(binary.LittleEndian.AppendUint32(nil, w.sum))
	if err := errors.Join(w.err, w.w.Flush(), f.Close()); err != nil {
		return fmt.Errorf("save tape %s: %w", path, err)
	}
	return nil
}

// summed writes until something fails, and sums what it writes.
type summed struct {
	w   *bufio.Writer
	sum uint32
	err error
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *summed) bytes(b []byte) {
	if s.err == nil {
		s.sum = crc32.Update(s.sum, castagnoli, b)
		_, s.err = s.w.Write(b)
	}
}

// LoadTape reads what Save wrote.
func LoadTape(path string) (*Tape, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load tape: %w", err)
	}
	defer f.Close()
	r := &summing{r: bufio.NewReaderSize(f, 1<<20)}
	t, err := r.tape()
	if err != nil {
		return nil, fmt.Errorf("load tape %s: %w", path, err)
	}
	return t, nil
}

// summing reads, and sums what it reads.
type summing struct {
	r   *bufio.Reader
	sum uint32
}

func (s *summing) bytes(b []byte) error {
	_, err := io.ReadFull(s.r, b)
	s.sum = crc32.Update(s.sum, castagnoli, b)
	return err
}

func (s *summing) uint64() (uint64, error) {
	var b [8]byte
	err := s.bytes(b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

func (s *summing) tape() (*Tape, error) {
	magic := make([]byte, len(tapeMagic))
	if err := s.bytes(magic); err != nil || string(magic) != tapeMagic {
		return nil, errors.New("it is not a tape, or of another version")
	}
	size, err := s.uint64()
	if err != nil {
		return nil, err
	}
	if size > tapeMost || size%block != 0 {
		return nil, fmt.Errorf("a disk of %d bytes", size)
	}
	t := &Tape{base: make([]byte, size)}
	for {
		b, err := s.uint64()
		if err != nil {
			return nil, err
		}
		if b == ^uint64(0) {
			break
		}
		if b >= size/block {
			return nil, fmt.Errorf("block %d of %d", b, size/block)
		}
		if err := s.bytes(t.base[b*block : (b+1)*block]); err != nil {
			return nil, err
		}
	}
	if err := s.events(t); err != nil {
		return nil, err
	}
	sum := s.sum
	var b [4]byte
	if err := s.bytes(b[:]); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint32(b[:]) != sum {
		return nil, errors.New("its checksum is wrong")
	}
	return t, nil
}

func (s *summing) events(t *Tape) error {
	for {
		var kind [1]byte
		if err := s.bytes(kind[:]); err != nil || kind[0] == tapeEnd {
			return err
		}
		var head [12]byte
		if err := s.bytes(head[:]); err != nil {
			return err
		}
		off, n := binary.LittleEndian.Uint64(head[:]), binary.LittleEndian.Uint32(head[8:])
		if n > 1<<20 || eventKind(kind[0]) == wrote && off > uint64(len(t.base))-uint64(n) || eventKind(kind[0]) > marked {
			return fmt.Errorf("event %d: kind %d of %d bytes at %d", len(t.events), kind[0], n, off)
		}
		e := event{kind: eventKind(kind[0]), off: int64(off), data: make([]byte, n)}
		if err := s.bytes(e.data); err != nil {
			return err
		}
		t.events = append(t.events, e)
	}
}
