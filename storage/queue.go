package storage

import (
	"slices"
	"sync"
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
	written bool // the journal knows it
	unnamed bool // damage took its name
	policy  Policy
	cold    []*pack             // what lies in generations, in order
	odd     map[Position]oddity // records of cold that are not simply pending
	base    Position            // position of entries[0]
	entries []entry             // what lies in the journal
	gone    int                 // entries that were cut off the front and may still hold memory
	bytes   uint64
	rows    []*Row              // of the ledger
	senders map[uint32]string   // parked senders and why
	reasons map[Position]string // of records that are parked by themselves
	freed   map[uint32]uint64   // how often something of a sender was unparked
	freedBy uint64              // their sum
	changed chan struct{}
	origin  Position          // in replay: positions before it were given before the oldest segment; else 0
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

// Settle ends records. Positions may come in any order; those that are not there
// or have ended are passed over. With done it joins the next commit, and done runs
// when that is on disk. Without, it rides in the next commit, or is committed alone
// after a second or a thousand positions: a crash before costs a repeat.
func (q *Queue) Settle(positions []Position, o Outcome, done func(error)) {
	by := map[uint32][]Position{}
	left := positions
	if !slices.IsSorted(left) { // each pack is read once, and few are in memory at a time
		left = slices.Clone(left)
		slices.Sort(left)
	}
	for len(left) > 0 {
		left = q.settling(left, by)
	}
	var reqs []*request
	most := min(spansAtOnce, q.db.o.SegmentBytes/128)
	for who, ps := range by {
		for spans := spansOf(ps); len(spans) > 0; {
			n := min(len(spans), most)
			c := &settle{q: q, who: who, name: len(q.db.nameOf(who)), outcome: o, spans: spans[:n]}
			if r := len(reqs) - 1; r >= 0 && reqs[r].spans+n <= most {
				reqs[r].changes, reqs[r].spans = append(reqs[r].changes, c), reqs[r].spans+n
			} else {
				reqs = append(reqs, &request{changes: []change{c}, spans: n, lazy: done == nil})
			}
			spans = spans[n:]
		}
	}
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

// settling marks records as about to end and sorts them by sender. It gives back
// those that are left: it looks into a few packs at a time, and some may have been
// moved while it looked whose they are.
func (q *Queue) settling(positions []Position, by map[uint32][]Position) (left []Position) {
	contents, n := q.contents(positions)
	var again []Position
	defer func() {
		if left = positions[n:]; len(again) > 0 {
			left = append(again, left...)
		}
	}()
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	for _, p := range positions[:n] {
		h, ok := q.holds(p)
		if !ok {
			continue
		}
		if !h.known {
			if h, ok = q.known(p, h, contents); !ok {
				if k := q.packOf(p); k != nil && !k.ending {
					again = append(again, p)
				}
				continue
			}
		}
		switch h.state {
		case pending, parking:
			h.state = settling
		case parked:
			h.state = settlingParked
		default:
			continue
		}
		q.put(p, h)
		by[h.who] = append(by[h.who], p)
	}
	return nil
}

// known completes what is held of a cold record by its sender.
func (q *Queue) known(p Position, h held, contents map[*pack]*packed) (held, bool) {
	c := contents[q.packOf(p)]
	if c == nil {
		return h, false
	}
	i := c.find(p)
	if i < 0 {
		return h, false
	}
	h.who, h.known = q.db.number(string(senderOf(c.messages[i]))), true
	return h, true
}

// nameOf gives a sender's name.
func (db *DB) nameOf(who uint32) string {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.names[who]
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
	return q.checkpoint()
}

// Stats gives the queue's figures.
func (q *Queue) Stats() QueueStats {
	q.db.mu.Lock()
	s := QueueStats{Name: q.name, Bytes: q.bytes, Checkpoint: q.checkpoint(), Last: q.next() - 1}
	for _, r := range q.rows {
		s.Pending += r.Pending
		s.Parked += r.Parked
		s.Delivered += r.Delivered
		s.Expired += r.Expired
		s.Evicted += r.Evicted
		s.Discarded += r.Discarded
		s.Damaged += r.Damaged
	}
	q.db.mu.Unlock()
	if f, _ := q.scan(s.Checkpoint, Limit{Records: 1}, q.reader(nil), false); len(f) > 0 {
		if item, err := q.load(f[0]); err == nil {
			s.Oldest = item.Stamp
		}
	}
	return s
}

// Evicted is how many records have made way since the queue was made. It costs little:
// Stats reads the oldest record.
func (q *Queue) Evicted() (n uint64) {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	for _, r := range q.rows {
		n += r.Evicted
	}
	return n
}

// The rest is called with db.mu held.

func (q *Queue) next() Position { return q.base + Position(len(q.entries)) }

// checkpoint is the position up to which everything is settled.
func (q *Queue) checkpoint() Position {
	if len(q.cold) > 0 {
		k := q.cold[0]
		p := k.first
		for k.ended.has(uint64(p - k.first)) {
			p++
		}
		return min(p-1, q.base-1)
	}
	return q.base - 1
}

// held is a record that has not ended.
type held struct {
	who   uint32
	known bool // who is
	state state
	cold  bool
}

// holds gives what is held of the record at p, unless it has ended.
func (q *Queue) holds(p Position) (h held, ok bool) {
	if e := q.at(p); e != nil && !e.settled() {
		return held{e.sender(), true, e.state(), false}, true
	}
	if k := q.packOf(p); k == nil || !k.has(p) {
		return h, false
	}
	o, odd := q.odd[p]
	return held{o.who, odd, o.state, true}, true
}

// put changes the state of a record that is held.
func (q *Queue) put(p Position, h held) {
	switch {
	case !h.cold:
		q.at(p).set(h.state)
	case h.state == pending:
		delete(q.odd, p)
	default:
		q.beOdd(p, oddity{h.who, h.state})
	}
}

func (q *Queue) beOdd(p Position, o oddity) {
	if q.odd == nil {
		q.odd = map[Position]oddity{}
	}
	q.odd[p] = o
}

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

// end marks a record of who as settled and moves the checkpoint.
func (q *Queue) end(p Position, who uint32) {
	delete(q.reasons, p)
	if e := q.at(p); e != nil && !e.settled() {
		q.forget(e)
		q.advance()
		return
	}
	delete(q.odd, p)
	q.packOf(p).end(p, who)
}

// forget lets go of an entry.
func (q *Queue) forget(e *entry) {
	q.bytes -= uint64(e.length)
	q.db.live[e.segment]--
	e.length = 0
}

// cut lets go of the entries up to p that have become cold.
func (q *Queue) cut(p Position) {
	for at := q.base; at <= p && at < q.next(); at++ {
		e := q.at(at)
		if e.settled() {
			continue
		}
		if k := q.packOf(at); k == nil || !k.has(at) {
			continue // only after damage: its end was lost
		}
		if s := e.state(); s != pending {
			q.beOdd(at, oddity{e.sender(), s})
		}
		q.forget(e)
	}
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
