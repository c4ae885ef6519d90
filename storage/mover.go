package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"
)

// The mover takes what was not drained soon out of the journal, in the background:
// the oldest segments' records are packed into a generation, and when a frame of the
// journal has said that it counts, the segments are free. While the uplink keeps up
// the oldest segments have nothing in them that counts, and nothing moves. What is
// left of generations that are mostly drained moves on into a fresh one.
type mover struct {
	wake  chan struct{}
	quit  context.CancelFunc
	ended chan struct{}
	helps atomic.Bool // it runs, and its last try was not in vain
}

const (
	moverPause = 250 * time.Millisecond // between two looks at what has drained
	moverRetry = 10 * time.Second       // after a fault, a full disk among them
	manyPoor   = 4                      // so many mostly drained generations are merged
	sweepEvery = 15 * time.Second       // for packs whose time is over
)

// moves says whether there is room for generations at all: a ring, two generations
// that are being made or merged, and two to hold something.
func (db *DB) moves() bool { return db.o.MaxBytes >= int64(db.o.Ring+4)*int64(db.o.SegmentBytes) }

func (m *mover) start(db *DB) {
	ctx, quit := context.WithCancel(context.Background())
	m.quit, m.ended, m.wake = quit, make(chan struct{}), make(chan struct{}, 1)
	go func() {
		defer close(m.ended)
		if !db.o.Still {
			m.helps.Store(true)
			m.run(ctx, db)
			m.helps.Store(false)
			db.watchGate()
		}
	}()
}

func (m *mover) stop() {
	m.quit()
	<-m.ended
}

// nudge wakes the mover. It never waits.
func (m *mover) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mover) run(ctx context.Context, db *DB) {
	var swept time.Time
	for ctx.Err() == nil {
		pause := moverPause
		more, err := db.tidy(ctx)
		n, _ := db.j.Segments()
		m.helps.Store(err == nil && (more || n <= db.o.Ring))
		db.watchGate()
		switch {
		case err != nil && (db.Err() != nil || ctx.Err() != nil):
			return
		case err != nil:
			db.log.Warn("records cannot be moved out of the journal; they stay there", "error", err, "retry", moverRetry)
			pause = moverRetry
		case more:
			continue
		}
		if time.Since(swept) > sweepEvery {
			swept = time.Now()
			db.sweep()
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-m.wake:
			if err != nil { // not before its time
				select {
				case <-ctx.Done():
				case <-timer.C:
				}
			}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// tidy drops what is drained and makes one move, if there is one to make: then it is
// true.
func (db *DB) tidy(ctx context.Context) (more bool, err error) {
	spent := db.spent()
	for i, g := range spent {
		if g.damaged {
			err = db.setAside(g.mark.Number)
		} else {
			err = db.cold.Drop(g.mark.Number)
		}
		if err != nil {
			db.mu.Lock()
			db.dropped = append(db.dropped, spent[i:]...)
			db.mu.Unlock()
			return false, err
		}
	}
	db.limitJournal()
	if err := db.makeWay(ctx); err != nil {
		return false, err
	}
	if !db.moves() {
		return false, nil
	}
	last, replaces := db.plan()
	if last == nil && len(replaces) == 0 {
		return false, nil
	}
	err = db.move(ctx, last, replaces)
	db.limitJournal()
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return err == nil, err
}

// limitJournal leaves the journal what generations do not take, and what the next
// one will.
func (db *DB) limitJournal() {
	db.j.SetMax(max(db.o.MaxBytes-db.cold.Bytes()-db.forMoves(), 4*int64(db.o.SegmentBytes)))
}

// forMoves is the room that is left for generations: one that is being built while
// those that it replaces are still there.
func (db *DB) forMoves() int64 {
	if !db.moves() {
		return 0
	}
	return 2 * int64(db.o.SegmentBytes)
}

// plan says up to which segment records are to be moved (nil: none), and which
// generations are mostly drained and join them.
func (db *DB) plan() (last *uint32, replaces []uint32) {
	n, _ := db.j.Segments()
	db.mu.Lock()
	defer db.mu.Unlock()
	room := int64(db.o.SegmentBytes)
	if newest := db.j.Newest(); n > db.o.Ring/2 {
		last, room = db.oldest(newest+1-uint32(n), newest-uint32(db.o.Ring/4))
	}
	var poor []*sealed
	for _, g := range db.generations {
		if g.n > 0 && g.poor(db.full.Load()) {
			poor = append(poor, g)
		}
	}
	if len(poor) < manyPoor && !db.full.Load() {
		return last, nil
	}
	slices.SortFunc(poor, func(a, b *sealed) int { return a.n - b.n })
	frame := db.o.SegmentBytes / 8 // the record of the new one must fit
	for _, g := range poor {
		size, record := g.bytes(), generationSize(g, 1)
		if size <= room && record <= frame {
			room, frame = room-size, frame-record
			replaces = append(replaces, g.mark.Number)
		}
	}
	return last, replaces
}

// oldest chooses segments from first to most, as many as a generation holds and at
// least one, and says how much room they leave. Called with db.mu held.
func (db *DB) oldest(first, most uint32) (last *uint32, room int64) {
	size := map[uint32]int64{}
	for _, q := range db.byID {
		for _, e := range q.entries {
			if e.settled() {
				continue
			}
			if e.segment > most {
				break
			}
			size[e.segment] += int64(e.length)
		}
	}
	room = int64(db.o.SegmentBytes)
	for s := first; s <= most; s++ {
		if last != nil && size[s] > room {
			break
		}
		room -= size[s]
		last = &s
	}
	return last, room
}

// poor says whether a generation is drained so far that its rest should move on.
func (g *sealed) poor(full bool) bool {
	if full {
		return g.n*2 < g.built
	}
	return g.n*4 < g.built
}

// bytes is about what has not ended.
func (g *sealed) bytes() (n int64) {
	for _, k := range g.packs {
		if k != nil {
			n += int64(k.bytes)
		}
	}
	return n
}

// errNothing says that there was nothing to be moved after all.
var errNothing = errors.New("nothing to move")

// move builds a generation of what has not ended in the segments up to last and in
// the generations it replaces, and commits it.
func (db *DB) move(ctx context.Context, last *uint32, replaces []uint32) error {
	b := &builder{db: db, last: last, replaces: replaces, g: &sealed{}, seen: map[source]place{}}
	db.mu.Lock()
	number := db.lastGeneration + 1
	db.mu.Unlock()
	if len(replaces) > 0 {
		db.reach("leftovers merge")
	}
	mark, err := db.cold.Build(ctx, number, b.fill)
	if err != nil {
		return err
	}
	b.g.mark = mark
	c := &move{g: b.g, replaces: replaces, drafts: b.drafts}
	done := make(chan error, 1)
	db.submit(&request{changes: []change{c}, done: func(err error) { done <- err }, alone: true, again: true, spans: 1})
	select {
	case err = <-done:
	case <-ctx.Done():
		return ctx.Err() // it counts if it is committed after all, and is removed at the next opening if not
	}
	if err != nil {
		return errors.Join(err, db.cold.Drop(number))
	}
	for _, d := range b.drafts {
		d.positions, d.who = nil, nil // the packs live on, and these are twelve bytes a record
	}
	return nil
}

// coldPath is where a generation lies, for people.
func (db *DB) coldPath(number uint32) string {
	return filepath.Join(db.dir, fmt.Sprintf("g-%08d", number))
}
