package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const spareName = "spare"

// slice is how much of a spare is written out at once: a commit that comes meanwhile
// waits for that, and not for 16 MiB of zeros, which take a card a second.
const slice = 256 << 10

// longestRest is the longest pause between two slices.
const longestRest = 100 * time.Millisecond

// pause is how long a disk that was full is left alone: every try writes it full
// with zeros again.
const pause = 5 * time.Second

// spare is what is made ahead of need, in the background: zeros are written in
// slices, never by the committer while it has a choice. One is made where there is
// none at opening, and when a quarter of the present segment is used: while the uplink keeps up, the
// one before has been dropped by then and is there. Dropped segments are kept, for each
// of them saves as many zeros as it is long.
//
//	state     event      next
//	none      prepare    making     a goroutine writes zeros
//	making    done       some
//	making    failed     none       Rotate tries again and reports
//	some      take       one less
//	any       recycle    one more   a dropped segment is renamed
type spare struct {
	mu     sync.Mutex
	names  []string      // of those that stand ready
	making chan struct{} // closed when the maker has ended; nil if there is none
	err    error         // of the last maker
	short  bool          // it found no space
	again  time.Time     // when a maker that failed may be followed by another
	quit   chan struct{}
	hurry  chan struct{} // closed when somebody waits for the maker
}

// ready says how many there are.
func (s *spare) ready() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.names)
}

// free gives a name that no spare has. Called with the lock held.
func (s *spare) free() string {
	if s.making == nil && !slices.Contains(s.names, spareName) {
		return spareName // else that is the maker's
	}
	for i := 1; ; i++ {
		if name := spareName + strconv.Itoa(i); !slices.Contains(s.names, name) {
			return name
		}
	}
}

// Last says whether the present segment is the last that can be had, by the quota
// or, as far as is known, by the disk.
func (j *Journal) Last() bool {
	j.spare.mu.Lock()
	have, short := len(j.spare.names), j.spare.short
	j.spare.mu.Unlock()
	_, n := j.taken()
	return have == 0 && (short || n+int64(j.o.SegmentBytes) > j.max.Load())
}

// Short says whether the disk had no room for a spare segment when one was made last.
func (j *Journal) Short() bool {
	j.spare.mu.Lock()
	defer j.spare.mu.Unlock()
	return j.spare.short
}

// Spacious says whether there is room for one more segment beside a spare, so
// that the spare may be filled with something that is meant to stay.
func (j *Journal) Spacious() bool {
	if j.spare.ready() > 1 {
		return true
	}
	if _, n := j.taken(); n+2*int64(j.o.SegmentBytes) > j.max.Load() {
		return false
	}
	var st unix.Statfs_t
	if err := unix.Statfs(j.dir, &st); err != nil {
		return true // nobody knows; the next spare will tell
	}
	return st.Bavail*uint64(st.Bsize) > uint64(j.o.SegmentBytes)
}

// prepare starts to make a spare if there is none and the quota allows it.
func (s *spare) prepare(j *Journal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start(j)
}

// start is prepare under the lock.
func (s *spare) start(j *Journal) {
	if len(s.names) > 0 || s.making != nil || time.Now().Before(s.again) {
		return
	}
	if _, n := j.taken(); n+int64(j.o.SegmentBytes) > j.max.Load() {
		s.err = ErrNoSpace
		return
	}
	done := make(chan struct{})
	s.making, s.err = done, nil
	if s.quit == nil {
		s.quit = make(chan struct{})
	}
	s.hurry = make(chan struct{})
	quit, hurry := s.quit, s.hurry
	go func() {
		err := makeSegment(j.o.Disk, j.dir, j.o.SegmentBytes, quit, hurry)
		s.mu.Lock()
		if s.making, s.err = nil, err; err == nil {
			s.names = append(s.names, spareName)
		}
		if s.short = errors.Is(err, ErrNoSpace); err != nil {
			s.again = time.Now().Add(pause)
		}
		s.mu.Unlock()
		close(done)
	}()
}

// take waits until there is a spare and hands its path over.
func (s *spare) take(j *Journal) (path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start(j)
	if done := s.making; len(s.names) == 0 && done != nil {
		close(s.hurry)
		s.mu.Unlock()
		<-done
		s.mu.Lock()
	}
	n := len(s.names) - 1
	if n < 0 {
		if s.err == nil {
			s.err = ErrNoSpace
		}
		return "", fmt.Errorf("take spare segment: %w", s.err)
	}
	path = filepath.Join(j.dir, s.names[n])
	s.names = s.names[:n]
	return path, nil
}

// recycle keeps a dropped segment as a spare, or removes it.
func (s *spare) recycle(j *Journal, name string, size int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size != j.o.SegmentBytes || !s.room(j) {
		if err := j.o.Disk.Remove(name); err != nil {
			return fmt.Errorf("remove segment: %w", err)
		}
		// Synced one by one, so that a power cut can bring none back but the newest:
		// a hole between two that came back would look like damage.
		return j.o.Disk.SyncDir(j.dir)
	}
	to := s.free()
	if err := j.o.Disk.Rename(name, filepath.Join(j.dir, to)); err != nil {
		return fmt.Errorf("recycle segment: %w", err)
	}
	s.names, s.short = append(s.names, to), false
	return j.o.Disk.SyncDir(j.dir)
}

func (s *spare) stop() {
	s.mu.Lock()
	if s.quit != nil {
		close(s.quit)
		s.quit = nil
	}
	done := s.making
	s.mu.Unlock()
	if done != nil {
		<-done
	}
}

// makeSegment writes a file of zeros under a temporary name and renames it to the
// spare once it is on disk. Zeros are really written: space that is merely
// reserved is converted block by block later, and that costs a second flush a commit.
func makeSegment(d Disk, dir string, size int, quit, hurry <-chan struct{}) (err error) {
	tmp := filepath.Join(dir, spareName+".tmp")
	f, err := d.Create(tmp)
	if err != nil {
		return fmt.Errorf("make segment: %w", noSpace(err))
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			_ = d.Remove(tmp) // the next opening removes it too
			err = fmt.Errorf("make segment: %w", noSpace(err))
		}
	}()
	block := make([]byte, slice)
	for off := 0; off < size; off += slice {
		begin := time.Now()
		select {
		case <-quit:
			return errors.New("journal is closed")
		default:
		}
		if err := d.WriteAt(f, block[:min(slice, size-off)], int64(off)); err != nil {
			return err
		}
		if err := d.WriteOut(f, int64(off), slice); err != nil {
			return err
		}
		// As long as that took, the card is left to the commits, unless one waits for
		// this very segment.
		select {
		case <-quit:
		case <-hurry:
		case <-time.After(min(time.Since(begin), longestRest)):
		}
	}
	if err := d.Flush(f); err != nil {
		return err
	}
	if err := d.Rename(tmp, filepath.Join(dir, spareName)); err != nil {
		return err
	}
	return d.SyncDir(dir)
}

// noSpace turns a full disk or quota into ErrNoSpace and keeps the cause.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// room says whether another spare may be kept. Called with the lock held.
func (s *spare) room(j *Journal) bool {
	n := len(s.names)
	if s.making != nil {
		n++
	}
	_, taken := j.taken()
	return n == 0 || n < j.o.Spares && taken+int64(n+1)*int64(j.o.SegmentBytes) <= j.max.Load()
}

// adopt looks for spares that an earlier process left.
func (s *spare) adopt(d Disk, dir string, size int) error {
	if err := d.Remove(filepath.Join(dir, spareName+".tmp")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove unfinished segment: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(dir, spareName+"*"))
	if err != nil {
		return fmt.Errorf("look for spare segments: %w", err)
	}
	for _, path := range found {
		st, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("look at spare segment: %w", err)
		}
		if st.Size() == int64(size) {
			s.names = append(s.names, filepath.Base(path))
			continue
		}
		if err := d.Remove(path); err != nil { // made for another segment size
			return fmt.Errorf("remove spare segment: %w", err)
		}
	}
	return nil
}
