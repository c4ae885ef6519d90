package storage

import (
	"context"
	"sync"
)

// gate keeps appends back while the journal is longer than its ring and the mover is
// at work: what comes faster than it can be moved must wait, or memory and the time
// to open would grow with it. Where the mover cannot help, for want of room or because
// it was stopped, the journal may grow as far as the disk and MaxBytes let it.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil: open; closed when it opens
}

// watchGate opens or shuts the gate by how long the journal is.
func (db *DB) watchGate() {
	n, _ := db.j.Segments()
	shut := n > db.o.Ring && db.moves() && db.mover.helps.Load()
	g := &db.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case shut && g.shut == nil:
		g.shut = make(chan struct{})
	case !shut && g.shut != nil:
		close(g.shut)
		g.shut = nil
	}
}

// hurry says whether the ring is so full that the mover should not rest.
func (db *DB) hurry() bool {
	n, _ := db.j.Segments()
	return 4*n > 3*db.o.Ring
}

// pass waits until the gate is open, ctx ends or the store is closed.
func (db *DB) pass(ctx context.Context) error {
	for {
		db.gate.mu.Lock()
		shut := db.gate.shut
		db.gate.mu.Unlock()
		if shut == nil {
			return nil
		}
		select {
		case <-shut:
		case <-db.quit:
			return nil // it will be told
		case <-db.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
