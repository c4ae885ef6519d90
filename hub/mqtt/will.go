package mqtt

import (
	"context"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

// will is what a client wants said when it goes without a word. It is taken from
// CONNECT and goes through the same door as a publish; mochi never sees it.
//
// It is on disk as long as its connection lives: after a power cut, or when the
// gateway itself was stopped, it is sent at the next start (MQTT 5, 3.1.2.5).
type will struct {
	m     hub.Message
	local *message // for other clients, or nil
	delay time.Duration
	until time.Time // when it is given up where the hub has no room; zero: not tried yet
	key   string    // on disk; "" if it is not there
}

// rememberedWill is a will, as it is on disk.
type rememberedWill struct {
	From  hub.Identity `json:"from"`
	Topic string       `json:"topic,omitempty"` // none: an IoT Hub identity's
	QoS   byte         `json:"qos"`
	Delay int64        `json:"delay"`           // seconds
	Props wire.Bag     `json:"props,omitempty"` // an IoT Hub identity's
	Extra []byte       `json:"extra,omitempty"`
	Body  []byte       `json:"body"`
}

// rememberWill writes the will down. c has just got its session.
func (c *conn) rememberWill() {
	w := c.will
	if w == nil {
		return
	}
	w.key = c.session.key + "\x00" + c.b.newID()
	c.b.clerk.note(nil, jsonChange(mapWills, w.key, rememberedWill{
		From: w.m.From, Topic: w.m.Topic, QoS: w.m.QoS, Delay: int64(w.delay / time.Second),
		Props: w.m.Props, Extra: []byte(w.m.Extra), Body: w.m.Body,
	}))
}

// forgetWill takes a will off the disk that is not to be sent any more.
func (b *Broker) forgetWill(w *will) {
	if w != nil && w.key != "" {
		b.clerk.note(nil, storage.Change{Map: mapWills, Key: w.key})
	}
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
	m := &message{id: c.b.newID(), topic: k.WillTopic, body: k.WillPayload, qos: k.WillQos, retain: k.WillRetain, from: "client\x00" + c.who}
	if c.version == v5 {
		m.props = endToEnd(p)
		m.lifetime = p.MessageExpiryInterval // it begins when the will is sent
	}
	return &will{
		m:     hub.Message{ID: m.id, From: c.from(), Topic: m.topic, QoS: m.qos, Extra: m.extra(), Body: m.body},
		local: m,
		delay: time.Duration(p.WillDelayInterval) * time.Second,
	}
}

// keepWill says which will is due now that c has ended; one with a delay stays
// with the session as long as that is kept. s.mu is held.
func (s *session) keepWill(c *conn, sleeping bool) *will {
	c.mu.Lock()
	shutdown := c.cause != nil && c.cause.reason == "shutdown"
	polite := c.polite
	c.mu.Unlock()
	w := c.will
	switch {
	case w == nil:
		return nil
	case polite:
		s.b.forgetWill(w)
		return nil
	case shutdown:
		return nil // it is on disk
	case w.delay == 0:
		return w
	case sleeping:
		s.will, s.willAt = w, time.Now().Add(min(w.delay, s.expiry))
		return nil
	case s.conn != nil && s.conn != c:
		s.b.forgetWill(w)
		return nil // continued by a newer connection before the delay was over
	}
	return w
}

// sendWill publishes it, in the background of whoever calls. It goes off the disk in
// the commit in which it is kept.
func (b *Broker) sendWill(w *will) {
	h := b.running()
	if h == nil {
		return
	}
	if w.until.IsZero() {
		w.until = time.Now().Add(holdTime)
		if w.local != nil {
			w.local.live(w.local.lifetime)
		}
		if w.key != "" {
			w.m.With = []storage.Change{{Map: mapWills, Key: w.key}}
		}
	}
	ctx, cancel := context.WithTimeout(b.context(), willTimeout)
	leave := b.passage.enter()
	defer leave()
	h.Publish(ctx, w.m, func(err error) {
		defer cancel()
		switch {
		case lacksRoom(err) && time.Now().Before(w.until):
			b.due.add(w) // as for a publish that is held
		case err != nil:
			b.forgetWill(w)
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
	if err := b.retained.follow(nil); err != nil {
		b.log.Debug("retained messages are not tidied", "error", err)
	}
	b.pokeGroups()
	b.tellEvicted()
}
