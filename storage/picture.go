package storage

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// A picture of the state stands at the head of every segment: maps, queues and
// their next positions, parked senders, ledger. So the oldest segments can be
// given up as soon as no record in them is live, with nothing copied, and the
// oldest that is left says all that replay needs.

// rotate takes a fresh segment into use and writes the picture at its head, and in
// as many more as it needs. One that is cut short by a crash or for want of room
// does no harm: the next frame that is none of it ends it.
func (db *DB) rotate() error {
	db.mu.Lock()
	frames := db.picture()
	db.mu.Unlock()
	first := uint32(0)
	for i, g := range frames {
		if i == 0 && !db.j.Fresh() || !db.j.Fits(len(g.body), 0) {
			if err := db.j.Rotate(); err != nil {
				return err
			}
		}
		if i == 0 {
			first = db.j.Newest()
		}
		if _, err := db.j.Write(g.n, g.body); err != nil {
			return fmt.Errorf("write picture of the state: %w", err)
		}
		db.mu.Lock()
		db.stats.Commits++
		db.stats.Bytes += uint64(len(g.body))
		db.mu.Unlock()
	}
	db.markNext()
	db.pictured = append(db.pictured, first)
	db.mover.nudge()
	db.watchGate()
	return nil
}

// reclaim gives up the segments before the newest picture that has nothing live
// before it. What ended their records is on disk already.
func (db *DB) reclaim() error {
	db.mu.Lock()
	oldest := db.j.Newest()
	for s := range db.live {
		if db.live[s] == 0 {
			delete(db.live, s)
		} else {
			oldest = min(oldest, s)
		}
	}
	db.mu.Unlock()
	i := len(db.pictured) - 1
	for i > 0 && db.pictured[i] > oldest {
		i--
	}
	if i < 0 || db.pictured[i] > oldest {
		return nil
	}
	keep := db.pictured[i]
	db.pictured = db.pictured[i:]
	if err := db.j.DropBefore(keep); err != nil {
		return fmt.Errorf("give up old segments: %w", err)
	}
	db.watchGate()
	return nil
}

// pictureFrame is about what one frame of a picture takes.
func (db *DB) pictureFrame() int { return min(256<<10, db.o.SegmentBytes/8) }

// picture encodes the state. Called with db.mu held; order does not matter but is
// kept the same for the same state.
func (db *DB) picture() []*group {
	frames := []*group{}
	var g *group
	add := func(k kind, fill func([]byte) []byte) {
		if g == nil || len(g.body) > db.pictureFrame() {
			g = &group{db: db, body: appendStamp(nil, db.o.Clock.Now())}
			if frames = append(frames, g); k != kindBegin {
				g.body, g.scratch = appendRecord(g.body, g.scratch, kindMore, func(b []byte) []byte { return b })
				g.n++
			}
		}
		g.body, g.scratch = appendRecord(g.body, g.scratch, k, fill)
		g.n++
	}
	add(kindBegin, func(b []byte) []byte { return b })
	for _, id := range slices.Sorted(maps.Keys(db.byID)) {
		q := db.byID[id]
		if !q.written || q.unnamed {
			continue
		}
		add(kindQueue, func(b []byte) []byte { return appendString(binary.AppendUvarint(b, uint64(id)), q.name) })
		add(kindNext, func(b []byte) []byte {
			return binary.AppendUvarint(binary.AppendUvarint(b, uint64(id)), uint64(q.next()))
		})
		for who, why := range q.senders {
			add(kindPark, func(b []byte) []byte {
				return appendString(appendString(binary.AppendUvarint(b, uint64(id)), db.names[who]), why)
			})
		}
		for p, why := range q.reasons {
			h, ok := q.holds(p)
			if !ok {
				continue
			}
			add(kindParked, func(b []byte) []byte {
				b = appendString(binary.AppendUvarint(b, uint64(id)), db.names[h.who])
				return appendString(binary.AppendUvarint(b, uint64(p)), why)
			})
		}
	}
	for _, n := range slices.Sorted(maps.Keys(db.generations)) {
		if g := db.generations[n]; g.n > 0 {
			add(kindGeneration, func(b []byte) []byte { return appendGeneration(b, g, nil) })
		}
	}
	for k, r := range db.ledger {
		add(kindRow, func(b []byte) []byte { return appendRow(b, k.queue, r) })
	}
	for name, m := range db.maps {
		for key, v := range m {
			add(kindSet, func(b []byte) []byte {
				return appendBytes(append(appendString(appendString(b, name), key), 1), v)
			})
		}
	}
	add(kindEnd, func(b []byte) []byte { return b })
	return frames
}

func appendRow(b []byte, queue uint32, r *Row) []byte {
	b = binary.AppendUvarint(b, uint64(queue+1)) // noQueue wraps to 0
	b = appendString(b, r.Sender)
	for _, n := range r.counts() {
		b = binary.AppendUvarint(b, *n)
	}
	return b
}

// counts gives the row's counters in the order in which they are written.
func (r *Row) counts() []*uint64 {
	return []*uint64{&r.Accepted, &r.Delivered, &r.Expired, &r.Evicted, &r.Discarded, &r.Damaged,
		&r.Parked, &r.Pending, &r.Unrouted}
}
