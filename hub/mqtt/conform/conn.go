package conform

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"
)

// conn is a client, packet by packet. Nothing is sent or acknowledged that a row
// did not ask for.
type conn struct {
	t        *Try
	nc       net.Conn
	br       *bufio.Reader
	version  byte
	patience time.Duration // how long it waits, the target's Patience at first
	connack  packet        // set by Try.open
	lastID   uint16        // packet identifier that was used last
	aside    []packet      // read by await, which looked for others
}

func newConn(t *Try, nc net.Conn) *conn {
	return &conn{t: t, nc: nc, br: bufio.NewReader(nc), version: t.Version, patience: t.Target.Patience}
}

// close ends the connection without a word, as a client does that dies.
func (c *conn) close() { c.nc.Close() }

// leave says DISCONNECT and waits until the server has closed the connection, so
// that the client is gone when the next one comes.
func (c *conn) leave() {
	c.send(goodbye())
	c.untilClosed()
}

// send writes bytes as they are. That the server closed the connection meanwhile
// is for the next read to tell.
func (c *conn) send(parts ...[]byte) {
	c.nc.SetWriteDeadline(time.Now().Add(c.patience))
	if _, err := c.nc.Write(slices.Concat(parts...)); errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.failf("the server took no bytes for %v", c.patience)
	}
}

// read gives the next packet, or an error that says that the connection ended.
// Silence and malformed packets end the row; want is for the verdict.
func (c *conn) read(want string) (packet, error) {
	if len(c.aside) > 0 {
		p := c.aside[0]
		c.aside = c.aside[1:]
		return p, nil
	}
	return c.readFresh(want)
}

func (c *conn) readFresh(want string) (packet, error) {
	c.nc.SetReadDeadline(time.Now().Add(c.patience))
	p, err := readPacket(c.br, c.version)
	switch {
	case errors.Is(err, errMalformed):
		c.t.failf("%v", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.failf("nothing for %v, want %s", c.patience, want)
	}
	return p, err
}

// expect is the next packet, which must be of that kind.
func (c *conn) expect(kind byte) packet {
	p, err := c.read(name(kind))
	if err != nil {
		c.t.failf("connection closed (%v), want %s", err, name(kind))
	}
	if p.kind != kind {
		c.t.failf("%v, want %s", p, name(kind))
	}
	return p
}

// expectID is the next packet, which must be of that kind and answer that id.
func (c *conn) expectID(kind byte, id uint16) packet {
	p := c.expect(kind)
	if p.id != id {
		c.t.failf("%v, want id %d", p, id)
	}
	return p
}

// await is the first packet that right says yes to. Others stay for later reads.
func (c *conn) await(want string, right func(packet) bool) packet {
	for i, p := range c.aside {
		if right(p) {
			c.aside = slices.Delete(c.aside, i, i+1)
			return p
		}
	}
	for {
		p, err := c.readFresh(want)
		if err != nil {
			c.t.failf("connection closed (%v), want %s", err, want)
		}
		if right(p) {
			return p
		}
		c.aside = append(c.aside, p)
	}
}

// awaitID is the first packet of that kind and id. Others stay for later reads.
func (c *conn) awaitID(kind byte, id uint16) packet {
	return c.await(fmt.Sprintf("%s (id %d)", name(kind), id), func(p packet) bool { return p.kind == kind && p.id == id })
}

// expectPublish is the next packet: a PUBLISH of that topic, payload and quality
// of service. It is not acknowledged.
func (c *conn) expectPublish(topic, payload string, qos byte) packet {
	p := c.expect(kindPublish)
	if p.topic != topic || p.payload != payload || p.qos != qos {
		c.t.failf("%v, want %q on %q with QoS %d", p, payload, topic, qos)
	}
	return p
}

// take is expectPublish, and then what its quality of service asks of a receiver.
func (c *conn) take(topic, payload string, qos byte) packet {
	p := c.expectPublish(topic, payload, qos)
	c.finish(p)
	return p
}

// finish acknowledges a PUBLISH, to the end.
func (c *conn) finish(p packet) {
	switch p.qos {
	case 1:
		c.send(ackPacket(kindPuback, p.id))
	case 2:
		c.send(ackPacket(kindPubrec, p.id))
		c.awaitID(kindPubrel, p.id)
		c.send(ackPacket(kindPubcomp, p.id))
	}
}

// nextID is a packet identifier that this client has not used yet.
func (c *conn) nextID() uint16 {
	c.lastID++
	return c.lastID
}

// publish sends a message and sees it through to its last acknowledgement.
func (c *conn) publish(p pub) {
	if p.qos > 0 && p.id == 0 {
		p.id = c.nextID()
	}
	c.send(p.bytes(c.version))
	switch p.qos {
	case 1:
		c.succeeded(c.awaitID(kindPuback, p.id))
	case 2:
		c.succeeded(c.awaitID(kindPubrec, p.id))
		c.send(ackPacket(kindPubrel, p.id))
		c.succeeded(c.awaitID(kindPubcomp, p.id))
	}
}

func (c *conn) succeeded(p packet) {
	if p.code >= 0x80 {
		c.t.failf("%v, want success", p)
	}
}

// subscribe gives the codes of the SUBACK.
func (c *conn) subscribe(filters ...filter) []byte {
	id := c.nextID()
	c.send(subscribePacket(c.version, id, nil, filters...))
	codes := c.awaitID(kindSuback, id).codes
	if len(codes) != len(filters) {
		c.t.failf("SUBACK with %d codes for %d filters", len(codes), len(filters))
	}
	return codes
}

// listen subscribes to filters with quality of service qos, which must be granted.
func (c *conn) listen(qos byte, filters ...string) {
	for _, f := range filters {
		if code := c.subscribe(filter{f, qos})[0]; code != qos {
			c.t.failf("SUBACK %#x for %q with QoS %d", code, f, qos)
		}
	}
}

// unsubscribe waits for the UNSUBACK.
func (c *conn) unsubscribe(filters ...string) packet {
	id := c.nextID()
	c.send(unsubscribePacket(c.version, id, nil, filters...))
	return c.awaitID(kindUnsuback, id)
}

// ping sees that the server has dealt with all that was sent before.
func (c *conn) ping() {
	c.send(pingreq())
	c.await("PINGRESP", func(p packet) bool { return p.kind == kindPingresp })
}

// expectClosed says that the server closes the connection, and says nothing before
// that; in MQTT 5 it may say DISCONNECT, which is given back.
func (c *conn) expectClosed() *packet {
	said := c.untilClosed()
	if c.version == v5 && len(said) == 1 && said[0].kind == kindDisconnect {
		return &said[0]
	}
	if len(said) > 0 {
		c.t.failf("%v, want the connection closed and nothing before", said[0])
	}
	return nil
}

// untilClosed is all that comes until the server closes the connection.
func (c *conn) untilClosed() []packet {
	var said []packet
	for {
		want := "the connection closed"
		if len(said) > 0 {
			want += fmt.Sprintf(" (got %v)", said)
		}
		p, err := c.read(want)
		if err != nil {
			return said
		}
		said = append(said, p)
	}
}

// expectNothing says that nothing comes for a moment, not even the end.
func (c *conn) expectNothing() {
	if len(c.aside) > 0 {
		c.t.failf("%v, want nothing", c.aside[0])
	}
	c.nc.SetReadDeadline(time.Now().Add(moment))
	_, err := c.br.Peek(1)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
	case err != nil:
		c.t.failf("connection closed (%v), want nothing", err)
	default:
		p, err := c.read("a packet")
		if err != nil {
			c.t.failf("connection closed within a packet: %v", err)
		}
		c.t.failf("%v, want nothing", p)
	}
}
