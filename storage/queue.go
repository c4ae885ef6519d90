package storage

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"holdfast.dev/holdfast/storage/journal"
)

// Queue is one line of records. Its methods may be called by any goroutine.
//
// Every position has one state; only what is pending is read, and each ends once:
//
//	state     event                 next
//	pending   Settle                settling   not read again; its end waits for the next commit
//	pending   ParkRecord            parking    not read again; the ledger follows with the next commit
//	parking   the commit            parked
//	parked    UnparkRecord          pending    when it is committed
//	parking   Settle                settling
//	parked    Settle                settling
//	settling  the commit            settled    the ledger has it
//
// A parked sender is a state of its own beside these: its records stay pending in
// the index, are passed over by Read, and count as parked in the ledger.
type Queue struct {
	db   *DB
	id   uint32
	name string

	// Guarded by db.mu.
	written bool     // the journal knows it
	unnamed bool     // damage took its name
	base    Position // position of entries[0]
	entries []entry
	gone    int // entries that were cut off the front and may still hold memory
	bytes   uint64
	rows    []*Row              // of the ledger
	senders map[uint32]string   // parked senders and why
	reasons map[Position]string // of records that are parked by themselves
	freed   map[uint32]uint64   // how often something of a sender was unparked
	freedBy uint64              // their sum
	changed chan struct{}
	origin  Position          // positions before it were given before the oldest segment
	lost    map[Position]bool // in replay: positions lost to damage; true if a picture has counted whose they were
}

// entry is what is held in memory of a record: where it is, whose, in what state.
type entry struct {
	segment, offset, length uint32 // of the message's payload; length 0: settled
	who                     uint32 // sender's number in the low 28 bits, state above
}

type state uint32

const (
	pending state = iota
	parked
	settling // from pending
	settlingParked
	parking
)

const whoMask = 1<<28 - 1

func (e entry) sender() uint32 { return e.who & whoMask }
func (e entry) state() state   { return state(e.who >> 28) }
func (e *entry) set(s state)   { e.who = e.who&whoMask | uint32(s)<<28 }
func (e entry) settled() bool  { return e.length == 0 }

// Name is the queue's name.
func (q *Queue) Name() string {
	q.db.mu.Lock() // damage may have taken it, and then it is named again
	defer q.db.mu.Unlock()
	return q.name
}

// Changed gives a channel that is closed at the next append, unparking or
// opening. Take it before Read, or a change is missed.
func (q *Queue) Changed() <-chan struct{} {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	return q.changed
}

// Limit bounds what one Read gives: at least one record if there is any.
type Limit struct {
	Records int // 1 or more
	Bytes   int // of bodies; no limit if zero
}

// Read gives pending records behind after, in order, passing over parked ones and
// those of senders that skip (if not nil) is true for. next is how far it looked:
// read on behind it. skip must not call the DB.
//
// A record that the disk gives back broken, twice, is settled as Damaged and left
// out. err is ErrClosed or nil.
func (q *Queue) Read(after Position, limit Limit, skip func(sender string) bool) (items []Item, next Position, err error) {
	found, next := q.find(after, limit, skip)
	for _, f := range found {
		item, err := q.load(f)
		if err != nil {
			item, err = q.load(f) // a fault that passes must not cost a record
		}
		switch {
		case err == nil:
			items = append(items, item)
		case errors.Is(q.db.Err(), ErrClosed):
			return items, f.pos - 1, fmt.Errorf("read queue %s: %w", q.name, ErrClosed)
		case f.gone(q):
			// settled and dropped between the look and the read
		default:
			q.db.log.Warn("record is damaged", "queue", q.name, "position", f.pos, "error", err)
			q.Settle([]Position{f.pos}, Damaged, nil)
		}
	}
	return items, next, nil
}

// found is an entry that a read has chosen.
type found struct {
	pos Position
	entry
}

func (f found) gone(q *Queue) bool {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	e := q.at(f.pos)
	return e == nil || e.settled()
}

func (q *Queue) find(after Position, limit Limit, skip func(string) bool) (out []found, next Position) {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	skipped := map[uint32]bool{}
	next = max(after, q.base-1)
	bytes := 0
	for looked := 1; int(next+1-q.base) < len(q.entries); looked++ {
		if looked%glance == 0 { // the committer must not wait for a million that are parked
			q.db.mu.Unlock()
			q.db.mu.Lock()
			if next = max(next, q.base-1); int(next+1-q.base) >= len(q.entries) {
				break
			}
		}
		e := q.entries[next+1-q.base]
		if len(out) >= max(1, limit.Records) || len(out) > 0 && limit.Bytes > 0 && bytes+int(e.length) > limit.Bytes {
			break
		}
		next++
		if e.settled() || e.state() != pending {
			continue
		}
		s, seen := skipped[e.sender()]
		if !seen {
			_, s = q.senders[e.sender()]
			s = s || skip != nil && skip(q.db.names[e.sender()])
			skipped[e.sender()] = s
		}
		if !s {
			out = append(out, found{next, e})
			bytes += int(e.length)
		}
	}
	return out, next
}

// glance is how many entries are looked at without letting others in.
const glance = 4096

func (q *Queue) load(f found) (Item, error) {
	p := make([]byte, f.length)
	if err := q.db.j.ReadAt(p, journal.Loc{Segment: f.segment, Offset: f.offset}); err != nil {
		return Item{}, err
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

// Settle ends records. Positions may come in any order; those that are not there
// or have ended are passed over. With done it joins the next commit, and done runs
// when that is on disk. Without, it rides in the next commit, or is committed alone
// after a second or a thousand positions: a crash before costs a repeat.
func (q *Queue) Settle(positions []Position, o Outcome, done func(error)) {
	by := map[uint32][]Position{}
	q.db.mu.Lock()
	for _, p := range positions {
		e := q.at(p)
		if e == nil || e.settled() {
			continue
		}
		switch e.state() {
		case pending, parking:
			e.set(settling)
		case parked:
			e.set(settlingParked)
		default:
			continue
		}
		by[e.sender()] = append(by[e.sender()], p)
	}
	var reqs []*request
	most := min(spansAtOnce, q.db.o.SegmentBytes/128)
	for who, ps := range by {
		for spans := spansOf(ps); len(spans) > 0; {
			n := min(len(spans), most)
			c := &settle{q: q, who: who, name: len(q.db.names[who]), outcome: o, spans: spans[:n]}
			if r := len(reqs) - 1; r >= 0 && reqs[r].spans+n <= most {
				reqs[r].changes, reqs[r].spans = append(reqs[r].changes, c), reqs[r].spans+n
			} else {
				reqs = append(reqs, &request{changes: []change{c}, spans: n, lazy: done == nil})
			}
			spans = spans[n:]
		}
	}
	q.db.mu.Unlock()
	if len(reqs) == 0 && done != nil {
		reqs = []*request{{}}
	}
	if len(reqs) > 0 {
		reqs[0].weight = len(positions)
	}
	all := together(done, len(reqs))
	for _, r := range reqs {
		r.done = all
		q.db.submit(r)
	}
}

// spansAtOnce is how many runs of positions one request may end: a frame must hold
// it, however many positions somebody ends at once.
const spansAtOnce = 4096

// together calls done once for n requests, with the first error.
func together(done func(error), n int) func(error) {
	if done == nil || n == 1 {
		return done
	}
	var mu sync.Mutex
	var first error
	return func(err error) {
		mu.Lock()
		if first == nil {
			first = err
		}
		n--
		last := n == 0
		mu.Unlock()
		if last {
			done(first)
		}
	}
}

// spansOf sorts positions into runs.
func spansOf(ps []Position) []span {
	slices.Sort(ps)
	var spans []span
	for _, p := range ps {
		if n := len(spans); n > 0 && spans[n-1].first+spans[n-1].n == p {
			spans[n-1].n++
		} else {
			spans = append(spans, span{p, 1})
		}
	}
	return spans
}

// Checkpoint is the position up to which everything is settled.
func (q *Queue) Checkpoint() Position {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	return q.base - 1
}

// Stats gives the queue's figures.
func (q *Queue) Stats() QueueStats {
	q.db.mu.Lock()
	s := QueueStats{Name: q.name, Bytes: q.bytes, Checkpoint: q.base - 1, Last: q.next() - 1}
	for _, r := range q.rows {
		s.Pending += r.Pending
		s.Parked += r.Parked
	}
	q.db.mu.Unlock()
	if f, _ := q.find(s.Checkpoint, Limit{Records: 1}, nil); len(f) > 0 {
		if item, err := q.load(f[0]); err == nil {
			s.Oldest = item.Stamp
		}
	}
	return s
}

// The rest is called with db.mu held.

func (q *Queue) next() Position { return q.base + Position(len(q.entries)) }

func (q *Queue) at(p Position) *entry {
	if p < q.base || p >= q.next() {
		return nil
	}
	return &q.entries[p-q.base]
}

func (q *Queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// push takes a new record into the index at the next position.
func (q *Queue) push(e entry) {
	q.entries = append(q.entries, e)
	q.bytes += uint64(e.length)
	q.db.live[e.segment]++
}

// because notes why a record is parked.
func (q *Queue) because(p Position, reason string) {
	if q.reasons == nil {
		q.reasons = map[Position]string{}
	}
	q.reasons[p] = reason
}

// free takes note that something of a sender was unparked.
func (q *Queue) free(who uint32) {
	if q.freed == nil {
		q.freed = map[uint32]uint64{}
	}
	q.freed[who]++
	q.freedBy++
	q.wake()
}

// end marks a record as settled and moves the checkpoint.
func (q *Queue) end(p Position) {
	e := q.at(p)
	delete(q.reasons, p)
	q.bytes -= uint64(e.length)
	q.db.live[e.segment]--
	e.length = 0
	q.advance()
}

// advance moves the checkpoint over what is settled.
func (q *Queue) advance() {
	n := 0
	for n < len(q.entries) && q.entries[n].settled() {
		n++
	}
	q.base += Position(n)
	q.entries = q.entries[n:]
	if q.gone += n; n > 0 && q.gone > 1024 && q.gone > 3*len(q.entries) {
		q.entries, q.gone = slices.Clone(q.entries), 0 // give the memory of a drained backlog back
	}
}
