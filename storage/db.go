package storage

import (
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"holdfast.dev/holdfast/storage/generation"
	"holdfast.dev/holdfast/storage/journal"
)

// DB is one folder with one journal. All methods may be called by any goroutine.
//
//	{folder}/LOCK          held while it is open; the process id is in it
//	{folder}/STORE         what this is, its version and id; a copy is in journal/
//	{folder}/NEXT          how far the journal had come at least
//	{folder}/journal/      see package journal
//	{folder}/g-%08d/       see package generation
//	{folder}/quarantine/   copies of what could not be read
type DB struct {
	dir  string
	id   uint64
	o    Options
	log  *slog.Logger
	lock *os.File
	j    *journal.Journal
	cold *generation.Set

	shelf shelf
	gate  gate
	mover mover

	// Of the committer alone.
	body, scratch []byte
	usual         time.Duration // what a commit takes
	lastGroup     int           // appends in the last one
	company       int           // whether lingering has brought anybody lately: at most 2, at least -2
	tries         int           // lingers
	aside         []*request    // found no room and wait for the next round
	pictured      []uint32      // segments that begin with a whole picture

	room  *semaphore.Weighted // bytes that may wait
	now   chan struct{}       // somebody waits
	soon  chan struct{}       // somebody will, if nobody comes
	quit  chan struct{}
	ended chan struct{}
	full  atomic.Bool
	once  sync.Once

	lineMu   sync.Mutex
	line     []*request
	lined    atomic.Int64 // its length
	lineLazy int
	lineErr  error // why nothing more is taken

	mu       sync.Mutex // guards all below, and the queues
	byName   map[string]*Queue
	byID     map[uint32]*Queue
	names    []string // of senders, by number
	numbers  map[string]uint32
	ledger   map[rowKey]*Row
	maps     map[string]map[string][]byte
	mapBytes int
	live     map[uint32]int // records by segment that have not ended

	generations    map[uint32]*sealed // those that count, by number
	lastGeneration uint32             // the newest number
	dropped        []*sealed          // replaced by others, and still on disk
	stats          Stats
}

// Open opens the store in dir, or makes one where dir is empty or missing. A
// folder with anything else in it is refused (ErrForeign), as is one that another
// process holds (ErrLocked). A store that cannot be read at all is ErrDamaged and
// is left as it is; one that is damaged in parts is opened without them, and Stats
// says which.
func Open(dir string, o Options) (*DB, error) {
	if o.Clock == nil {
		o.Clock = SystemClock()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 16 << 20
	}
	if !o.tiny {
		o.SegmentBytes = min(max(o.SegmentBytes, 1<<20), 1<<30) / journal.Page * journal.Page
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 30
	}
	o.MaxBytes = max(o.MaxBytes, 4*int64(o.SegmentBytes))
	if o.Ring == 0 {
		o.Ring = 8
	}
	o.Ring = max(o.Ring, 4)
	if o.Linger == 0 {
		o.Linger = time.Millisecond
	}
	db := &DB{
		dir: dir, o: o, log: o.Log.With("store", dir),
		room: semaphore.NewWeighted(int64(o.SegmentBytes / 2)),
		now:  make(chan struct{}, 1), soon: make(chan struct{}, 1),
		quit: make(chan struct{}), ended: make(chan struct{}),
		byName: map[string]*Queue{}, byID: map[uint32]*Queue{}, numbers: map[string]uint32{},
		ledger: map[rowKey]*Row{}, maps: map[string]map[string][]byte{}, live: map[uint32]int{},
		generations: map[uint32]*sealed{},
	}
	if err := db.open(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, errors.Join(err, db.unlock()))
	}
	db.mover.start(db)
	go db.commitLoop()
	return db, nil
}

func (db *DB) open() error {
	m, err := db.claim()
	if err != nil {
		return err
	}
	r := replay{db: db, absent: map[uint32]error{}}
	damaged := func(d journal.Damage) error {
		if !d.Tail {
			r.missing()
		}
		return db.quarantine(d)
	}
	db.id = m.id
	used := db.wasUsed()
	if m.whole && !used.segments {
		return fmt.Errorf("%w: the journal is empty though the store was in use; nothing was changed. "+
			"Bring the files of %s back, or remove STORE to begin anew", ErrDamaged, filepath.Join(db.dir, "journal"))
	}
	db.cold, err = generation.Open(db.dir, generation.Options{StoreID: m.id, Disk: db.o.disk, Scratch: db.o.Scratch, GenerationBytes: max(1<<20, int64(db.o.SegmentBytes)), Hurry: db.hurry, Log: db.log})
	if err != nil {
		return err
	}
	db.j, err = journal.Open(filepath.Join(db.dir, "journal"),
		journal.Options{StoreID: m.id, SegmentBytes: db.o.SegmentBytes, MaxBytes: db.o.MaxBytes, Spares: db.o.Ring / 2, Disk: db.o.disk}, r.frame, damaged)
	if err != nil {
		return errors.Join(err, db.cold.Close())
	}
	err = db.replayed(&r, used)
	if err == nil {
		err = m.mend(db.o.disk)
	}
	if err != nil {
		return errors.Join(err, db.j.Close(), db.cold.Close())
	}
	return nil
}

// replayed checks what replay has found and writes a picture where the newest
// segment has none.
func (db *DB) replayed(r *replay, u usage) error {
	if r.frames == 0 && u.content {
		return fmt.Errorf("%w: nothing in the journal can be read; the segments are as they were. "+
			"Copy the folder away to have it looked at, and start with an empty one", ErrDamaged)
	}
	db.mu.Lock()
	if r.taken != nil {
		if err := r.abandon(); err != nil {
			db.mu.Unlock()
			return err
		}
	}
	strays, err := r.strays()
	if !r.ever {
		db.countOpen()
	}
	missing := db.missing()
	var changed []rowKey
	if r.ever || missing > 0 {
		changed = db.settleAccounts()
	}
	db.indexRows()
	db.mu.Unlock()
	if err == nil {
		err = db.clearAway(strays, r, missing)
	}
	if err != nil {
		return err
	}
	if err := db.reportMissing(r.ever, missing); err != nil {
		return err
	}
	if !r.ever { // else every opening finds out, and takes the newest picture's word for it
		if err := db.keepAccounts(changed); err != nil {
			return fmt.Errorf("write down what was counted as damaged: %w", err)
		}
	}
	if len(db.pictured) > 0 && r.whole == db.j.Newest() {
		return db.reclaim()
	}
	if r.frames > 0 {
		db.reach("the newest segment has no whole picture")
	}
	if err := db.rotate(); err != nil {
		if errors.Is(err, journal.ErrNoSpace) && r.frames > 0 {
			db.reach("opened full, without a picture in the newest segment")
			db.full.Store(true)
			return nil // it can still be drained into the reserve
		}
		return err
	}
	return db.reclaim()
}

// Queue gives the queue of that name. A new one costs nothing on disk until
// something is in it.
func (db *DB) Queue(name string) *Queue {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.queue(name)
}

// Queues gives all queues.
func (db *DB) Queues() []*Queue {
	db.mu.Lock()
	defer db.mu.Unlock()
	qs := make([]*Queue, 0, len(db.byID))
	for _, q := range db.byName {
		qs = append(qs, q)
	}
	return qs
}

// queue is Queue with db.mu held.
func (db *DB) queue(name string) *Queue {
	if q := db.byName[name]; q != nil {
		return q
	}
	// The number comes from the name, so that a queue whose name was lost to damage
	// finds it again; the name in the journal is what counts.
	id := crc32.Checksum([]byte(name), castagnoli)
	for ; db.byID[id] != nil || id >= removedQueue; id++ {
		if q := db.byID[id]; q != nil && q.unnamed {
			delete(db.byName, q.name)
			q.name, q.unnamed, q.written, db.byName[name] = name, false, false, q
			return q
		}
	}
	return db.newQueue(id, name)
}

func (db *DB) newQueue(id uint32, name string) *Queue {
	q := &Queue{db: db, id: id, name: name, base: 1, origin: 1, senders: map[uint32]string{}, changed: make(chan struct{})}
	db.byID[id], db.byName[name] = q, q
	return q
}

// number gives a sender's number. Called with db.mu held.
func (db *DB) number(sender string) uint32 {
	n, ok := db.numbers[sender]
	if !ok {
		n = uint32(len(db.names))
		db.names = append(db.names, sender)
		db.numbers[sender] = n
	}
	return n
}

// Stats gives the figures of the whole store.
func (db *DB) Stats() Stats {
	db.mu.Lock()
	defer db.mu.Unlock()
	s := db.stats
	s.Segments, s.Disk = db.j.Segments()
	s.Disk += db.cold.Bytes()
	s.Generations = len(db.generations)
	s.MaxBytes, s.Reserve, s.DiskFull = db.o.MaxBytes, int64(db.reserve())+db.forMoves(), db.j.Short()
	return s
}

// Failed gives a channel that is closed when the store can no longer be written.
func (db *DB) Failed() <-chan struct{} { return db.ended }

// Close commits what waits and closes the store. What comes later is answered
// with ErrClosed.
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		db.mover.stop()
		close(db.quit)
		<-db.ended
		db.markNext()
		err = errors.Join(db.j.Close(), db.cold.Close(), db.unlock())
	})
	return err
}

// Err says why Failed's channel was closed; nil before.
func (db *DB) Err() error {
	db.lineMu.Lock()
	defer db.lineMu.Unlock()
	return db.lineErr
}

// stop refuses everything from now on: first, in order, those who wait, and then
// whoever comes.
func (db *DB) stop(err error) {
	for {
		db.lineMu.Lock()
		line := db.line
		if db.line = nil; len(line) == 0 {
			db.lineErr = err
			db.lineMu.Unlock()
			return
		}
		db.lineMu.Unlock()
		for _, r := range line {
			r.finish(err)
		}
	}
}

// Full says whether appends are refused for want of room.
func (db *DB) Full() bool { return db.full.Load() }
