// Package journal is an append-only log of frames on flash that may harm every
// page it is writing to when the power goes.
//
// A Journal is a folder of segments, files of one size that were written once
// with zeros, so that a commit later costs one flush and no block allocation. A
// Frame is what is committed at once. Every frame starts on a fresh 4 KiB page:
// no write ever touches a page that holds something acknowledged.
//
//	{folder}/%016x    a segment, named after the first sequence in it
//	{folder}/spare*   segments that are ready for use; their content is stale or zero
//	{folder}/*.tmp    an unfinished spare, removed when the journal is opened
//
// A frame's bytes, little-endian, padded with zeros to the page:
//
//	 0  4  version "HFJ1"
//	 4  4  length of the body
//	 8  4  CRC-32C (Castagnoli) of bytes 12 to 40, the length, and the body
//	12  4  number of records
//	16  8  first sequence
//	24  8  store id
//	32  8  zero
//	40  …  body
//
// Sequences are dense: a frame's first is its predecessor's first plus its
// number. That is what tells a stale frame in a recycled segment from a real one,
// and what shows that something is missing.
//
// The journal does not know what a record is. It is written by one goroutine; reads
// may come from any.
package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Page is what a write may harm, and so the alignment of frames.
const Page = 4096 // bytes

// ErrNoSpace says that a new segment is needed and cannot be had: the disk or the
// quota is full. Nothing was written.
var ErrNoSpace = errors.New("no space for another journal segment")

// Options of a Journal. All but Disk must be set.
type Options struct {
	StoreID      uint64
	Disk         Disk
	SegmentBytes int   // size of a new segment, a multiple of Page; older ones keep theirs
	MaxBytes     int64 // most that all segments and spares may take, until SetMax
	Spares       int   // most that are kept of dropped segments, at least one
}

// Journal is an open folder of segments.
type Journal struct {
	dir string
	o   Options

	mu       sync.RWMutex // guards segments against readers while one is dropped
	segments []*segment   // oldest first; the last one is written to

	max   atomic.Int64 // most that all segments and spares may take
	next  uint64       // sequence of the next record
	buf   []byte       // of the frame being written
	spare spare
}

// segment is one file of the journal.
type segment struct {
	id    uint32 // a number of this process, for Loc
	first uint64 // sequence of its first record
	file  *os.File
	size  int // of the file: an earlier process may have made other ones
	end   int // first free byte, page-aligned
}

// Loc is where a piece of a frame's body lies. It is good until its segment is dropped.
type Loc struct {
	Segment uint32
	Offset  uint32
}

// SetMax changes how much all segments and spares may take. What is there stays.
func (j *Journal) SetMax(bytes int64) { j.max.Store(bytes) }

// Max is what SetMax has said last.
func (j *Journal) Max() int64 { return j.max.Load() }

// Next is the sequence that the next record will have.
func (j *Journal) Next() uint64 { return j.next }

// Write commits one frame of n records: it is durable when Write returns nil. The
// Loc is that of the body's first byte. After an error that is not ErrNoSpace the
// journal must not be written again.
func (j *Journal) Write(n int, body []byte) (Loc, error) {
	size := frameSize(len(body))
	s := j.last()
	if s == nil || s.end+size > s.size {
		return Loc{}, fmt.Errorf("write frame of %d bytes: %w", len(body), ErrNoSpace)
	}
	j.buf = appendFrame(j.buf[:0], header{n: uint32(n), first: j.next, store: j.o.StoreID}, body)
	if err := j.o.Disk.WriteAt(s.file, j.buf, int64(s.end)); err != nil {
		return Loc{}, fmt.Errorf("write frame to %s: %w", s.file.Name(), err)
	}
	if err := j.o.Disk.Flush(s.file); err != nil {
		return Loc{}, fmt.Errorf("flush %s: %w", s.file.Name(), err)
	}
	loc := Loc{s.id, uint32(s.end + headerSize)}
	s.end += size
	j.next += uint64(n)
	if s.end > s.size/4 {
		j.spare.prepare(j)
	}
	return loc, nil
}

// Fits says whether a frame with a body of n bytes fits the present segment and
// leaves reserve bytes free.
func (j *Journal) Fits(n, reserve int) bool {
	s := j.last()
	return s != nil && s.end+frameSize(n)+reserve <= s.size
}

// Ready says whether a spare segment stands ready.
func (j *Journal) Ready() bool { return j.spare.ready() > 0 }

// Fresh says whether the present segment holds no frame yet.
func (j *Journal) Fresh() bool {
	s := j.last()
	return s != nil && s.end == 0
}

// Rotate takes a fresh segment into use. It waits for the spare where that is
// being made, and makes one itself where there is none.
func (j *Journal) Rotate() error {
	from, err := j.spare.take(j)
	if err != nil {
		return err
	}
	name := j.path(j.next)
	if err := j.o.Disk.Rename(from, name); err != nil {
		return fmt.Errorf("take spare segment: %w", err)
	}
	if err := j.o.Disk.SyncDir(j.dir); err != nil {
		return err
	}
	f, err := j.o.Disk.Open(name)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	j.mu.Lock()
	id, n := uint32(0), len(j.segments)
	if n > 0 {
		id = j.segments[n-1].id + 1
	}
	if n > 0 && j.segments[n-1].first == j.next {
		// It holds no frame, at most a torn one, and its name is the new one's now.
		err = j.segments[n-1].file.Close()
		j.segments, id = j.segments[:n-1], id-1
	}
	j.segments = append(j.segments, &segment{id: id, first: j.next, file: f, size: j.o.SegmentBytes})
	j.mu.Unlock()
	return err
}

// ReadAt fills p from loc. It fails if the segment was dropped.
func (j *Journal) ReadAt(p []byte, loc Loc) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if len(j.segments) == 0 || loc.Segment < j.segments[0].id {
		return fmt.Errorf("read segment %d: it was dropped", loc.Segment)
	}
	i := int(loc.Segment - j.segments[0].id)
	if i >= len(j.segments) {
		return fmt.Errorf("read segment %d: no such segment", loc.Segment)
	}
	if _, err := j.o.Disk.ReadAt(j.segments[i].file, p, int64(loc.Offset)); err != nil {
		return fmt.Errorf("read %s: %w", j.segments[i].file.Name(), err)
	}
	return nil
}

// DropBefore gives up all segments older than the one numbered id. They become
// spares, up to Options.Spares.
func (j *Journal) DropBefore(id uint32) error {
	for {
		j.mu.Lock()
		if len(j.segments) < 2 || j.segments[0].id >= id {
			j.mu.Unlock()
			return nil
		}
		s := j.segments[0]
		j.segments = j.segments[1:]
		j.mu.Unlock()
		name := s.file.Name()
		if err := s.file.Close(); err != nil {
			return fmt.Errorf("close segment: %w", err)
		}
		if err := j.spare.recycle(j, name, s.size); err != nil {
			return err
		}
	}
}

// Segments gives the number of segments in use and the bytes they and the spares take.
func (j *Journal) Segments() (n int, bytes int64) {
	n, bytes = j.taken()
	return n, bytes + int64(j.spare.ready())*int64(j.o.SegmentBytes)
}

// Newest is the number of the segment that is written to.
func (j *Journal) Newest() uint32 {
	if s := j.last(); s != nil {
		return s.id
	}
	return 0
}

// Close ends the work on the spare and closes the files. It flushes nothing:
// what Write returned for is on disk.
func (j *Journal) Close() error {
	j.spare.stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, s := range j.segments {
		errs = append(errs, s.file.Close())
	}
	j.segments = nil
	return errors.Join(errs...)
}

// taken is Segments without the spares.
func (j *Journal) taken() (n int, bytes int64) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for _, s := range j.segments {
		bytes += int64(s.size)
	}
	return len(j.segments), bytes
}

func (j *Journal) last() *segment {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if n := len(j.segments); n > 0 {
		return j.segments[n-1]
	}
	return nil
}

func (j *Journal) path(first uint64) string {
	return filepath.Join(j.dir, fmt.Sprintf("%016x", first))
}
