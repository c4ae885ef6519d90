package storage

import (
	"fmt"
	"slices"
	"strings"
)

// noQueue is the queue number of rows that only count unrouted messages.
const noQueue = ^uint32(0)

type rowKey struct{ who, queue uint32 }

// Ledger gives all rows, sorted by queue and sender.
func (db *DB) Ledger() []Row {
	db.mu.Lock()
	defer db.mu.Unlock()
	rows := make([]Row, 0, len(db.ledger))
	for k, r := range db.ledger {
		row := *r
		if q := db.byID[k.queue]; q != nil {
			row.Queue = q.name
		} else if k.queue == removedQueue {
			row.Queue = Removed
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b Row) int {
		if c := strings.Compare(a.Queue, b.Queue); c != 0 {
			return c
		}
		return strings.Compare(a.Sender, b.Sender)
	})
	return rows
}

// Verify counts the index anew and compares it with the ledger. An error names
// the row that does not add up; it would be a fault of this package.
func (db *DB) Verify() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	type count struct{ pending, parked uint64 }
	counts := map[rowKey]count{}
	db.count(func(k rowKey, held bool, n uint64) {
		c := counts[k]
		if held {
			c.parked += n
		} else {
			c.pending += n
		}
		counts[k] = c
	})
	for k, r := range db.ledger {
		if b := r.Balance(); b != 0 {
			return fmt.Errorf("ledger of %q in queue %08x is off by %d: %+v", r.Sender, k.queue, b, *r)
		}
		if c := counts[k]; c.pending != r.Pending || c.parked != r.Parked {
			return fmt.Errorf("ledger of %q in queue %08x says %d pending and %d parked, the index %d and %d",
				r.Sender, k.queue, r.Pending, r.Parked, c.pending, c.parked)
		}
		delete(counts, k)
	}
	for k := range counts {
		return fmt.Errorf("index has records of %q in queue %08x without a row in the ledger", db.names[k.who], k.queue)
	}
	return nil
}

// count goes through the index: records that have not ended, by row, some at a time.
// Called with db.mu held.
func (db *DB) count(each func(k rowKey, held bool, n uint64)) {
	for _, q := range db.byID {
		for _, e := range q.entries {
			if !e.settled() {
				each(rowKey{e.sender(), q.id}, q.isParked(e.sender(), e.state()), 1)
			}
		}
		cold := map[uint32]uint64{}
		for _, k := range q.cold {
			for _, s := range k.whose {
				cold[s.who] += uint64(s.n)
			}
		}
		for _, o := range q.odd {
			if o.state == parked || o.state == settlingParked {
				cold[o.who]--
				each(rowKey{o.who, q.id}, true, 1)
			}
		}
		for who, n := range cold {
			if n > 0 {
				each(rowKey{who, q.id}, q.isParked(who, pending), n)
			}
		}
	}
}

// row gives the ledger's row, new if need be. Called with db.mu held.
func (db *DB) row(who, queue uint32) *Row {
	k := rowKey{who, queue}
	r := db.ledger[k]
	if r == nil {
		r = &Row{Sender: db.names[who]} // Ledger fills in the queue's name
		db.ledger[k] = r
		if q := db.byID[queue]; q != nil {
			q.rows = append(q.rows, r)
		}
	}
	return r
}

// indexRows gives each queue its rows, after replay has put others in their place.
// From now on every record that has not ended is in the index.
func (db *DB) indexRows() {
	for _, q := range db.byID {
		q.rows, q.origin = nil, 0
	}
	for k, r := range db.ledger {
		if q := db.byID[k.queue]; q != nil {
			q.rows = append(q.rows, r)
		}
	}
}

// outcome gives the counter of an end.
func (r *Row) outcome(o Outcome) *uint64 {
	switch o {
	case Delivered:
		return &r.Delivered
	case Expired:
		return &r.Expired
	case Evicted:
		return &r.Evicted
	case Discarded:
		return &r.Discarded
	}
	return &r.Damaged
}

// openCount gives the counter that a record in state s of sender who stands in.
func (q *Queue) openCount(r *Row, who uint32, s state) *uint64 {
	if q.isParked(who, s) {
		return &r.Parked
	}
	return &r.Pending
}

func (q *Queue) isParked(who uint32, s state) bool {
	_, all := q.senders[who]
	return all || s == parked || s == settlingParked
}

// gap takes note that the positions before p were lost to damage: nobody knows
// whose they were, so they stand under the sender "".
func (q *Queue) gap(p Position) {
	nobody := q.db.row(q.db.number(""), q.id)
	if q.lost == nil {
		q.lost = map[Position]bool{}
	}
	for q.next() < p {
		q.lost[q.next()] = false
		nobody.Accepted++
		nobody.Damaged++
		q.entries = append(q.entries, entry{})
	}
	q.advance()
}
