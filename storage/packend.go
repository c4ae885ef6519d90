package storage

import (
	"encoding/binary"
	"time"
)

// endPack ends all that is left in a pack at once, without reading it: the disk does
// not give it back, it has outlived its time, or it makes way. The record says how
// many of whom that are, so that replay does not need the pack either. It has a frame
// of its own, so that every end that came before it is known to it.
type endPack struct {
	q             *Queue
	k             *pack // nil in replay
	number, index uint32
	first, last   Position
	outcome       Outcome
	ends          []packEnd
}

// packEnd is what ends of one sender.
type packEnd struct {
	who             uint32
	pending, parked uint64
}

func (c *endPack) size() int { return 64 + 64*len(c.k.whose) }

func (c *endPack) encode(db *DB, g *group) {
	k := c.k
	c.number, c.index, c.first, c.last, c.ends = k.g.mark.Number, k.index, k.first, k.last, nil
	alone := map[uint32]uint64{}
	for p, o := range c.q.odd {
		if k.has(p) && (o.state == parked || o.state == settlingParked) {
			alone[o.who]++
		}
	}
	for _, s := range k.whose {
		e := packEnd{s.who, uint64(s.n) - alone[s.who], alone[s.who]}
		if c.q.isParked(s.who, pending) {
			e.pending, e.parked = 0, uint64(s.n)
		}
		if s.n > 0 && k.g.packs[k.index] == k {
			c.ends = append(c.ends, e)
		}
	}
	g.record(kindPackEnd, func(b []byte) []byte {
		b = append(binary.AppendUvarint(b, uint64(c.q.id)), byte(c.outcome))
		b = binary.AppendUvarint(b, uint64(len(c.ends)))
		for _, e := range c.ends {
			b = appendString(b, db.names[e.who])
			b = binary.AppendUvarint(binary.AppendUvarint(b, e.pending), e.parked)
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(c.number)), uint64(c.index))
		return binary.AppendUvarint(binary.AppendUvarint(b, uint64(c.first)), uint64(c.last-c.first))
	})
}

func (c *endPack) apply(db *DB) {
	for _, e := range c.ends {
		row := db.row(e.who, c.q.id)
		row.Pending -= e.pending
		row.Parked -= e.parked
		*row.outcome(c.outcome) += e.pending + e.parked
	}
	g := db.generations[c.number]
	if g == nil {
		c.forget()
		return
	}
	if int(c.index) >= len(g.packs) || g.packs[c.index] == nil {
		return
	}
	k := g.packs[c.index]
	for p := range c.q.odd {
		if k.has(p) {
			delete(c.q.odd, p)
			delete(c.q.reasons, p)
		}
	}
	g.n -= k.n
	g.damaged = g.damaged || c.outcome == Damaged
	c.q.unfile(k)
}

// forget lets go, in replay, of what a move had taken over whose generation is gone,
// while the segments that it came from are still there. What lies between first and
// last and was not in the pack had ended before.
func (c *endPack) forget() {
	for p := max(c.first, c.q.base); p <= c.last && p < c.q.next(); p++ {
		if e := c.q.at(p); !e.settled() {
			c.q.forget(e)
			delete(c.q.reasons, p)
		}
	}
	c.q.advance()
}

func (r *replay) endPack(in *reader) error {
	c := &endPack{q: r.queue(in), outcome: Outcome(in.byte())}
	for n := in.uint(); n > 0 && in.err == nil; n-- {
		c.ends = append(c.ends, packEnd{r.db.number(in.string()), in.uint(), in.uint()})
	}
	c.number, c.index = uint32(in.uint()), uint32(in.uint())
	c.first = Position(in.uint())
	if c.last = c.first + Position(in.uint()); in.err == nil {
		c.apply(r.db)
	}
	return in.err
}

// endPack hands it over. Called with db.mu held; done may be nil.
func (db *DB) endPack(k *pack, o Outcome, done func(error)) {
	k.ending = true
	db.submit(&request{changes: []change{&endPack{q: k.q, k: k, outcome: o}}, done: done, again: true, alone: true, spans: 1})
}

// losePack gives up a pack that the disk does not give back. Called with db.mu held.
func (db *DB) losePack(k *pack, why error) {
	if k.ending || db.Err() != nil {
		return
	}
	db.log.Error("pack of a generation cannot be read; its records are counted as damaged",
		"generation", k.g.mark.Number, "queue", k.q.name, "first", k.first, "last", k.last, "records", k.n, "error", why)
	db.stats.Damage = append(db.stats.Damage, Damage{File: db.coldPath(k.g.mark.Number), Records: uint64(k.n)})
	db.endPack(k, Damaged, nil)
}

// expired says whether a record that lives for ttl has outlived it: never for zero,
// at once for less. Nothing expires by a guess: an age that is only known to lie
// between bounds is taken as the lower one.
func (db *DB) expired(s Stamp, ttl time.Duration) bool {
	if ttl == 0 {
		return false
	}
	least, _ := db.o.Clock.Age(s)
	return least >= ttl
}

// sweep ends the packs in which everything has outlived its time, so that their
// space comes back though nobody reads them. What is parked by itself waits for
// somebody's decision all the same.
func (db *DB) sweep() {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, q := range db.byID {
		for _, k := range q.cold {
			if k.ending || k.until.ttl == 0 || !db.expired(k.until.stamp, time.Duration(k.until.ttl)*time.Millisecond) || q.anyOdd(k) {
				continue
			}
			db.endPack(k, Expired, nil)
		}
	}
}

func (q *Queue) anyOdd(k *pack) bool {
	for p := range q.odd {
		if k.has(p) {
			return true
		}
	}
	return false
}
