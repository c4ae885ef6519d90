package storage

import (
	"errors"
	"fmt"
	"slices"

	"holdfast.dev/holdfast/storage/generation"
)

// move makes a generation count: what is in it lies there from now on, and no more
// in the journal or in the generations that it replaces. It is committed in a frame
// of its own, so that every end that came before it is known to it.
type move struct {
	g        *sealed
	replaces []uint32
	drafts   []*draft // as it was built; nil in replay, which reads what had ended
}

func (c *move) size() int { return generationSize(c.g, len(c.replaces)) }

// encode notes what has ended since the generation was built.
func (c *move) encode(_ *DB, g *group) {
	c.g.n = 0
	for i, d := range c.drafts {
		k := c.g.packs[i]
		for j, p := range d.positions {
			if k.has(p) {
				if _, ok := k.q.holds(p); !ok {
					k.miss(p, d.who[j])
				}
			}
		}
		c.g.n += k.n
	}
	g.record(kindGeneration, func(b []byte) []byte { return appendGeneration(b, c.g, c.replaces) })
}

// miss takes out a record that had ended before the pack was filed.
func (k *pack) miss(p Position, who uint32) {
	k.ended.add(uint64(p-k.first), uint64(k.last-k.first+1))
	k.changed = true
	k.bytes -= k.bytes / uint64(k.n)
	k.n--
	for i := range k.whose {
		if k.whose[i].who == who {
			k.whose[i].n--
			return
		}
	}
}

func (c *move) apply(db *DB) {
	for _, n := range c.replaces {
		db.unlist(n)
	}
	db.list(c.g)
	last := map[*Queue]Position{}
	for _, k := range c.g.packs {
		if k != nil {
			last[k.q] = max(last[k.q], k.last)
		}
	}
	for q, p := range last {
		q.cut(p)
	}
	if c.drafts != nil {
		db.stats.Moved += uint64(c.g.n)
	}
}

// list takes a generation into the index.
func (db *DB) list(g *sealed) {
	db.generations[g.mark.Number] = g
	db.lastGeneration = max(db.lastGeneration, g.mark.Number)
	for i, k := range g.packs {
		switch {
		case k == nil:
		case k.n == 0:
			g.packs[i] = nil
		default:
			if k.last >= k.q.next() { // only in replay, after damage
				k.q.gap(k.last + 1)
			}
			k.q.file(k)
			k.find(db)
		}
	}
}

// find accounts for records of the pack that replay had given up for lost.
func (k *pack) find(db *DB) {
	if len(k.q.lost) == 0 {
		return
	}
	nobody := db.row(db.number(""), k.q.id)
	for p, counted := range k.q.lost {
		if k.has(p) {
			delete(k.q.lost, p)
			if !counted {
				nobody.Accepted--
				nobody.Damaged--
			}
		}
	}
}

// unlist takes a generation out of the index, with whatever is in it.
func (db *DB) unlist(number uint32) {
	g := db.generations[number]
	if g == nil {
		return
	}
	for _, k := range g.packs {
		if k != nil {
			k.q.unfile(k)
		}
	}
	delete(db.generations, number)
	db.dropped = append(db.dropped, g)
}

// install makes a generation of what the journal says of it and of its seal. In
// replay alone.
func (r *replay) install(in *reader) error {
	rec := in.generation()
	if in.err != nil {
		return in.err
	}
	db := r.db
	db.lastGeneration = max(db.lastGeneration, rec.mark.Number)
	if db.generations[rec.mark.Number] != nil {
		return nil
	}
	mark, directory, err := db.cold.Seal(rec.mark.Number)
	if err != nil && !errors.Is(err, generation.ErrMissing) {
		// A fault that passes must not cost a generation.
		db.reach("a seal is read a second time")
		mark, directory, err = db.cold.Seal(rec.mark.Number)
	}
	if err == nil && mark != rec.mark {
		err = fmt.Errorf("%w: generation %d is not the one that the journal speaks of", generation.ErrDamaged, rec.mark.Number)
	}
	if errors.Is(err, generation.ErrVersion) {
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	if err != nil {
		// Where all of it ends later in the journal, nothing is amiss: it was dropped.
		// Where its source is still there, that is used.
		db.reach("a generation that the journal speaks of is gone")
		r.absent[rec.mark.Number] = err
		return nil
	}
	g, err := db.readDirectory(directory, func(id uint32, name string) *Queue {
		r.open(id, name)
		return db.byID[id]
	})
	if err == nil {
		err = g.change(rec.changed)
	}
	if err != nil {
		return fmt.Errorf("generation %d: %w", rec.mark.Number, err)
	}
	g.mark = mark
	(&move{g: g, replaces: rec.replaces}).apply(db)
	return nil
}

// spent gives the generations of which nothing counts any more.
func (db *DB) spent() []*sealed {
	db.mu.Lock()
	defer db.mu.Unlock()
	out := db.dropped
	db.dropped = nil
	for n, g := range db.generations {
		if g.n == 0 {
			delete(db.generations, n)
			out = append(out, g)
		}
	}
	slices.SortFunc(out, func(a, b *sealed) int { return int(a.mark.Number) - int(b.mark.Number) })
	return out
}
