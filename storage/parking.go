package storage

import (
	"cmp"
	"slices"
)

// Park keeps all records of a sender, present and future, from being read, until
// Unpark. It is remembered across restarts with its reason. done, which may be
// nil, runs when it is true; in a full store that may be after the next drain.
func (q *Queue) Park(sender, reason string, done func(error)) {
	q.db.submit(&request{changes: []change{&parkSender{q: q, sender: sender, reason: reason}}, done: done, again: true})
}

// Unpark lets a parked sender's records be read again. Read from the checkpoint
// to see the old ones, once done has run; it may be nil.
func (q *Queue) Unpark(sender string, done func(error)) {
	q.db.submit(&request{changes: []change{&unparkSender{q: q, sender: sender}}, done: done, again: true})
}

// ParkRecord keeps one record from being read, until UnparkRecords or Settle.
func (q *Queue) ParkRecord(p Position, reason string) {
	h, ok := q.claim(p, func(h *held) bool {
		was := h.state
		h.state = parking
		return was == pending
	})
	if ok {
		q.db.submit(&request{changes: []change{&parkRecord{q: q, who: h.who, name: len(q.db.nameOf(h.who)), pos: p, reason: reason}}, again: true})
	}
}

// UnparkRecord lets a record that was parked by itself be read again. Read from
// the checkpoint to see it.
func (q *Queue) UnparkRecord(p Position) {
	h, ok := q.claim(p, func(h *held) bool { return h.state == parked || h.state == parking })
	if ok {
		q.db.submit(&request{changes: []change{&unparkRecord{q: q, who: h.who, name: len(q.db.nameOf(h.who)), pos: p}}, again: true})
	}
}

// claim gives what is held of the record at p, whose it is among it, changed by
// change where that is true.
func (q *Queue) claim(p Position, change func(*held) bool) (held, bool) {
	for {
		contents, _ := q.contents([]Position{p})
		q.db.mu.Lock()
		h, ok := q.holds(p)
		if ok && !h.known {
			if h, ok = q.known(p, h, contents); !ok {
				k := q.packOf(p)
				q.db.mu.Unlock()
				if k != nil && k.ending {
					return h, false
				}
				continue // moved meanwhile
			}
		}
		if ok = ok && change(&h); ok {
			q.put(p, h)
		}
		q.db.mu.Unlock()
		return h, ok
	}
}

// ParkedRecord is one record that is parked by itself.
type ParkedRecord struct {
	Position Position
	Sender   string
	Reason   string
}

// ParkedRecords gives the records that are parked by themselves, in order.
func (q *Queue) ParkedRecords() []ParkedRecord {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	out := make([]ParkedRecord, 0, len(q.reasons))
	for p, why := range q.reasons {
		if h, ok := q.holds(p); ok {
			out = append(out, ParkedRecord{p, q.db.names[h.who], why})
		}
	}
	slices.SortFunc(out, func(a, b ParkedRecord) int { return cmp.Compare(a.Position, b.Position) })
	return out
}

// Unparked counts what was unparked in this queue since it was opened. While it
// stays the same, nobody behind the reader's back has made old records readable.
func (q *Queue) Unparked() uint64 {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	return q.freedBy
}

// UnparkedOf is Unparked for one sender.
func (q *Queue) UnparkedOf(sender string) uint64 {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	return q.freed[q.db.number(sender)]
}

// Parked gives the parked senders and the reasons.
func (q *Queue) Parked() map[string]string {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	out := map[string]string{}
	for who, why := range q.senders {
		out[q.db.names[who]] = why
	}
	return out
}
