package storage

import (
	"errors"
	"fmt"
	"slices"

	"holdfast.dev/holdfast/storage/journal"
)

// What a full store still does: it refuses what would stay, forgets, settles and
// drains, and is never in need of a segment for that which it cannot have.

// reserve is what is left free in a segment while no other stands ready, so that
// settlements find room until it is known whether there will be one.
func (db *DB) reserve() int { return db.o.SegmentBytes / 8 }

// makeRoom sees to it that the batch fits the present segment, taking a fresh one
// where it does not. When none is to be had, appends are refused, and others too
// if even the reserve is used up: their callers lose nothing but time.
func (db *DB) makeRoom(batch []*request, verdict []error) error {
	if slices.ContainsFunc(db.aside, func(r *request) bool { return r.again && !r.alone }) {
		db.queueUp(batch, verdict)
	}
	db.checkQuota(batch, verdict)
	db.checkPolicies(batch, verdict)
	db.checkRemovals(batch, verdict)
	db.full.Store(false)
	if db.fits(batch, verdict) {
		return nil
	}
	if !db.j.Spacious() && slices.ContainsFunc(batch, func(r *request) bool { return r.bytes }) {
		// What is left is for settlements.
		db.full.Store(true)
		db.refuse(batch, verdict, func(r *request) bool { return r.bytes })
		if db.fits(batch, verdict) {
			return nil
		}
	}
	err := db.rotate()
	if err == nil && !db.fits(batch, verdict) { // the picture left too little
		err = db.j.Rotate()
	}
	if err != nil && !errors.Is(err, journal.ErrNoSpace) {
		return err
	}
	if err != nil || !db.fits(batch, verdict) {
		db.full.Store(true)
		db.refuse(batch, verdict, func(*request) bool { return true })
	}
	return nil
}

// queueUp keeps parkings and unparkings in order: none overtakes one that waits. What
// has a frame of its own may: it makes the room that they wait for.
func (db *DB) queueUp(batch []*request, verdict []error) {
	for i, r := range batch {
		if r.again && !r.alone && verdict[i] == nil {
			verdict[i] = errLater
		}
	}
}

// checkQuota refuses what the maps have no room for.
func (db *DB) checkQuota(batch []*request, verdict []error) {
	held := db.mapBytes
	for i, r := range batch {
		if verdict[i] != nil {
			continue
		}
		grows := db.growth(r)
		if grows > 0 && held+grows > db.mapQuota() {
			verdict[i] = fmt.Errorf("change maps: %w: at most %d bytes of keys and values", ErrFull, db.mapQuota())
			continue
		}
		held += grows
	}
}

// fits says whether all that is not refused may go into the present segment.
func (db *DB) fits(batch []*request, verdict []error) bool {
	size, spare := slack, 0
	for i, r := range batch {
		if verdict[i] == nil {
			size += r.size
			spare = max(spare, db.spared(r))
		}
	}
	return db.j.Fits(size, spare)
}

// spared is what a request must leave of the present segment. While a fresh one
// stands ready that is nothing. Of the last there is, appends get none, and what
// is neither append nor end of a record only half: with each of them a page goes,
// and the rest must do for a drain.
func (db *DB) spared(r *request) int {
	switch {
	case len(r.changes) == 0, db.j.Ready():
		return 0
	case !db.j.Last():
		return db.reserve()
	case r.bytes:
		return db.o.SegmentBytes
	case r.spans == 0:
		return db.o.SegmentBytes / 2
	}
	return 0
}

// growth is what a request adds to the maps at most: what it removes is not told off.
func (db *DB) growth(r *request) (n int) {
	for _, c := range r.changes {
		s, ok := c.(setKey)
		if !ok || s.Value == nil {
			continue
		}
		if old, ok := db.maps[s.Map][s.Key]; ok { // only the committer changes maps
			n += max(0, len(s.Value)-len(old))
		} else {
			n += len(s.Key) + len(s.Value)
		}
	}
	return n
}

// slack is room in a frame for what belongs to none of its records.
const slack = 4096

// refuse decides what of a batch a full store still takes, of those that are which
// is true for: what fits, each in its share. A settlement that nobody waits for, and
// what must become true, goes back into the line; a repeat is all that a crash
// would cost meanwhile.
func (db *DB) refuse(batch []*request, verdict []error, which func(*request) bool) {
	used, waits := slack, false // waits: a parking does, and none may overtake it
	for i, r := range batch {
		if verdict[i] != nil || !which(r) {
			continue
		}
		switch {
		case len(r.changes) == 0:
		case r.again && waits:
			verdict[i] = errLater
		case db.j.Fits(used+r.size, db.spared(r)):
			used += r.size
		case r.lazy || r.again:
			verdict[i], waits = errLater, waits || r.again
		default:
			verdict[i] = fmt.Errorf("%w: %w", ErrFull, journal.ErrNoSpace)
			db.unsettle(r)
		}
	}
}

// errBehind is for what fits, and would pass something that did not.
var errBehind = fmt.Errorf("%w: a record before it was refused", ErrFull)

// errLater marks a request that is put back into the line.
var errLater = errors.New("later")

// unsettle makes the records of a settlement that was refused readable again.
func (db *DB) unsettle(r *request) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, c := range r.changes {
		s, ok := c.(*settle)
		if !ok {
			continue
		}
		for _, sp := range s.spans {
			for p := sp.first; p < sp.first+sp.n; p++ {
				h, ok := s.q.holds(p)
				switch {
				case !ok:
					continue
				case h.state == settling:
					h.state = pending
				case h.state == settlingParked:
					h.state = parked
				}
				s.q.put(p, h)
			}
		}
	}
}
