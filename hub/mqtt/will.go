package mqtt

import (
	"context"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
)

// will is what a client wants said when it goes without a word. It is taken from
// CONNECT and goes through the same door as a publish; mochi never sees it.
type will struct {
	m     hub.Message
	local *message // for other clients, or nil
	delay time.Duration
	until time.Time // when it is given up where the hub has no room; zero: not tried yet
}

// dueWills are for the janitor to send: of sessions that ended before the delay was
// over, and those that there was no room for. Its lock is its own, for the committer
// calls add.
type dueWills struct {
	mu   sync.Mutex
	list []*will
}

func (d *dueWills) add(w *will) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, w)
}

func (d *dueWills) take() []*will {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.list
	d.list = nil
	return l
}

// willTimeout is how long a will may wait for room in the hub's window.
const willTimeout = 20 * time.Second

func (c *conn) localWill(pk *packets.Packet) *will {
	k, p := &pk.Connect, &pk.Connect.WillProperties
	m := &message{topic: k.WillTopic, body: k.WillPayload, qos: min(k.WillQos, 1), retain: k.WillRetain, from: "client\x00" + c.who}
	if c.version == v5 {
		m.props = endToEnd(p)
		if p.MessageExpiryInterval > 0 {
			m.expires = time.Now().Add(time.Duration(p.MessageExpiryInterval) * time.Second)
		}
	}
	return &will{
		m:     hub.Message{From: c.from(), Topic: m.topic, QoS: m.qos, Body: m.body},
		local: m,
		delay: time.Duration(p.WillDelayInterval) * time.Second,
	}
}

// keepWill says which will is due now that c has ended; one with a delay stays
// with the session as long as that is kept. s.mu is held.
func (s *session) keepWill(c *conn, sleeping bool) *will {
	c.mu.Lock()
	due := !c.polite && (c.cause == nil || c.cause.reason != "shutdown")
	c.mu.Unlock()
	w := c.will
	switch {
	case w == nil || !due:
		return nil
	case w.delay == 0:
		return w
	case sleeping:
		s.will, s.willAt = w, time.Now().Add(min(w.delay, s.expiry))
		return nil
	case s.conn != nil && s.conn != c:
		return nil // continued by a newer connection before the delay was over
	}
	return w
}

// sendWill publishes it, in the background of whoever calls.
func (b *Broker) sendWill(w *will) {
	h := b.running()
	if h == nil {
		return
	}
	if w.until.IsZero() {
		w.until = time.Now().Add(holdTime)
	}
	ctx, cancel := context.WithTimeout(b.context(), willTimeout)
	h.Publish(ctx, w.m, func(err error) {
		defer cancel()
		switch {
		case lacksRoom(err) && time.Now().Before(w.until):
			b.due.add(w) // as for a publish that is held
		case err != nil:
			go b.warn(string(w.m.From), "will was not kept", err) // the committer calls, and the log may block
		case w.local != nil:
			b.fan.add(job{m: w.local, done: func() {}})
		}
	})
}

// janitor ends sessions whose time is over and sends wills whose delay is.
func (b *Broker) janitor(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			b.sweep(now)
		}
	}
}

func (b *Broker) sweep(now time.Time) {
	var wills []*will
	b.mu.Lock()
	for key, s := range b.sessions {
		s.mu.Lock()
		away := s.conn == nil
		over := away && !now.Before(s.until)
		if away && s.will != nil && (over || !now.Before(s.willAt)) {
			wills = append(wills, s.will)
			s.will = nil
		}
		s.mu.Unlock()
		if over {
			delete(b.sessions, key)
			s.drop()
		}
	}
	b.mu.Unlock()
	for _, w := range append(wills, b.due.take()...) {
		b.sendWill(w)
	}
}
