package storage

import (
	"encoding/gob"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast.dev/holdfast/storage/journal"
)

// A tape records what a store does to its disk and what it says to its user, in
// order. It can be played to a platter and a promise as often as one likes.
type tape struct {
	root  string
	fault func(op journal.Op) error // what a disk answers instead of making it, if not nil

	mu     sync.Mutex
	events []event
}

// event is one line of the tape: an operation, or a word.
type event struct {
	Op   journal.Op // its paths are relative to the store's folder
	Word *word
	Left bool // something was left out or moved here

	Failed bool // the disk did not make it
}

// word is something that was asked for or said.
type word struct {
	Kind      wordKind
	Queue     string
	Name      string // of a sender or key
	Text      string // a body or value
	Positions []Position
	Is        bool
	Stamp     Stamp
	TTL       time.Duration
}

type wordKind uint8

const (
	wordTried   wordKind = iota + 1 // a record was handed over
	wordKept                        // and acknowledged, at a position
	wordRefused                     // or refused
	wordMay                         // a key may have a value from now on
	wordHas                         // and has it
	wordEnding                      // the end of records was asked for
	wordEnded                       // and is true
	wordParking                     // a sender was to be parked or unparked
	wordParked                      // and is
	wordEvicts                      // the oldest of a queue may make way for newer ones
	wordTime                        // time has passed
)

// kept is a tape that was saved, with what is needed to play it.
type kept struct {
	SegmentBytes, Ring int
	MaxBytes           int64
	Seed               uint64
	Events             []event
}

func (k kept) save(t *testing.T) (name string) {
	t.Helper()
	f, err := os.CreateTemp("", "holdfast-tape-*")
	if err == nil {
		err = errors.Join(gob.NewEncoder(f).Encode(k), f.Close())
	}
	if err != nil {
		t.Fatalf("save the tape: %v", err)
	}
	return f.Name()
}

func loadTape(t *testing.T, name string) (k kept) {
	t.Helper()
	f, err := os.Open(name)
	if err == nil {
		err = errors.Join(gob.NewDecoder(f).Decode(&k), f.Close())
	}
	if err != nil {
		t.Fatalf("load the tape: %v", err)
	}
	return k
}

// disk records an operation before it is made.
func (t *tape) disk(op journal.Op) error {
	op.Data = slices.Clone(op.Data)
	t.mu.Lock()
	defer t.mu.Unlock()
	var ok bool
	if op.Path, ok = t.rel(op.Path); !ok {
		return nil // the folder that the store is in is none of ours
	}
	op.To, _ = t.rel(op.To)
	var err error
	if t.fault != nil {
		err = t.fault(op)
	}
	t.events = append(t.events, event{Op: op, Failed: err != nil, Left: err != nil})
	return err
}

func (t *tape) rel(name string) (string, bool) {
	rel, err := filepath.Rel(t.root, name)
	return filepath.ToSlash(rel), err == nil && filepath.IsLocal(rel)
}

func (t *tape) say(w word) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, event{Word: &w})
}

// changes says whether an operation may change what is on disk, or will be.
func (e event) changes() bool {
	switch e.Op.Kind {
	case 0, journal.OpOpen, journal.OpRead, journal.OpList, journal.OpWriteOut:
		return false
	}
	return e.Word == nil
}

// show counts what of the life of segments and generations is on a tape.
func show(events []event, tally map[string]int) {
	for i := range events {
		for what, is := range map[string]func([]event, int) bool{
			"segments taken": renames(sparePath, segmentPath), "segments recycled": renames(segmentPath, sparePath),
			"segments removed": is(journal.OpRemove, segmentPath), "generations sealed": renames(coldTmp, coldPath),
			"generations dropped": renames(coldPath, coldTmp),
		} {
			if is(events, i) {
				tally[what]++
			}
		}
	}
}

// boundary says whether something becomes durable by it.
func (e event) boundary() bool {
	return e.Word == nil && (e.Op.Kind == journal.OpFlush || e.Op.Kind == journal.OpSyncDir)
}
