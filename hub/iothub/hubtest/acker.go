package hubtest

import (
	"context"
	"slices"
	"sync"
	"time"
)

// acker acknowledges the telemetry of one connection, in order, as the faults in
// force have it.
type acker struct {
	c    *client
	some chan struct{} // has one element when due has grown

	mu  sync.Mutex
	due []due

	// Of the goroutine alone.
	held []uint16  // by PubackReorder or PubackReuse
	till time.Time // when held is sent at the latest
	last uint16    // acknowledged last; 0 if none
}

type due struct {
	id uint16
	at time.Time // when the message was kept
}

// straggle is how long an acknowledgement is held for the sake of disorder.
const straggle = 200 * time.Millisecond

func newAcker(c *client) *acker { return &acker{c: c, some: make(chan struct{}, 1)} }

// add says that packet id is to be acknowledged. It does not block: a client that
// waits for acknowledgements still gets its pings answered.
func (a *acker) add(id uint16) {
	a.mu.Lock()
	a.due = append(a.due, due{id, time.Now()})
	a.mu.Unlock()
	select {
	case a.some <- struct{}{}:
	default:
	}
}

func (a *acker) take() []due {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.due
	a.due = nil
	return d
}

// run works until ctx ends.
func (a *acker) run(ctx context.Context) {
	for ctx.Err() == nil {
		var late <-chan time.Time
		if len(a.held) > 0 {
			late = time.After(time.Until(a.till))
		}
		select {
		case <-ctx.Done():
		case <-late:
			a.release()
		case <-a.some:
			for _, d := range a.take() {
				if !a.one(ctx, d) {
					return
				}
			}
		}
	}
}

// one acknowledges a message, or holds it, or does not; false when ctx has ended.
func (a *acker) one(ctx context.Context, d due) bool {
	h := a.c.h
	f := h.faults.get()
	if every(f.PubackDrop, &h.faults.acked) {
		return true
	}
	if h.faults.limit.Wait(ctx) != nil || !sleep(ctx, time.Until(d.at.Add(f.PubackDelay))) {
		return false
	}
	if len(a.held) > 0 && !time.Now().Before(a.till) {
		a.release()
	}
	switch {
	case f.PubackReorder > 1:
		a.hold(d.id)
		if len(a.held) >= f.PubackReorder {
			slices.Reverse(a.held)
			a.release()
		}
	case f.PubackReuse && a.last != 0:
		a.send(a.last)
		a.hold(d.id)
	default:
		a.release()
		a.send(d.id)
		a.last = d.id
		if f.PubackRepeat {
			a.send(d.id)
		}
	}
	return true
}

func (a *acker) hold(id uint16) {
	if len(a.held) == 0 {
		a.till = time.Now().Add(straggle)
	}
	a.held = append(a.held, id)
}

// release sends what is held, in the order in which it stands.
func (a *acker) release() {
	repeat := a.c.h.faults.get().PubackRepeat
	for _, id := range a.held {
		a.send(id)
		if repeat {
			a.send(id)
		}
		a.last = id
	}
	a.held = a.held[:0]
}

func (a *acker) send(id uint16) { a.c.write(puback(id)) }

// sleep waits for d; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
