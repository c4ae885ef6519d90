package conform

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Bits of the connect flags, for hello.flip.
const (
	flagReserved byte = 1 << iota
	flagCleanStart
	flagWill
	flagWillQoS1
	flagWillQoS2
	flagWillRetain
	flagPassword
	flagUser
)

// Subscription options of MQTT 5, beside the quality of service.
const (
	noLocal           byte = 1 << 2
	retainAsPublished byte = 1 << 3
	retainIfNew       byte = 1 << 4 // Retain Handling 1
	retainNever       byte = 2 << 4 // Retain Handling 2
)

// five is a client with a clean start that was let in, and said props.
func five(t *Try, props ...[]byte) *conn {
	return t.connect(func(h *hello) { h.props = slices.Concat(props...) })
}

// begin is a client whose session begins now and outlives its connection.
func begin(t *Try, id string, props ...[]byte) *conn {
	c := t.connect(func(h *hello) {
		h.id, h.props = id, append(slices.Concat(props...), number(propSessionExpiry, 3600)...)
	})
	if n, ok := c.connack.props.number(propSessionExpiry); ok && n == 0 {
		t.notApplicable("keeps no sessions: its CONNACK says Session Expiry Interval 0")
	}
	return c
}

// back is a client whose session of before has to be there.
func back(t *Try, id string, props ...[]byte) *conn {
	c := t.connect(func(h *hello) {
		h.id, h.clean, h.props = id, false, append(slices.Concat(props...), number(propSessionExpiry, 3600)...)
	})
	if !c.connack.present {
		t.failf("session of %s is not present", id)
	}
	return c
}

// gone ends a session, so that a target does not keep it.
func gone(c *conn) { c.bye(0, number(propSessionExpiry, 0)) }

// bye says DISCONNECT with a reason and properties, and waits until the server
// has closed the connection.
func (c *conn) bye(reason byte, props ...[]byte) {
	c.send(frame(kindDisconnect<<4, []byte{reason}, block(slices.Concat(props...))))
	c.untilClosed()
}

// maximum is a number of CONNACK, or what its absence means.
func (c *conn) maximum(id byte, absent uint32) uint32 {
	if n, ok := c.connack.props.number(id); ok {
		return n
	}
	return absent
}

// needs ends the row where the server has said in CONNACK that it does not offer
// what the row is about, which the standard leaves to it.
func (c *conn) needs(id byte, what string) *conn {
	if c.maximum(id, 1) == 0 {
		c.t.notApplicable("says in CONNACK that it offers no " + what)
	}
	return c
}

func (c *conn) needsShared() *conn   { return c.needs(propSharedAvailable, "shared subscriptions") }
func (c *conn) needsRetained() *conn { return c.needs(propRetainAvailable, "retained messages") }
func (c *conn) needsIDs() *conn      { return c.needs(propSubscriptionIDs, "subscription identifiers") }

func (c *conn) needsQoS2() *conn {
	if n := c.maximum(propMaximumQoS, 2); n < 2 {
		c.t.notApplicable(fmt.Sprintf("says in CONNACK that it offers QoS %d at most", n))
	}
	return c
}

// offer sends a message with quality of service 1 or 2 and gives the first answer.
func (c *conn) offer(p pub) packet {
	if p.id == 0 {
		p.id = c.nextID()
	}
	c.send(p.bytes(v5))
	return c.awaitID(kindPuback+p.qos-1, p.id)
}

// answer sends PUBACK, PUBREC, PUBREL or PUBCOMP with a reason.
func (c *conn) answer(kind byte, id uint16, reason byte) {
	p := ackPacket(kind, id)
	c.send(frame(p[0], p[2:], []byte{reason}))
}

// identify subscribes with a subscription identifier.
func (c *conn) identify(n uint32, f filter) {
	id := c.nextID()
	c.send(subscribePacket(v5, id, number(propSubscriptionID, n), f))
	if p := c.awaitID(kindSuback, id); len(p.codes) != 1 || p.codes[0] >= 0x80 {
		c.t.failf("%v for %q with subscription identifier %d", p, f.name, n)
	}
}

// option subscribes with options, which have to be granted.
func (c *conn) option(name string, options byte) {
	if code := c.subscribe(filter{name, options})[0]; code != options&3 {
		c.t.failf("SUBACK %#x for %q with options %#x", code, name, options)
	}
}

// message is the next PUBLISH. It is not acknowledged.
func (c *conn) message() packet {
	return c.await("PUBLISH", func(p packet) bool { return p.kind == kindPublish })
}

// silence says that nothing comes for d, not even the end.
func (c *conn) silence(d time.Duration) {
	if !c.comes(d) {
		return
	}
	p, err := c.read("a packet")
	if err != nil {
		c.t.failf("connection closed (%v), want nothing", err)
	}
	c.t.failf("%v, want nothing", p)
}

// comes says whether anything comes within d, if only the end.
func (c *conn) comes(d time.Duration) bool {
	if len(c.aside) > 0 {
		return true
	}
	c.nc.SetReadDeadline(time.Now().Add(d))
	_, err := c.br.Peek(1)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// turnedOut says that the server closes the connection because of what it was
// sent, and that the reason is an error's if it gives one.
func (c *conn) turnedOut() *packet {
	p := c.expectClosed()
	if p != nil && p.code < 0x80 {
		c.t.failf("%v, want a reason of 0x80 or more", p)
	}
	return p
}

// within puts a case's name before what was seen in it.
func within(name string, run func()) {
	defer func() {
		r := recover()
		if v, ok := r.(Verdict); ok {
			v.Seen = name + ": " + v.Seen
			r = v
		}
		if r != nil {
			panic(r)
		}
	}()
	run()
}

// badPacket is a packet that no server may let pass.
type badPacket struct {
	what   string
	packet []byte
}

// turnsOut is a row: each of the packets costs its connection.
func turnsOut(cases func(*Try) []badPacket) func(*Try) {
	return func(t *Try) {
		for _, w := range cases(t) {
			within(w.what, func() {
				c := five(t)
				c.send(w.packet)
				c.turnedOut()
			})
		}
	}
}

// wrongHello is a CONNECT that no server may let in.
type wrongHello struct {
	what   string
	change func(*hello)
}

// turnsAway is a row: none of the CONNECT packets is let in.
func turnsAway(cases ...wrongHello) func(*Try) {
	return func(t *Try) {
		for _, w := range cases {
			within(w.what, func() {
				h := t.hello()
				w.change(&h)
				turnedAway(t, h)
			})
		}
	}
}

// turnedAway is CONNACK, if the server sends one before it closes.
func turnedAway(t *Try, h hello) *packet {
	p := t.refused(h)
	if p != nil && p.code < 0x80 && len(p.body) > 2 {
		t.failf("%v, want a reason of 0x80 or more", p)
	}
	return p
}

// refusal is the CONNACK that refuses h before the connection is closed. It is nil
// if the server closes without one, as it may, or lets h in, which is the business
// of other rows.
func refusal(t *Try, h hello) *packet {
	c := t.dial()
	c.version = h.level
	c.send(h.bytes())
	p, err := c.read("CONNACK or the end")
	switch {
	case err != nil:
		return nil
	case p.kind != kindConnack:
		t.failf("%v, want CONNACK", p)
	case p.code == 0:
		c.leave()
		return nil
	}
	c.expectClosed()
	return &p
}

// pause lets time pass.
func pause(d time.Duration) { <-time.After(d) }

// publishPacket is a PUBLISH of MQTT 5 at quality of service 1 with properties.
func publishPacket(topic string, props ...[]byte) []byte {
	return pub{topic: topic, payload: "x", qos: 1, id: 1, props: slices.Concat(props...)}.bytes(v5)
}

// size is that of the whole packet, in bytes.
func (p packet) size() int { return 1 + len(varint(len(p.body))) + len(p.body) }
