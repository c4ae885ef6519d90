package storage

import (
	"errors"
	"fmt"
)

// Seen is a record as Look gives it.
type Seen struct {
	Item         // only Position and Sender where Err is set
	Parked bool  // by itself or with its sender
	Err    error // why the disk does not give it back; it was not settled, the next Read does that
}

// Look gives records behind after that have not ended, in order, parked ones too,
// and changes nothing: it is for people, as Read is for forwarders. next is how far
// it looked: look on behind it. pick, which may be nil for all, chooses by sender
// and state; it must not call the DB. The error is ErrClosed.
func (q *Queue) Look(after Position, limit Limit, pick func(sender string, parked bool) bool) (seen []Seen, next Position, err error) {
	chosen, next := q.choose(after, limit, pick)
	for _, c := range chosen {
		item, err := q.load(c.found)
		switch {
		case err == nil:
			seen = append(seen, Seen{Item: item, Parked: c.parked})
		case errors.Is(q.db.Err(), ErrClosed):
			return seen, c.pos - 1, fmt.Errorf("look into queue %s: %w", q.name, ErrClosed)
		case c.gone(q):
			// settled and dropped meanwhile
		default:
			seen = append(seen, Seen{Item: Item{Position: c.pos, Sender: c.sender}, Parked: c.parked, Err: err})
		}
	}
	return seen, next, nil
}

// chosen is an entry that Look gives.
type chosen struct {
	found
	sender string
	parked bool
}

func (q *Queue) choose(after Position, limit Limit, pick func(string, bool) bool) (out []chosen, next Position) {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	bytes := 0
	for next = max(after, q.base-1); int(next+1-q.base) < len(q.entries); next++ {
		e := q.entries[next+1-q.base]
		if len(out) >= max(1, limit.Records) || len(out) > 0 && limit.Bytes > 0 && bytes+int(e.length) > limit.Bytes {
			break
		}
		if e.settled() || e.state() == settling || e.state() == settlingParked {
			continue
		}
		sender, held := q.db.names[e.sender()], e.state() == parking || q.isParked(e.sender(), e.state())
		if pick == nil || pick(sender, held) {
			out = append(out, chosen{found{next + 1, e}, sender, held})
			bytes += int(e.length)
		}
	}
	return out, next
}
