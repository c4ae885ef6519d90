package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// ring is R, the reference: a log that does nothing but what a disk asks for. Its
// segments were written once, with zeros, so that a commit changes no size and no
// extent; a group is one frame that begins on a fresh page and is followed by one
// fdatasync; when the ring is full, the oldest segment is written over. It keeps no
// ledger, no index, no senders and no deadlines, and it can open nothing again: what
// is slower than it is slower by what it does more.
//
// A frame is, little-endian: its length u32, crc32c of all that follows u32, number
// u64, messages u32, taken u64 (messages that need not be kept), and then for each
// message the length of its topic u16, the topic, the length of its body u32, the
// body; zeros up to the next page.
type ring struct {
	segments []*os.File
	size     int64 // of each
	at       int64 // where the next frame begins: segment × size + offset
	buf      []byte

	mu     sync.Mutex
	frames []frameAt // that were not taken
	frame  uint64    // number of the next
	taken  uint64    // messages
}

type frameAt struct {
	at int64
	n  int // bytes
}

const (
	pageBytes = 4096
	frameHead = 28
)

// openRing writes the segments, of 16 MiB or, for a little, of 2: two more than the
// bytes of messages need, and four at least.
func openRing(dir string, bytes int64) (*ring, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	r := &ring{size: 16 << 20}
	if bytes <= 4<<20 {
		r.size = 2 << 20
	}
	zeros := make([]byte, 1<<20)
	// A body of 256 bytes is 290 in a frame, and the last page of a frame is half
	// empty on the average: a half more than the bodies is room for all of it.
	for i := range max(4, bytes*3/2/r.size+2) {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%04d", i)))
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		r.segments = append(r.segments, f)
		for range r.size / int64(len(zeros)) {
			if _, err := f.Write(zeros); err != nil {
				return nil, errors.Join(err, r.close())
			}
		}
		if err := f.Sync(); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	return r, syncDir(dir)
}

func (r *ring) keep(group []message) error {
	r.encode(group)
	segment, offset := r.at/r.size, r.at%r.size
	if offset+int64(len(r.buf)) > r.size {
		segment, offset = segment+1, 0
	}
	segment %= int64(len(r.segments))
	at := frameAt{segment*r.size + offset, len(r.buf)}
	if r.holds(at) {
		return errors.New("plain log: the ring is full of messages that were not taken")
	}
	f := r.segments[segment]
	if _, err := f.WriteAt(r.buf, offset); err != nil {
		return fmt.Errorf("plain log: %w", err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("plain log: flush: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = append(r.frames, at)
	r.frame++
	r.at = at.at + int64(at.n)
	return nil
}

// holds says whether something that was not taken stands where a frame is to go.
func (r *ring) holds(f frameAt) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.frames) > 0 && r.frames[0].at >= f.at && r.frames[0].at < f.at+int64(f.n)
}

// encode fills buf with a frame.
func (r *ring) encode(group []message) {
	r.mu.Lock()
	taken := r.taken
	r.mu.Unlock()
	b := append(r.buf[:0], make([]byte, frameHead)...)
	b = appendPacked(b, group)
	n := len(b)
	binary.LittleEndian.PutUint32(b, uint32(n))
	binary.LittleEndian.PutUint64(b[8:], r.frame)
	binary.LittleEndian.PutUint32(b[16:], uint32(len(group)))
	binary.LittleEndian.PutUint64(b[20:], taken)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:n], castagnoli))
	r.buf = append(b, make([]byte, -n&(pageBytes-1))...)
}

// take reads one frame, whatever n: its groups are its unit.
func (r *ring) take(int) ([]message, error) {
	r.mu.Lock()
	if len(r.frames) == 0 {
		r.mu.Unlock()
		return nil, nil
	}
	f := r.frames[0]
	r.mu.Unlock()
	b := make([]byte, f.n)
	if _, err := r.segments[f.at/r.size].ReadAt(b, f.at%r.size); err != nil {
		return nil, fmt.Errorf("plain log: read: %w", err)
	}
	n := binary.LittleEndian.Uint32(b)
	if n < frameHead || int(n) > len(b) || crc32.Checksum(b[8:n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, fmt.Errorf("plain log: the frame at %d is broken", f.at)
	}
	messages := unpack(b[frameHead:n])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = r.frames[1:]
	r.taken += uint64(len(messages))
	return messages, nil
}

func (r *ring) commits() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.frame
}

func (r *ring) close() error {
	var err error
	for _, f := range r.segments {
		err = errors.Join(err, f.Close())
	}
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendPacked is how all but Holdfast write a group: messages one after the other.
func appendPacked(b []byte, group []message) []byte {
	for _, m := range group {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(m.topic)))
		b = append(b, m.topic...)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(m.body)))
		b = append(b, m.body...)
	}
	return b
}

// unpack gives the messages of what appendPacked wrote; they share its memory.
func unpack(b []byte) []message {
	var out []message
	for len(b) >= 2 {
		n := int(binary.LittleEndian.Uint16(b))
		if len(b) < 2+n+4 {
			break
		}
		m := message{topic: string(b[2 : 2+n])}
		b = b[2+n:]
		n = int(binary.LittleEndian.Uint32(b))
		if len(b) < 4+n {
			break
		}
		m.body, b = b[4:4+n:4+n], b[4+n:]
		out = append(out, m)
	}
	return out
}

// syncDir makes a folder's names durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
