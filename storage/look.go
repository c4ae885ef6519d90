package storage

import (
	"errors"
	"fmt"
)

// Seen is a record as Look gives it.
type Seen struct {
	Item         // only Position, and Sender where it is known, where Err is set
	Parked bool  // by itself or with its sender
	Err    error // why the disk does not give it back; it was not settled, the next Read does that
}

// Look gives records behind after that have not ended, in order, parked ones too,
// and changes nothing: it is for people, as Read is for forwarders. next is how far
// it looked: look on behind it. pick, which may be nil for all, chooses by sender
// and state; it must not call the DB. The error is ErrClosed.
func (q *Queue) Look(after Position, limit Limit, pick func(sender string, parked bool) bool) (seen []Seen, next Position, err error) {
	found, next := q.scan(after, limit, func(who uint32, s state) bool {
		return s != settling && s != settlingParked && (pick == nil || pick(q.db.sender(who), s == parking || q.isParked(who, s)))
	}, false)
	for _, f := range found {
		sender, held := q.of(f)
		item, err := q.load(f)
		switch {
		case err == nil:
			seen = append(seen, Seen{Item: item, Parked: held})
		case errors.Is(q.db.Err(), ErrClosed):
			return seen, f.pos - 1, fmt.Errorf("look into queue %s: %w", q.name, ErrClosed)
		case f.gone(q):
			// settled and dropped meanwhile
		case f.moved(q):
			return seen, f.pos - 1, nil
		default:
			seen = append(seen, Seen{Item: Item{Position: f.pos, Sender: sender}, Parked: held, Err: err})
		}
	}
	return seen, next, nil
}

// of says whose a record is and whether it is parked.
func (q *Queue) of(f found) (sender string, held bool) {
	q.db.mu.Lock()
	defer q.db.mu.Unlock()
	return q.db.sender(f.sender()), f.state() == parking || q.isParked(f.sender(), f.state())
}

// sender is a sender's name, empty where it is not known. Called with db.mu held.
func (db *DB) sender(who uint32) string {
	if int(who) < len(db.names) {
		return db.names[who]
	}
	return ""
}
