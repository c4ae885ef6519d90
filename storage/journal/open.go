package journal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxSegment is what a Loc can address.
const maxSegment = 1 << 30

// Frame is one frame as Open finds it.
type Frame struct {
	First uint64 // sequence of its first record
	N     int    // records
	Body  []byte // good during the call only
	Loc   Loc    // of the body's first byte
	Head  bool   // the first frame of its segment
	Gap   uint64 // sequences that are missing just before it
}

// Damage is a stretch of a segment that holds no frame though one was expected.
type Damage struct {
	File   string // path of the segment
	Offset int64
	Bytes  int64
	Gap    uint64 // sequences missing; zero for a tail, where nobody can know
	Tail   bool   // the newest frame: usually torn by a power cut, and then never acknowledged
}

// Open opens the journal in dir, which must exist, flushes what it finds and hands
// every frame to each, in order. What cannot be read is handed to damaged; then
// the next readable frame follows with its Gap. No byte of a segment is changed.
//
// The flush comes first: after a kill the page cache may show a frame that is not
// on disk, and a power cut would take it back after its positions were used.
func Open(dir string, o Options, each func(Frame) error, damaged func(Damage) error) (*Journal, error) {
	j := &Journal{dir: dir, o: o, next: 1}
	j.max.Store(o.MaxBytes)
	if err := j.spare.adopt(o.Disk, dir, o.SegmentBytes); err != nil {
		return nil, err
	}
	if err := j.openSegments(); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	r := replayer{j: j, each: each, damaged: damaged}
	if err := r.run(); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	if len(j.segments) == 0 || r.torn {
		// Pages behind a torn frame hold nobody knows what: begin on a fresh segment.
		// A full journal has none; then the torn frame, which nobody was promised, is
		// written over, and the store can be drained instead of being shut for good.
		if err := j.Rotate(); err != nil && (len(j.segments) == 0 || !errors.Is(err, ErrNoSpace)) {
			return nil, errors.Join(err, j.Close())
		}
	}
	j.spare.prepare(j) // at once: a disk that runs full must not find a single segment
	return j, nil
}

func (j *Journal) openSegments() error {
	names, err := j.o.Disk.List(j.dir)
	if err != nil {
		return fmt.Errorf("list journal: %w", err)
	}
	for _, n := range names {
		first, err := strconv.ParseUint(n.Name(), 16, 64)
		if err != nil || len(n.Name()) != 16 {
			continue
		}
		f, err := j.o.Disk.Open(filepath.Join(j.dir, n.Name()))
		if err != nil {
			return fmt.Errorf("open segment: %w", err)
		}
		s := &segment{first: first, file: f}
		j.segments = append(j.segments, s)
		st, err := f.Stat()
		if err != nil {
			return fmt.Errorf("look at segment: %w", err)
		}
		s.size = int(min(st.Size(), maxSegment)) / Page * Page
		if err := j.o.Disk.Flush(f); err != nil {
			return fmt.Errorf("flush %s: %w", f.Name(), err)
		}
	}
	slices.SortFunc(j.segments, func(a, b *segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	for i, s := range j.segments {
		s.id = uint32(i)
	}
	if err := j.forget(); err != nil {
		return err
	}
	return j.o.Disk.SyncDir(j.dir)
}

// forget drops the newest segment from the page cache, so that it is read as it is
// on disk: after a flush that failed the cache still shows, and calls clean, what
// could not be written. Older segments have nothing of the kind.
func (j *Journal) forget() error {
	s := j.last()
	if s == nil {
		return nil
	}
	if err := unix.Fadvise(int(s.file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("drop %s from the cache: %w", s.file.Name(), err)
	}
	return nil
}

// replayer walks the segments in order.
type replayer struct {
	j       *Journal
	each    func(Frame) error
	damaged func(Damage) error
	buf     []byte
	before  *segment // the one before
	torn    bool     // the newest segment ends in a broken frame
}

// run goes through all segments. The memory that it reads them into goes back to the
// system at once; the collector would hold it for minutes.
func (r *replayer) run() (err error) {
	size := 0
	for _, s := range r.j.segments {
		size = max(size, s.size)
	}
	if size == 0 {
		return nil
	}
	if r.buf, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
		return fmt.Errorf("get memory for a segment of %d bytes: %w", size, err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(r.buf)) }()
	for i, s := range r.j.segments {
		if err := r.segment(s, i == len(r.j.segments)-1); err != nil {
			return err
		}
	}
	return nil
}

// segment hands over the frames of s. A frame counts if it is whole, of this
// store, and continues the sequence; a later sequence means that something is
// missing; an earlier one is stale, from the segment's former life.
func (r *replayer) segment(s *segment, newest bool) error {
	n, err := r.j.o.Disk.ReadAt(s.file, r.buf[:s.size], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", s.file.Name(), err)
	}
	gap, err := r.begin(s)
	if err != nil {
		return err
	}
	data, head := r.buf[:n], true
	for off := 0; off+Page <= len(data); {
		h, body, ok := r.frame(data[off:])
		if !ok || h.first != r.j.next {
			skip, first, found := r.resync(data[off:])
			if !found {
				return r.tail(s, data, off, newest)
			}
			gap += first - r.j.next
			if err := r.report(s, off, skip, first-r.j.next, false); err != nil {
				return err
			}
			r.j.next, off = first, off+skip
			continue
		}
		f := Frame{First: h.first, N: int(h.n), Body: body, Loc: Loc{s.id, uint32(off + headerSize)}, Head: head, Gap: gap}
		if err := r.each(f); err != nil {
			return fmt.Errorf("%s at %d: %w", s.file.Name(), off, err)
		}
		head, gap = false, 0
		off += frameSize(len(body))
		s.end = off
		r.j.next += uint64(h.n)
	}
	return nil
}

// begin compares the name of s with the sequence that the segment before ended
// with, and gives what is missing between them.
func (r *replayer) begin(s *segment) (gap uint64, err error) {
	before := r.before
	r.before = s
	if before == nil {
		r.j.next = s.first
		return 0, nil
	}
	if s.first > r.j.next {
		gap = s.first - r.j.next
		err = r.report(before, before.end, before.size-before.end, gap, false)
		r.j.next = s.first
	}
	return gap, err
}

// tail decides what it is that follows the last whole frame of a segment. Behind
// an older segment it is no matter: the next one's name says whether anything is
// missing.
func (r *replayer) tail(s *segment, data []byte, off int, newest bool) error {
	h, ok := parseHeader(data[off:])
	if !newest || !ok || h.first != r.j.next || h.store != r.j.o.StoreID {
		return nil // zeros, or stale: the regular end
	}
	r.torn = true
	return r.report(s, off, min(frameSize(int(h.length)), len(data)-off), 0, true)
}

func (r *replayer) report(s *segment, off, n int, gap uint64, tail bool) error {
	return r.damaged(Damage{File: s.file.Name(), Offset: int64(off), Bytes: int64(n), Gap: gap, Tail: tail})
}

// frame reads the frame at the beginning of b; ok is false if it is not whole or
// not of this store.
func (r *replayer) frame(b []byte) (h header, body []byte, ok bool) {
	h, ok = parseHeader(b)
	if !ok || h.store != r.j.o.StoreID || uint64(h.length)+headerSize > uint64(len(b)) {
		return h, nil, false
	}
	body = b[headerSize : headerSize+h.length]
	return h, body, h.n > 0 && checksum(b, body) == h.crc
}

// resync looks for the next whole frame with a later sequence than expected.
func (r *replayer) resync(b []byte) (skip int, first uint64, found bool) {
	for off := Page; off+Page <= len(b); off += Page {
		if h, _, ok := r.frame(b[off:]); ok && h.first > r.j.next {
			return off, h.first, true
		}
	}
	return 0, 0, false
}
