package storage

import (
	"fmt"
	"slices"
)

// promise is what the user of a store may count on at one moment.
type promise struct {
	queues map[string]*promised
	keys   map[string][]string // values of a key that it may have, the first was acknowledged
}

type promised struct {
	bodies  map[Position]string
	ending  map[Position]bool // somebody asked for its end
	ended   map[Position]bool // and was told that it is true
	parked  map[string]bool   // senders
	parking map[string]bool   // senders about which something was asked and not answered
}

func (p *promise) queue(name string) *promised {
	if p.queues == nil {
		p.queues, p.keys = map[string]*promised{}, map[string][]string{}
	}
	q := p.queues[name]
	if q == nil {
		q = &promised{bodies: map[Position]string{}, ending: map[Position]bool{}, ended: map[Position]bool{},
			parked: map[string]bool{}, parking: map[string]bool{}}
		p.queues[name] = q
	}
	return q
}

// broken says what of the promise the store in dir does not keep.
func (p *promise) broken(db *DB) error {
	if d := db.Stats().Damage; slices.ContainsFunc(d, func(d Damage) bool { return !d.Torn }) {
		return fmt.Errorf("damage %+v", d)
	}
	if err := db.Verify(); err != nil {
		return err
	}
	for name, want := range p.queues {
		if err := want.broken(db, db.Queue(name)); err != nil {
			return fmt.Errorf("queue %s: %w", name, err)
		}
	}
	for key, may := range p.keys {
		v, _ := db.Map("m").Get(key)
		if !slices.Contains(may, string(v)) {
			return fmt.Errorf("map has %s = %q, want one of %q", key, v, may)
		}
	}
	return nil
}

func (p *promised) broken(db *DB, q *Queue) error {
	for pos, body := range p.bodies {
		db.mu.Lock()
		_, open := q.holds(pos)
		settled := !open
		last := q.next() - 1
		db.mu.Unlock()
		switch {
		case pos > last:
			return fmt.Errorf("record %d is lost, the last one is %d", pos, last)
		case settled && !p.ending[pos]:
			return fmt.Errorf("record %d has ended and nobody asked for it", pos)
		case !settled && p.ended[pos]:
			return fmt.Errorf("record %d is back though its end was acknowledged", pos)
		case !settled:
			item, err := q.peek(pos)
			if err != nil {
				return fmt.Errorf("record %d: %w", pos, err)
			}
			if string(item.Body) != body {
				return fmt.Errorf("record %d is %.20q, want %.20q", pos, item.Body, body)
			}
		}
	}
	got := q.Parked()
	for _, s := range []string{"a", "b", "c"} {
		if _, ok := got[s]; ok != p.parked[s] && !p.parking[s] {
			return fmt.Errorf("sender %s is parked: %v, want %v", s, ok, p.parked[s])
		}
	}
	return nil
}
