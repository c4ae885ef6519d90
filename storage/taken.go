package storage

import (
	"bytes"
	"fmt"
	"maps"
)

// picture is a picture of the state as replay reads it. It touches nothing until it
// is laid under what follows, so that one that is not whole can be left out.
type picture struct {
	segment uint32 // in which it begins
	partial bool   // some of it is missing
	queues  map[uint32]*picturedQueue
	ledger  map[rowKey]*Row
	maps    map[string]map[string][]byte
	cold    map[uint32][]byte // generation records, by number
	order   []uint32          // of them
}

type picturedQueue struct {
	name    string // empty: its name was lost
	next    Position
	senders map[uint32]string
	parked  map[Position]parkRecord
}

func newPicture(segment uint32) *picture {
	return &picture{segment: segment, queues: map[uint32]*picturedQueue{}, ledger: map[rowKey]*Row{},
		maps: map[string]map[string][]byte{}, cold: map[uint32][]byte{}}
}

// record takes one record of the picture.
func (p *picture) record(r *replay, k kind, payload []byte) error {
	in := &reader{b: payload}
	switch k {
	case kindQueue:
		p.queue(in).name = in.string()
	case kindNext:
		p.queue(in).next = Position(in.uint())
	case kindPark:
		q, who := p.queue(in), r.db.number(in.string())
		q.senders[who] = in.string()
	case kindSet:
		c := in.change()
		m := p.maps[c.Map]
		if m == nil {
			m = map[string][]byte{}
			p.maps[c.Map] = m
		}
		m[c.Key] = c.Value
	case kindParked:
		q, who := p.queue(in), r.db.number(in.string())
		pos := Position(in.uint())
		q.parked[pos] = parkRecord{who: who, pos: pos, reason: in.string()}
	case kindGeneration:
		n := in.generation().mark.Number
		p.cold[n] = bytes.Clone(payload)
		p.order = append(p.order, n)
	case kindRow:
		p.row(r.db, in)
	case kindEnd:
		return r.end()
	default:
		return fmt.Errorf("%w: unknown kind", ErrVersion)
	}
	return in.err
}

func (p *picture) queue(in *reader) *picturedQueue {
	id := uint32(in.uint())
	q := p.queues[id]
	if q == nil {
		q = &picturedQueue{senders: map[uint32]string{}, parked: map[Position]parkRecord{}}
		p.queues[id] = q
	}
	return q
}

func (p *picture) row(db *DB, in *reader) {
	queue, sender := uint32(in.uint()-1), in.string()
	row := &Row{Sender: sender}
	for _, n := range row.counts() {
		*n = in.uint()
	}
	if in.err == nil {
		p.ledger[rowKey{db.number(sender), queue}] = row
	}
}

// lay makes the picture the state: as the ground, or after damage in the place of
// what could be read. The index stays; only positions that are missing in it are
// noted as lost. Of a partial one, rows and keys that are known otherwise stay.
func (p *picture) lay(r *replay, ground bool) error {
	db := r.db
	if !p.partial {
		db.maps, db.mapBytes = map[string]map[string][]byte{}, 0
	}
	for name, m := range p.maps {
		for k, v := range m {
			db.set(Change{Map: name, Key: k, Value: v})
		}
	}
	for id, pq := range p.queues {
		if pq.name != "" {
			r.open(id, pq.name)
		}
		q := r.numbered(id)
		q.senders = pq.senders
		switch {
		case pq.next == 0: // lost
		case ground && len(q.entries) == 0 && q.next() < pq.next:
			q.base, q.origin = pq.next, pq.next
		case pq.next > q.next():
			q.gap(pq.next)
		}
		for pos := range q.lost {
			q.lost[pos] = true
		}
		if ground {
			for pos, c := range pq.parked {
				q.beOdd(pos, oddity{c.who, parked})
				q.because(pos, c.reason)
			}
		}
	}
	if err := p.layCold(r); err != nil {
		return err
	}
	if p.partial {
		maps.Copy(db.ledger, p.ledger)
	} else {
		db.ledger = p.ledger
	}
	return nil
}

// layCold takes the generations of the picture into the index, and those that it no
// longer has out of it.
func (p *picture) layCold(r *replay) error {
	for n := range r.db.generations {
		if p.cold[n] == nil && !p.partial {
			r.db.unlist(n)
		}
	}
	for _, n := range p.order {
		if err := r.install(&reader{b: p.cold[n]}); err != nil {
			return err
		}
	}
	return nil
}

// compare says where a picture differs from what replay has made.
func (p *picture) compare(db *DB) error {
	for k, want := range p.ledger {
		// Whether what is open is parked is counted at the end alone.
		got, want := *db.row(k.who, k.queue), *want
		got.Pending, got.Parked = got.Pending+got.Parked, 0
		want.Pending, want.Parked = want.Pending+want.Parked, 0
		if got != want {
			return fmt.Errorf("picture has the row %+v, replay %+v", want, got)
		}
	}
	for k, got := range db.ledger {
		if p.ledger[k] == nil && *got != (Row{Sender: got.Sender}) {
			return fmt.Errorf("picture has no row %+v", *got)
		}
	}
	for name, m := range db.maps {
		if !maps.EqualFunc(m, p.maps[name], bytes.Equal) && len(m)+len(p.maps[name]) > 0 {
			return fmt.Errorf("picture has map %s as %q, replay as %q", name, p.maps[name], m)
		}
	}
	for n, want := range p.cold {
		if g := db.generations[n]; g != nil && !bytes.Equal(appendGeneration(nil, g, nil), want) {
			return fmt.Errorf("picture has generation %d otherwise than replay", n)
		}
	}
	for n, g := range db.generations {
		if p.cold[n] == nil && g.n > 0 {
			return fmt.Errorf("picture has no generation %d, of which %d records count", n, g.n)
		}
	}
	for id, pq := range p.queues {
		q := db.byID[id]
		if q == nil || q.name != pq.name || q.next() != pq.next || !maps.Equal(q.senders, pq.senders) {
			return fmt.Errorf("picture has queue %s with next position %d and parked senders %v", pq.name, pq.next, pq.senders)
		}
	}
	return nil
}
