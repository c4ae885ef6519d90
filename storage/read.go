package storage

import (
	"errors"
	"fmt"
	"slices"

	"holdfast.dev/holdfast/storage/journal"
)

// Limit bounds what one Read gives: at least one record if there is any.
type Limit struct {
	Records int // 1 or more
	Bytes   int // of bodies; no limit if zero
}

// Read gives pending records behind after, in order, passing over parked ones and
// those of senders that skip (if not nil) is true for. next is how far it looked:
// read on behind it. skip must not call the DB.
//
// A record that has outlived its time by the Clock's lower bound is settled as Expired
// and left out, as is, as Damaged, one that the disk gives back broken, twice. err is
// ErrClosed or nil.
func (q *Queue) Read(after Position, limit Limit, skip func(sender string) bool) (items []Item, next Position, err error) {
	found, next := q.scan(after, limit, q.reader(skip), true)
	var over []Position
	defer func() {
		if len(over) > 0 {
			q.Settle(over, Expired, nil)
		}
	}()
	q.fetch(found)
	for _, f := range found {
		item, err := q.load(f)
		if err != nil {
			f.message = nil
			item, err = q.load(f) // a fault that passes must not cost a record
		}
		switch {
		case err == nil && q.db.expired(item.Stamp, item.TTL):
			over = append(over, f.pos)
		case err == nil:
			items = append(items, item)
		case errors.Is(q.db.Err(), ErrClosed):
			return items, f.pos - 1, fmt.Errorf("read queue %s: %w", q.name, ErrClosed)
		case f.gone(q):
			// settled and dropped between the look and the read
		case f.moved(q):
			return items, f.pos - 1, nil // it is to be found elsewhere now: the next read does
		default:
			q.db.log.Warn("record is damaged", "queue", q.name, "position", f.pos, "error", err)
			q.Settle([]Position{f.pos}, Damaged, nil)
		}
	}
	return items, next, nil
}

// reader chooses what Read gives.
func (q *Queue) reader(skip func(string) bool) func(who uint32, s state) bool {
	skipped := map[uint32]bool{}
	return func(who uint32, s state) bool {
		if s != pending {
			return false
		}
		no, seen := skipped[who]
		if !seen {
			_, no = q.senders[who]
			no = no || skip != nil && skip(q.db.names[who])
			skipped[who] = no
		}
		return !no
	}
}

// found is a record that a look into a queue has chosen.
type found struct {
	pos Position
	entry
	message []byte // once it is read; of a cold one always
	cold    bool
	err     error // of a cold one that cannot be read
}

func (f found) gone(q *Queue) bool {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	_, ok := q.holds(f.pos)
	return !ok
}

// moved says whether a record that was read from the journal has become cold.
func (f found) moved(q *Queue) bool {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	h, ok := q.holds(f.pos)
	return ok && h.cold != f.cold
}

// glance is how many entries are looked at without letting others in.
const glance = 4096

// scan looks for records behind after that pick is true for, with db.mu held, and
// gives them in order. A pack that cannot be read is lost where lose is set, else
// its records come with the error.
func (q *Queue) scan(after Position, limit Limit, pick func(who uint32, s state) bool, lose bool) (out []found, next Position) {
	limit.Records = max(1, limit.Records)
	s := &scan{q: q, limit: limit, pick: pick, next: after, lose: lose}
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	for again := true; again && !s.full; {
		s.packs()
		again = !s.full && s.entries()
	}
	return s.out, s.next
}

// scan is one look into a queue under way.
type scan struct {
	q     *Queue
	limit Limit
	pick  func(uint32, state) bool
	lose  bool
	out   []found
	bytes int
	next  Position
	full  bool
}

// take takes a record in, or says that there is no room for it.
func (s *scan) take(f found) bool {
	s.full = len(s.out) >= s.limit.Records || len(s.out) > 0 && s.limit.Bytes > 0 && s.bytes+int(f.length) > s.limit.Bytes
	if !s.full {
		s.out = append(s.out, f)
		s.bytes += int(f.length)
	}
	return !s.full
}

// packs goes through the cold part.
func (s *scan) packs() {
	q := s.q
	for !s.full {
		i := q.packAfter(s.next) // anew each time: the index may have changed
		if i == len(q.cold) {
			return
		}
		k := q.cold[i]
		if k.ending || !s.wants(k) {
			s.next = k.last
			continue
		}
		if c, err := s.open(k); err != nil {
			s.broken(k, err)
		} else if k.g.packs[k.index] == k { // not merged, drained or dropped meanwhile
			s.pack(k, c)
		}
	}
}

// open gives what is in a pack, without the lock while it reads.
func (s *scan) open(k *pack) (*packed, error) {
	db := s.q.db
	if c, ok := db.shelf.get(k); ok {
		return c, nil
	}
	db.mu.Unlock()
	defer db.mu.Lock()
	c, err := db.content(k)
	if err != nil {
		c, err = db.content(k) // a fault that passes must not cost records
	}
	return c, err
}

// wants says whether there may be something in the pack to be picked, so that it is
// not read for senders that are parked or skipped.
func (s *scan) wants(k *pack) bool {
	return slices.ContainsFunc(k.whose, func(w share) bool {
		return w.n > 0 && (s.pick(w.who, pending) || s.pick(w.who, parked))
	})
}

func (s *scan) pack(k *pack, c *packed) {
	for i, p := range c.positions {
		if p <= s.next || !k.has(p) {
			continue
		}
		h, m := oddity{state: pending}, c.messages[i]
		if o, odd := s.q.odd[p]; odd {
			h = o
		} else {
			h.who = s.q.db.number(string(senderOf(m)))
		}
		if s.pick(h.who, h.state) && !s.take(found{pos: p, entry: entry{length: uint32(len(m)), who: h.who | uint32(h.state)<<28}, message: m, cold: true}) {
			return
		}
		s.next = p
	}
	s.next = max(s.next, k.last)
}

// broken deals with a pack that the disk does not give back.
func (s *scan) broken(k *pack, err error) {
	if k.g.packs[k.index] != k {
		return // merged, drained or dropped meanwhile
	}
	if s.lose {
		s.q.db.losePack(k, err)
	} else {
		for p := k.first; p <= k.last; p++ {
			if k.has(p) && p > s.next && !s.take(found{pos: p, entry: entry{who: whoMask}, err: err, cold: true}) {
				return
			}
			s.next = max(s.next, p)
		}
	}
	s.next = max(s.next, k.last)
}

// entries goes through what is still in the journal. It is true where some of that
// has become cold meanwhile.
func (s *scan) entries() (again bool) {
	q := s.q
	s.next = max(s.next, q.base-1)
	for looked := 1; int(s.next+1-q.base) < len(q.entries); looked++ {
		if looked%glance == 0 { // the committer must not wait for a million that are parked
			q.db.mu.Unlock()
			q.db.mu.Lock()
			if q.packAfter(s.next) < len(q.cold) {
				return true
			}
			if s.next = max(s.next, q.base-1); int(s.next+1-q.base) >= len(q.entries) {
				return false
			}
		}
		e := q.entries[s.next+1-q.base]
		if !e.settled() && s.pick(e.sender(), e.state()) && !s.take(found{pos: s.next + 1, entry: e}) {
			return false
		}
		if s.next++; len(s.out) >= s.limit.Records {
			s.full = true
		}
		if s.full {
			return false
		}
	}
	return false
}

// fetch reads what lies together in the journal at once. What it does not get, load
// tries by itself.
func (q *Queue) fetch(found []found) {
	for len(found) > 0 {
		n := 1
		first := found[0]
		end := first.offset + first.length
		for n < len(found) && !first.cold && !found[n].cold && found[n].segment == first.segment &&
			found[n].offset >= end && found[n].offset-end <= journal.Page && found[n].offset+found[n].length-first.offset <= fetchBytes {
			end = found[n].offset + found[n].length
			n++
		}
		if n > 1 {
			p := make([]byte, end-first.offset)
			if q.db.j.ReadAt(p, journal.Loc{Segment: first.segment, Offset: first.offset}) == nil {
				for i := range found[:n] {
					f := &found[i]
					f.message = p[f.offset-first.offset:][:f.length:f.length]
				}
			}
		}
		found = found[n:]
	}
}

// fetchBytes bounds one read of the journal.
const fetchBytes = 256 << 10

// load reads a record that was found.
func (q *Queue) load(f found) (Item, error) {
	p := f.message
	if f.err != nil {
		return Item{}, f.err
	}
	if p == nil {
		p = make([]byte, f.length)
		if err := q.db.j.ReadAt(p, journal.Loc{Segment: f.segment, Offset: f.offset}); err != nil {
			return Item{}, err
		}
	}
	m, err := parseMessage(p)
	if err != nil {
		return Item{}, err
	}
	c, ok := m.in(q.id)
	if !ok || c.pos != f.pos {
		return Item{}, fmt.Errorf("message record: it is not the one at position %d", f.pos)
	}
	return Item{Position: f.pos, Sender: m.sender, Stamp: m.stamp, TTL: c.ttl, Note: c.note, Body: m.body}, nil
}
