package mqtt

import (
	"errors"
	"time"

	"holdfast.dev/holdfast/hub"
)

// A message for which the hub has no room is not refused at once: 3.1.1 knows no
// answer but the end of the connection, and a device would come back and try the
// same in a tight loop for as long as the disk is full. So its acknowledgement is
// held, and the bridge tries again with the same message. What the client sends
// meanwhile waits behind it, so that the order stays; its window fills, then it is
// read no more: the pressure is on this client alone.
const (
	holdTime  = 20 * time.Second // then it is refused after all
	holdPause = 500 * time.Millisecond
)

// maxBehind is how many bytes of one client may wait behind what is held: it is
// memory, and a full disk holds all clients at once.
const maxBehind = 64 << 10

// attempt is a message on its way to the hub.
type attempt struct {
	p      *publication
	m      hub.Message
	others *message // for other clients, or nil
	held   bool     // was refused for want of room once
}

// hold is what the hub has no room for; the connection's mu guards it.
type hold struct {
	over   chan struct{} // nil, or retry is at work: nobody else hands messages over until it is closed
	flying int           // with the hub, which has not said done
	failed []attempt
	behind []attempt // came later and have not been tried
	bytes  int       // of what was put behind
	err    error     // why the last one failed
}

// hand gives a to the hub, or has it wait its turn. It is called by the reader,
// which waits too when too much is behind.
func (c *conn) hand(a attempt) {
	c.mu.Lock()
	h := &c.held
	if h.over == nil {
		h.flying++
		c.mu.Unlock()
		c.try(a)
		return
	}
	h.behind = append(h.behind, a)
	h.bytes += len(a.m.Body) + len(a.m.Topic) + len(a.m.Props)
	over, much := h.over, h.bytes > maxBehind
	c.mu.Unlock()
	if much {
		select {
		case <-over:
		case <-c.ctx.Done():
		}
	}
}

// end ends the hold; mu is held.
func (h *hold) end() {
	close(h.over)
	*h = hold{flying: h.flying}
}

func (c *conn) try(a attempt) {
	leave := c.b.passage.enter()
	defer leave()
	c.hub.Publish(c.ctx, a.m, func(err error) {
		// On the goroutine that commits: nothing here may block.
		defer func() { c.containDone(recover()) }()
		if c.landed(a, err) {
			return
		}
		if err != nil {
			c.notKept(a.p, err)
			return
		}
		c.settle(a.p, 0)
		if a.others == nil {
			c.release()
			return
		}
		c.b.fan.add(job{m: a.others, done: c.release})
	})
}

// landed says whether a is held.
func (c *conn) landed(a attempt, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held.flying--
	if !lacksRoom(err) || c.ctx.Err() != nil {
		return false
	}
	if !a.held {
		a.held = true
		c.b.stats.held.Add(1)
	}
	c.held.failed = append(c.held.failed, a)
	c.held.err = err
	if c.held.over == nil {
		c.held.over = make(chan struct{})
		go c.retry()
	}
	return true
}

// lacksRoom is hub.ErrFull, and a store that cannot be written for another reason.
func lacksRoom(err error) bool {
	return err != nil && !errors.Is(err, hub.ErrOffline) && !errors.Is(err, hub.ErrBad) && !errors.Is(err, hub.ErrRefused)
}

// retry tries the oldest of what is held alone, until it is kept; then the others
// follow. It ends when none is left, after holdTime without room, or with the
// connection.
func (c *conn) retry() {
	defer func() { c.b.contain(recover(), c.who, c.fell) }()
	tick := time.NewTicker(holdPause)
	defer tick.Stop()
	until := time.Now().Add(holdTime)
	for {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		c.mu.Lock()
		h := &c.held
		if h.flying > 0 { // the order is known when all have landed
			c.mu.Unlock()
			continue
		}
		c.order.Resume()           // all have landed: from here the oldest goes first
		room := len(h.failed) == 0 // of the last round
		h.behind = append(h.failed, h.behind...)
		h.failed = nil
		c.mu.Unlock()
		switch {
		case room:
			if c.pour() {
				return
			}
			until = time.Now().Add(holdTime)
		case time.Now().Before(until):
			c.mu.Lock()
			a := h.next()
			c.mu.Unlock()
			c.try(a)
		default:
			c.giveUp()
			return
		}
	}
}

// pour hands over what waits, and says whether that was all: then the hold is over.
// It stops where one did not fit: what follows must not pass it.
func (c *conn) pour() bool {
	for c.ctx.Err() == nil {
		c.mu.Lock()
		h := &c.held
		switch {
		case len(h.failed) > 0:
			c.mu.Unlock()
			return false
		case len(h.behind) == 0:
			h.end()
			c.mu.Unlock()
			return true
		}
		a := h.next()
		c.mu.Unlock()
		c.try(a)
	}
	return false
}

// next takes the oldest that waits, to be tried; mu is held.
func (h *hold) next() attempt {
	a := h.behind[0]
	h.behind[0] = attempt{}
	h.behind = h.behind[1:]
	h.flying++
	return a
}

// giveUp refuses all that is held: the client has to keep it.
func (c *conn) giveUp() {
	c.mu.Lock()
	why := cause{"not kept", codeQuota, c.held.err}
	if c.version != v5 {
		c.mu.Unlock()
		c.hangUp(why) // and the hold stays on: nothing more is handed over
		return
	}
	refused := c.held.behind
	c.held.end()
	c.mu.Unlock()
	for _, a := range refused {
		c.refuse(a.p, why)
	}
}

// abandon lets go of what is held when the connection has ended: the client will send
// it again.
func (c *conn) abandon() {
	c.mu.Lock()
	all := append(c.held.failed, c.held.behind...)
	c.held.failed, c.held.behind = nil, nil
	c.mu.Unlock()
	for _, a := range all {
		if a.p.qos == 2 {
			a.p.in.lost(a.p.packet)
		}
	}
}
