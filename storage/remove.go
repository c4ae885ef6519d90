package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrNotEmpty says that a queue still has records: settle or discard them first.
var ErrNotEmpty = errors.New("queue is not empty")

// ErrRemoved says that a queue was removed: take it from the DB anew.
var ErrRemoved = errors.New("queue was removed")

// removedQueue is the number under which the ledger keeps what removed queues have
// seen, and Removed its name.
const removedQueue = noQueue - 1

// Removed is the queue of the ledger's rows for queues that were removed.
const Removed = "(removed)"

// Remove takes an empty queue away: its name, its parked senders, its place in every
// picture of the state. What it has seen stays in the ledger, under Removed. done is
// called once: nil when that is on disk, ErrNotEmpty while anything in it has not
// ended, parked records among it. Nothing is ever deleted with a queue: to be rid of
// what is in it, settle it as Discarded, which is counted.
//
// The Queue must not be used any more; one of the same name begins anew, at 1.
func (q *Queue) Remove(done func(error)) {
	q.db.submit(&request{changes: []change{&removeQueue{q: q}}, done: done, alone: true, spans: 1})
}

// removeQueue is a queue's end.
type removeQueue struct{ q *Queue }

func (c *removeQueue) size() int { return 16 }

func (c *removeQueue) encode(_ *DB, g *group) {
	g.record(kindRemoved, func(b []byte) []byte { return binary.AppendUvarint(b, uint64(c.q.id)) })
}

func (c *removeQueue) apply(db *DB) {
	q := c.q
	for k, row := range db.ledger {
		if k.queue != q.id {
			continue
		}
		sum := db.row(db.number(""), removedQueue).counts()
		for i, n := range row.counts() {
			*sum[i] += *n
		}
		delete(db.ledger, k)
	}
	if db.byID[q.id] == q {
		delete(db.byID, q.id)
		delete(db.byName, q.name)
	}
	q.wake()
}

// empty says why a queue cannot be removed now.
func (q *Queue) empty() error {
	open := uint64(0)
	for _, r := range q.rows {
		open += r.Pending + r.Parked
	}
	if open > 0 {
		return fmt.Errorf("remove queue %s: %w: %d records in it have not ended", q.name, ErrNotEmpty, open)
	}
	return nil
}

// checkRemovals refuses to remove what is not empty, and to park senders in a queue
// that is gone. A removal has a frame of its own, so nothing can come into the queue
// with it.
func (db *DB) checkRemovals(batch []*request, verdict []error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for i, r := range batch {
		if len(r.changes) != 1 || verdict[i] != nil {
			continue
		}
		switch c := r.changes[0].(type) {
		case *removeQueue:
			if verdict[i] = c.q.removed(); verdict[i] == nil {
				verdict[i] = c.q.empty()
			}
		case *parkSender:
			verdict[i] = c.q.removed()
		case *unparkSender:
			verdict[i] = c.q.removed()
		}
	}
}

// removed says that a queue was removed.
func (q *Queue) removed() error {
	if q.db.byID[q.id] != q {
		return fmt.Errorf("queue %s: %w", q.name, ErrRemoved)
	}
	return nil
}
