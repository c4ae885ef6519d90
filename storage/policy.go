package storage

import (
	"context"
	"fmt"
	"slices"
)

// Policy says what becomes of a queue where room is short. The zero value refuses:
// its records stay, and appends get ErrFull once the store is full.
type Policy struct {
	MaxBytes int64 // most that its records may take, pending and parked; no bound of its own if zero
	Evict    bool  // its oldest records make way for newer ones, counted as Evicted; else what would exceed is refused
	Priority int   // in a full store the queue with the highest number makes way first: 0 is the most urgent
}

// SetPolicy changes it. It is not kept on disk: whoever opens the queue says it anew.
//
// MaxBytes is exact for appends that are refused. What evicts may exceed it for about
// a quarter of a second, for whoever appends does not wait for others to go.
func (q *Queue) SetPolicy(p Policy) {
	q.db.mu.Lock()
	q.policy = p
	q.db.mu.Unlock()
	q.db.mover.nudge()
}

// checkPolicies refuses what a queue has no room for by its own bound.
func (db *DB) checkPolicies(batch []*request, verdict []error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	more := map[*Queue]int64{}
	for i, r := range batch {
		if verdict[i] != nil {
			continue
		}
		for _, c := range r.changes {
			s, ok := c.(*store)
			if !ok {
				continue
			}
			if verdict[i] = db.overQuota(s.rec, more); verdict[i] != nil {
				break
			}
			for _, d := range s.rec.To {
				if q := db.byName[d.Queue]; q != nil && q.policy.MaxBytes > 0 {
					more[q] += int64(s.size())
				}
			}
		}
	}
}

// overQuota says which queue has no room for a record. more is what the group brings
// already.
func (db *DB) overQuota(r *Record, more map[*Queue]int64) error {
	for _, d := range r.To {
		q := db.byName[d.Queue]
		if q == nil || q.policy.MaxBytes == 0 {
			continue
		}
		if have := int64(q.bytes) + more[q] + int64(len(r.Body)); have > q.policy.MaxBytes {
			if q.policy.Evict {
				db.mover.nudge()
				continue
			}
			return fmt.Errorf("append to queue %s: %w: it may take %d bytes, and has %d", q.name, ErrFull, q.policy.MaxBytes, q.bytes)
		}
	}
	return nil
}

// makeWay evicts what the policies say: from each queue what it has beyond its bound,
// and in a store that is nearly full as much as a generation or segment takes.
func (db *DB) makeWay(ctx context.Context) error {
	var first error
	for _, v := range db.victims() {
		if err := db.evict(ctx, v.q, v.bytes); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// victim is a queue and how many bytes it must give.
type victim struct {
	q     *Queue
	bytes int64
}

func (db *DB) victims() (out []victim) {
	need := db.shortOf()
	db.mu.Lock()
	defer db.mu.Unlock()
	var qs []*Queue
	for _, q := range db.byID {
		if q.policy.Evict && q.bytes > 0 {
			qs = append(qs, q)
		}
	}
	slices.SortFunc(qs, func(a, b *Queue) int {
		if a.policy.Priority != b.policy.Priority {
			return b.policy.Priority - a.policy.Priority
		}
		return a.age() - b.age()
	})
	for _, q := range qs {
		n := int64(0)
		if q.policy.MaxBytes > 0 {
			n = max(0, int64(q.bytes)-q.policy.MaxBytes)
		}
		if need > 0 {
			n = max(n, min(need, int64(q.bytes)))
		}
		if n > 0 {
			out, need = append(out, victim{q, n}), need-n
		}
	}
	return out
}

// age orders queues by their oldest record: cold ones first.
func (q *Queue) age() int {
	if len(q.cold) > 0 {
		return int(q.cold[0].g.mark.Number) - 1<<31
	}
	if len(q.entries) > 0 {
		return int(q.entries[0].segment)
	}
	return 1 << 32
}

// shortOf says how many bytes must go before the store is full: none while two more
// segments can be had.
func (db *DB) shortOf() int64 {
	_, taken := db.j.Segments()
	if db.j.Max()-taken >= 2*int64(db.o.SegmentBytes) && !db.Full() {
		return 0
	}
	return int64(db.o.SegmentBytes)
}

// evict ends the oldest records of q until that has given so many bytes, and waits
// for the disk.
func (db *DB) evict(ctx context.Context, q *Queue, bytes int64) error {
	n := 0
	db.mu.Lock()
	done := make(chan error, len(q.cold)+1)
	for _, k := range slices.Clone(q.cold) {
		if bytes <= 0 {
			break
		}
		if !k.ending {
			bytes -= int64(k.bytes)
			n++
			db.endPack(k, Evicted, func(err error) { done <- err })
		}
	}
	var hot []Position
	for i, e := range q.entries {
		if bytes <= 0 {
			break
		}
		if !e.settled() && e.state() != settling && e.state() != settlingParked {
			bytes -= int64(e.length)
			hot = append(hot, q.base+Position(i))
		}
	}
	db.mu.Unlock()
	if n+len(hot) == 0 {
		return nil // all of it is about to end already
	}
	db.log.Warn("records make way for newer ones, by rule", "queue", q.Name(), "records", len(hot), "packs", n)
	if len(hot) > 0 {
		n++
		q.Settle(hot, Evicted, func(err error) { done <- err })
	}
	for range n {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("evict from queue %s: %w", q.Name(), err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
