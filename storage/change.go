package storage

import (
	"encoding/binary"
	"slices"

	"holdfast.dev/holdfast/storage/journal"
)

// change is one record on its way into the journal. encode runs when the group is
// put together, apply when it is on disk; both run under db.mu, in the same order.
// Replay makes the same changes of the records it reads and applies them, so that
// what a restart finds is what was there.
type change interface {
	size() int // upper bound of the record's bytes
	encode(db *DB, g *group)
	apply(db *DB)
}

// store is a message for one or several queues.
type store struct {
	rec *Record
	m   message
	loc journal.Loc // of the payload, relative to the frame's body until apply
	len int
}

func (c *store) size() int {
	n := 64 + stampSize + len(c.rec.Sender) + len(c.rec.Body)
	for _, d := range c.rec.To {
		n += 64 + len(d.Note) + len(d.Queue) // it may have to be opened
	}
	return n
}

func (c *store) encode(db *DB, g *group) {
	c.m = message{sender: c.rec.Sender, stamp: c.rec.Stamp, body: c.rec.Body}
	for _, d := range c.rec.To {
		q := db.queue(d.Queue)
		g.open(q)
		c.m.to = append(c.m.to, copyTo{queue: q.id, pos: g.position(q), ttl: d.TTL, note: d.Note})
	}
	start, n := g.record(kindMessage, func(b []byte) []byte { return appendMessage(b, c.m) })
	c.loc, c.len = journal.Loc{Offset: uint32(start)}, n
}

func (c *store) apply(db *DB) {
	who := db.number(c.m.sender)
	for _, t := range c.m.to {
		q := db.byID[t.queue]
		if t.pos > q.next() { // only in replay, after damage
			q.gap(t.pos)
		}
		q.push(entry{segment: c.loc.Segment, offset: c.loc.Offset, length: uint32(c.len), who: who})
		row := db.row(who, t.queue)
		row.Accepted++
		*q.openCount(row, who, pending)++
	}
}

// settle ends records of one sender in one queue.
type settle struct {
	q       *Queue
	who     uint32
	name    int // length of the sender's name
	outcome Outcome
	spans   []span
}

func (c *settle) size() int { return 48 + 20*len(c.spans) + c.name }

// encode leaves out what has ended since: with its pack, in a frame that came before.
func (c *settle) encode(db *DB, g *group) {
	c.spans = c.q.stillHeld(c.spans)
	if len(c.spans) == 0 {
		return
	}
	g.record(kindSettled, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(c.q.id))
		b = appendString(b, db.names[c.who])
		b = append(b, byte(c.outcome))
		return appendSpans(b, c.spans)
	})
}

func (c *settle) apply(db *DB) {
	row := db.row(c.who, c.q.id)
	for _, s := range c.spans {
		for p := s.first; p < s.first+s.n; p++ {
			h, ok := c.q.holds(p)
			switch {
			case ok:
				*c.q.openCount(row, c.who, h.state)--
				c.q.end(p, c.who)
			case p < c.q.origin: // in a segment or generation that is gone; the picture counted it
				*c.q.openCount(row, c.who, c.q.odd[p].stateOr(pending))--
				delete(c.q.odd, p)
				delete(c.q.reasons, p)
			case !c.q.refound(db, row, p):
				continue
			}
			*row.outcome(c.outcome)++
		}
	}
}

// stillHeld gives what of the spans has not ended.
func (q *Queue) stillHeld(spans []span) []span {
	ended := func(s span) bool {
		for p := s.first; p < s.first+s.n; p++ {
			if _, ok := q.holds(p); !ok {
				return true
			}
		}
		return false
	}
	if !slices.ContainsFunc(spans, ended) {
		return spans
	}
	var ps []Position
	for _, s := range spans {
		for p := s.first; p < s.first+s.n; p++ {
			if _, ok := q.holds(p); ok {
				ps = append(ps, p)
			}
		}
	}
	return spansOf(ps)
}

// refound says whether p is a record that damage took, but not its end, and makes it
// one of row's.
func (q *Queue) refound(db *DB, row *Row, p Position) bool {
	counted, ok := q.lost[p]
	if !ok {
		return false
	}
	delete(q.lost, p)
	if counted {
		row.Pending--
		return true
	}
	nobody := db.row(db.number(""), q.id)
	nobody.Accepted--
	nobody.Damaged--
	row.Accepted++
	return true
}

// parkSender keeps a sender's records back.
type parkSender struct {
	q              *Queue
	sender, reason string
}

func (c *parkSender) size() int { return 128 + len(c.q.Name()) + len(c.sender) + len(c.reason) }

func (c *parkSender) encode(_ *DB, g *group) {
	g.open(c.q)
	g.record(kindPark, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(c.q.id))
		return appendString(appendString(b, c.sender), c.reason)
	})
}

func (c *parkSender) apply(db *DB) {
	who := db.number(c.sender)
	if _, ok := c.q.senders[who]; !ok {
		row := db.row(who, c.q.id)
		row.Parked += row.Pending
		row.Pending = 0
	}
	c.q.senders[who] = c.reason
}

// unparkSender lets them go again.
type unparkSender struct {
	q      *Queue
	sender string
}

func (c *unparkSender) size() int { return 128 + len(c.q.Name()) + len(c.sender) }

func (c *unparkSender) encode(_ *DB, g *group) {
	g.open(c.q)
	g.record(kindUnpark, func(b []byte) []byte {
		return appendString(binary.AppendUvarint(b, uint64(c.q.id)), c.sender)
	})
}

func (c *unparkSender) apply(db *DB) {
	who := db.number(c.sender)
	if _, ok := c.q.senders[who]; !ok {
		return
	}
	delete(c.q.senders, who)
	row := db.row(who, c.q.id)
	row.Pending, row.Parked = row.Parked, 0
	alone := c.q.alone(who) // those parked by themselves stay so
	row.Pending -= alone
	row.Parked += alone
	c.q.free(who)
}

// parkRecord keeps one record back.
type parkRecord struct {
	q      *Queue
	who    uint32
	name   int // length of the sender's name
	pos    Position
	reason string
}

func (c *parkRecord) size() int { return 64 + c.name + len(c.reason) }

func (c *parkRecord) encode(db *DB, g *group) {
	if _, ok := c.q.holds(c.pos); !ok {
		return // ended since
	}
	g.record(kindParked, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(c.q.id))
		b = appendString(b, db.names[c.who])
		b = binary.AppendUvarint(b, uint64(c.pos))
		return appendString(b, c.reason)
	})
}

func (c *parkRecord) apply(db *DB) {
	h, ok := c.q.holds(c.pos)
	switch {
	case !ok && c.pos < c.q.origin: // in replay: where it lies is yet to come
		c.q.beOdd(c.pos, oddity{c.who, parked})
	case !ok:
		return
	case h.state == pending || h.state == parking:
		h.who, h.state = c.who, parked
		c.q.put(c.pos, h)
	case h.state == settling:
		h.state = settlingParked
		c.q.put(c.pos, h)
	default:
		return
	}
	row := db.row(c.who, c.q.id)
	*c.q.openCount(row, c.who, pending)--
	row.Parked++
	c.q.because(c.pos, c.reason)
}

// unparkRecord lets one record go again.
type unparkRecord struct {
	q    *Queue
	who  uint32
	name int // length of the sender's name
	pos  Position
}

func (c *unparkRecord) size() int { return 64 + c.name }

func (c *unparkRecord) encode(db *DB, g *group) {
	g.record(kindUnparked, func(b []byte) []byte {
		b = appendString(binary.AppendUvarint(b, uint64(c.q.id)), db.names[c.who])
		return binary.AppendUvarint(b, uint64(c.pos))
	})
}

func (c *unparkRecord) apply(db *DB) {
	h, ok := c.q.holds(c.pos)
	switch {
	case !ok && c.q.odd[c.pos].stateOr(pending) == parked: // in replay
		delete(c.q.odd, c.pos)
	case !ok || h.state != parked:
		return
	default:
		h.state = pending
		c.q.put(c.pos, h)
	}
	row := db.row(c.who, c.q.id)
	row.Parked--
	*c.q.openCount(row, c.who, pending)++
	delete(c.q.reasons, c.pos)
	c.q.free(c.who)
}

// setKey changes a map.
type setKey struct{ Change }

func (c setKey) size() int { return 32 + len(c.Map) + len(c.Key) + len(c.Value) }

func (c setKey) encode(_ *DB, g *group) {
	g.record(kindSet, func(b []byte) []byte {
		b = appendString(appendString(b, c.Map), c.Key)
		if c.Value == nil {
			return append(b, 0)
		}
		return appendBytes(append(b, 1), c.Value)
	})
}

func (c setKey) apply(db *DB) { db.set(c.Change) }

// unrouted counts messages that nobody wanted.
type unrouted struct {
	sender string
	n      uint64
}

func (c *unrouted) size() int { return 32 + len(c.sender) }

func (c *unrouted) encode(_ *DB, g *group) {
	g.record(kindUnrouted, func(b []byte) []byte {
		return binary.AppendUvarint(appendString(b, c.sender), c.n)
	})
}

func (c *unrouted) apply(db *DB) { db.row(db.number(c.sender), noQueue).Unrouted += c.n }
