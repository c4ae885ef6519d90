package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"holdfast.dev/holdfast/storage/generation"
)

// strays gives the generations on disk that do not count: built and never
// committed, or dropped and not yet gone. After damage, one that is newer than all
// that the journal speaks of may be what remains of a move whose frame is lost: it
// is taken in; and so is any where no whole picture is left to say which count: a
// repeat is all that it may cost. Called with db.mu held, when all frames have been read.
func (r *replay) strays() (out []uint32, err error) {
	db := r.db
	known := db.lastGeneration
	damaged := r.ever || !db.agrees() // a frame that rots at the very end passes for one that was cut
	for _, n := range db.cold.Numbers() {
		gone := slices.ContainsFunc(db.dropped, func(g *sealed) bool { return g.mark.Number == n })
		switch {
		case db.generations[n] != nil || gone:
		case damaged && (n > known || len(db.pictured) == 0) && r.adopt(n):
		default:
			db.reach("a generation does not count")
			out = append(out, n)
		}
		db.lastGeneration = max(db.lastGeneration, n)
	}
	for _, q := range db.byID {
		for p := range q.odd { // what it was said of is gone
			if h, ok := q.holds(p); !ok || !h.cold {
				delete(q.odd, p)
				if !ok {
					delete(q.reasons, p)
				}
			}
		}
	}
	return out, nil
}

// adopt takes in a generation of which the journal says nothing, but for what the
// index has otherwise. What had ended is not known: it is repeated.
func (r *replay) adopt(n uint32) bool {
	db := r.db
	mark, directory, err := db.cold.Seal(n)
	if err != nil {
		return false
	}
	g, err := db.readDirectory(directory, func(id uint32, name string) *Queue {
		r.open(id, name)
		return db.byID[id]
	})
	if err != nil {
		return false
	}
	g.mark = mark
	for i, k := range g.packs {
		c, err := db.content(k)
		if err != nil {
			g.packs[i] = nil
			continue
		}
		for j, p := range c.positions {
			if _, ok := k.q.holds(p); k.has(p) && (ok || p >= k.q.base) {
				k.miss(p, db.number(string(senderOf(c.messages[j]))))
			}
		}
	}
	g.n = 0
	for _, k := range g.packs {
		if k != nil {
			g.n += k.n
		}
	}
	db.list(g)
	db.log.Warn("generation that the journal does not know is taken in", "generation", n, "records", g.n)
	return true
}

// clearAway removes the strays, or sets them aside where anything is amiss.
func (db *DB) clearAway(strays []uint32, r *replay, missing uint64) error {
	for n, err := range r.absent {
		if errors.Is(err, generation.ErrDamaged) && missing > 0 {
			db.log.Error("generation is damaged", "generation", n, "error", err)
			db.stats.Damage = append(db.stats.Damage, Damage{File: db.coldPath(n), Records: missing})
		}
	}
	for _, n := range strays {
		if !r.ever && missing == 0 {
			if err := db.cold.Drop(n); err != nil {
				return fmt.Errorf("remove generation %d, which does not count: %w", n, err)
			}
			continue
		}
		if err := db.setAside(n); err != nil {
			return err
		}
	}
	return nil
}

// setAside moves a generation to the quarantine folder.
func (db *DB) setAside(n uint32) error {
	dir := filepath.Join(db.dir, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("set generation %d aside: %w", n, err)
	}
	if err := db.cold.SetAside(n, filepath.Join(dir, fmt.Sprintf("g-%08d", n))); err != nil {
		return fmt.Errorf("set generation %d aside: %w", n, err)
	}
	return nil
}
