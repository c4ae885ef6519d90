// Package storage keeps bytes in order and gives them back, durable. It knows
// queues, positions, deadlines and small keyed state; it does not know what a
// device, a route or a secret is.
//
// The few types are DB (one folder, one journal, one lock), Queue (records in
// order, each settled once), Map (small keyed state held in memory) and Record
// (what is appended). One rule carries all of them: **every change is a record in
// the journal, and is acknowledged after the one flush that made its group
// durable.** Appends, settlements, parkings, the ledger and Map changes that come
// together are one frame and one flush, so they become true together or not at
// all.
//
// What is not drained soon moves, in the background, from the journal's oldest
// segments into sealed generations (package generation); a frame of the journal says
// that it counts, and until then it does not. So the journal stays short, and memory
// and the time to open do not grow with what waits. Readers do not know the
// difference.
//
// Callers hand over and are called back: Append returns as soon as the record
// waits for the next commit, and done runs, in order, once it is on disk. A done
// must not block and must not call back into the DB's blocking methods: all who
// wait are called by the one goroutine that commits.
//
// After a failed flush the DB is broken for good: the kernel may have dropped the
// pages that it could not write and a second flush would lie. Everything then
// fails with ErrBroken until the folder is opened again.
package storage

import (
	"errors"
	"log/slog"
	"time"

	"holdfast.dev/holdfast/storage/journal"
)

// Errors when opening.
var (
	ErrLocked  = errors.New("store is in use by another process")
	ErrForeign = errors.New("folder is not a holdfast store")
	ErrDamaged = errors.New("store is damaged")
	ErrVersion = errors.New("store was written by a newer version")
)

// Errors when changing something.
var (
	ErrFull   = errors.New("store is full")                  // nothing was kept; try again when something has drained
	ErrClosed = errors.New("store is closed")                // nothing was kept
	ErrBroken = errors.New("store can no longer be written") // nothing of this group was acknowledged; open it again
	ErrTooBig = errors.New("record is too big")              // it will never fit
)

// MaxRecord is the most a record may take, all told.
const MaxRecord = 512 << 10 // bytes

// Position is where a record stands in one queue: dense, from 1. Zero is before
// the first.
type Position uint64

// Record is what is appended: one body, kept once, for one or several queues.
type Record struct {
	Sender string // whose custody it comes from; the ledger has a row for each sender and queue
	Stamp  Stamp  // when it arrived
	Body   []byte // not changed after Append
	To     []Dest // at least one, unless the record is only its Changes
	With   []Change
	Order  *Order // the stream that it belongs to, or nil
}

// Dest is one queue that a record is for.
type Dest struct {
	Queue string        // its name; opened if it is new
	TTL   time.Duration // 0: for ever; less: it is over already, and is counted as expired when it is read
	Note  []byte        // of this copy alone; at most 255 bytes
}

// Change is one change of a Map, true exactly when its record is kept.
type Change struct {
	Map, Key string
	Value    []byte // nil removes the key
}

// Item is a record as one queue has it.
type Item struct {
	Position Position
	Sender   string
	Stamp    Stamp
	TTL      time.Duration
	Note     []byte
	Body     []byte
}

// Outcome is how a record left a queue.
type Outcome uint8

const (
	Delivered Outcome = iota + 1 // the next custodian has it
	Expired                      // its time to live was over
	Evicted                      // made way for newer ones, by rule
	Discarded                    // by somebody's explicit decision
	Damaged                      // the disk gave it back broken
)

// Row is one line of the ledger: what became of the records of one sender in one
// queue, since the store was made. It always adds up:
//
//	Accepted = Delivered + Expired + Evicted + Discarded + Damaged + Parked + Pending
//
// The last two are states, the others are ends. Unrouted counts messages that no
// queue wanted; they have a row with Queue "" of their own.
type Row struct {
	Sender, Queue                                   string
	Accepted                                        uint64
	Delivered, Expired, Evicted, Discarded, Damaged uint64
	Parked, Pending                                 uint64
	Unrouted                                        uint64
}

// Balance is zero for a row that adds up.
func (r Row) Balance() int64 {
	return int64(r.Accepted) - int64(r.Delivered+r.Expired+r.Evicted+r.Discarded+r.Damaged+r.Parked+r.Pending)
}

// Options of a DB. The zero value works.
type Options struct {
	Clock        Clock         // SystemClock if nil
	SegmentBytes int           // size of a journal segment: 16 MiB if zero, 1 MiB to 1 GiB
	MaxBytes     int64         // most that the store may take on disk: 1 GiB if zero, at least 4 segments
	Ring         int           // segments of the journal: beyond half of them, what was not drained moves into generations; 8 if zero, at least 4
	Scratch      string        // folder on a RAM disk in which generations are built; in the store's own if empty or too full
	Still        bool          // for a look: nothing is moved, evicted or dropped in the background
	Log          *slog.Logger  // damage and faults; nothing if nil
	Linger       time.Duration // longest wait for company before a commit: 1 ms if zero, none if negative

	// Set by tests.
	disk    journal.Disk
	check   bool                // replay compares every picture with what it has
	tiny    bool                // segments may be smaller than 1 MiB
	reached func(branch string) // is told which of the rare branches of recovery are taken
}

// Stats are a DB's figures.
type Stats struct {
	Commits     uint64 // frames written, each one flush
	Records     uint64 // records in them
	Bytes       uint64 // bytes written
	Disk        int64  // bytes that journal and generations take
	MaxBytes    int64
	Reserve     int64 // of MaxBytes, what is kept free for settlements and for the next move
	DiskFull    bool  // the disk had no room for another segment, though MaxBytes has
	Segments    int
	Generations int      // that records which were not drained soon lie in
	Moved       uint64   // records moved there since the store was opened
	Damage      []Damage // found when the store was opened
}

// Damage is a part of the journal that could not be read when the store was
// opened. Its bytes were copied to the quarantine folder.
type Damage struct {
	File    string // segment
	Offset  int64
	Bytes   int64
	Records uint64 // sequences that are missing
	Torn    bool   // the newest frame: usually cut by a power cut, and then never acknowledged
	Kept    string // the copy; empty if there was no room for one
}

// QueueStats are a Queue's figures.
type QueueStats struct {
	Name       string
	Pending    uint64   // records to be read
	Parked     uint64   // records that wait for a decision
	Bytes      uint64   // of bodies, pending and parked
	Checkpoint Position // everything up to here is settled
	Last       Position // newest
	Oldest     Stamp    // arrival of the oldest pending record; zero if there is none

	// What has become of the others since the queue was made: the sums of the ledger's
	// rows of all senders.
	Delivered, Expired, Evicted, Discarded, Damaged uint64
}
