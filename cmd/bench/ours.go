package main

import (
	"context"
	"fmt"

	"holdfast.dev/holdfast/storage"
)

// holdfast is the store under test, with the options of a gateway but for the
// quota.
type holdfast struct {
	db    *storage.DB
	q     *storage.Queue
	clock storage.Clock
	read  storage.Position // taken up to here
}

// quota is more than any measurement keeps.
const quota = 64 << 30

func openHoldfast(dir string) (*holdfast, error) {
	clock := storage.SystemClock()
	db, err := storage.Open(dir, storage.Options{Clock: clock, MaxBytes: quota})
	if err != nil {
		return nil, err
	}
	q := db.Queue("up")
	return &holdfast{db: db, q: q, clock: clock, read: q.Checkpoint()}, nil
}

func (h *holdfast) put(m message, done func(error)) {
	h.db.Append(context.Background(), storage.Record{
		Sender: m.topic, Stamp: h.clock.Now(), Body: m.body, To: []storage.Dest{{Queue: "up"}},
	}, done)
}

func (h *holdfast) keep(group []message) error { return keepAll(h, group) }

// takeBytes bounds what one take holds in memory, as a forwarder's window does.
const takeBytes = 1 << 20

func (h *holdfast) take(n int) ([]message, error) {
	items, next, err := h.q.Read(h.read, storage.Limit{Records: n, Bytes: takeBytes}, nil)
	if err != nil {
		return nil, err
	}
	h.read = next
	out := make([]message, len(items))
	positions := make([]storage.Position, len(items))
	for i, item := range items {
		out[i] = message{topic: item.Sender, body: item.Body}
		positions[i] = item.Position
	}
	if len(items) > 0 {
		h.q.Settle(positions, storage.Delivered, nil)
	}
	return out, nil
}

func (h *holdfast) commits() uint64 { return h.db.Stats().Commits }

// account says whether the ledger has kept and delivered what it should.
func (h *holdfast) account(kept uint64) error {
	var accepted, ended uint64
	for _, r := range h.db.Ledger() {
		if r.Balance() != 0 {
			return fmt.Errorf("ledger of %s in %s does not add up by %d", r.Sender, r.Queue, r.Balance())
		}
		accepted += r.Accepted
		ended += r.Expired + r.Evicted + r.Discarded + r.Damaged
	}
	if accepted != kept || ended != 0 {
		return fmt.Errorf("ledger knows of %d messages, %d lost on the way; %d were acknowledged", accepted, ended, kept)
	}
	return nil
}

func (h *holdfast) close() error { return h.db.Close() }
