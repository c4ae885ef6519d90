package storage

import (
	"fmt"
	"sync"
)

// shelf holds the packs that were read last, so that a drain reads each of them
// once, and so that it is known whose its records are when they are settled.
type shelf struct {
	mu   sync.Mutex
	last []shelved // the latest first
}

type shelved struct {
	number, index uint32
	c             *packed
}

// shelfPacks is how many packs are held: what several lanes are at, and what is
// under way behind them.
const shelfPacks = 6

func (s *shelf) get(k *pack) (*packed, bool) { return s.find(k.g.mark.Number, k.index) }

func (s *shelf) find(number, index uint32) (*packed, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.last {
		if h.number == number && h.index == index {
			copy(s.last[1:i+1], s.last[:i])
			s.last[0] = h
			return h.c, true
		}
	}
	return nil, false
}

func (s *shelf) put(number, index uint32, c *packed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.last) < shelfPacks {
		s.last = append(s.last, shelved{})
	}
	copy(s.last[1:], s.last)
	s.last[0] = shelved{number, index, c}
}

// content reads a pack. Called without db.mu.
func (db *DB) content(k *pack) (*packed, error) {
	mark := k.g.mark
	var load func(index uint32) (*packed, error)
	load = func(index uint32) (*packed, error) {
		if c, ok := db.shelf.find(mark.Number, index); ok {
			return c, nil
		}
		value, err := db.cold.Get(mark, packKey(index))
		if err != nil {
			return nil, fmt.Errorf("read pack %d of generation %d: %w", index, mark.Number, err)
		}
		c, err := parsePack(index, value, load)
		if err != nil {
			return nil, fmt.Errorf("read pack %d of generation %d: %w", index, mark.Number, err)
		}
		db.shelf.put(mark.Number, index, c)
		return c, nil
	}
	return load(k.index)
}

// contentsPacks and contentsPositions bound what contents looks at: the packs are in
// memory together, and others wait for db.mu.
const (
	contentsPacks     = 4
	contentsPositions = 1 << 16
)

// contents reads the packs in which positions lie, in order, of those whose sender is
// not known: a few packs, and it says for how many of the positions that does. Called
// without db.mu. A pack that cannot be read is lost and is not among them.
func (q *Queue) contents(positions []Position) (out map[*pack]*packed, n int) {
	var packs []*pack
	q.db.mu.Lock()
	var last *pack
	for n < min(len(positions), contentsPositions) {
		p := positions[n]
		if last == nil || p < last.first || p > last.last {
			if h, ok := q.holds(p); ok && !h.known {
				if len(packs) == contentsPacks {
					break
				}
				last = q.packOf(p)
				packs = append(packs, last)
			}
		}
		n++
	}
	q.db.mu.Unlock()
	out = map[*pack]*packed{}
	for _, k := range packs {
		c, err := q.db.content(k)
		if err != nil {
			c, err = q.db.content(k)
		}
		if err == nil {
			out[k] = c
			continue
		}
		q.db.mu.Lock()
		if k.g.packs[k.index] == k {
			q.db.losePack(k, err)
		}
		q.db.mu.Unlock()
	}
	return out, n
}
