package mqtt

import (
	"bytes"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// batch is how much pump puts into one write, bytes.
const batch = 32 << 10

// publication is a PUBLISH of a client that waits to be acknowledged.
type publication struct {
	packet  uint16
	qos     byte
	in      *inbound
	settled bool
	code    byte // MQTT 5 reason
}

// expect takes a place for a publish among those of the client that are under
// way, and waits for one while there is none: back-pressure on this client
// alone. ok is false when the connection ended meanwhile.
func (c *conn) expect(packet uint16, qos byte) (p *publication, ok bool) {
	select {
	case c.slots <- struct{}{}:
	default:
		select {
		case c.slots <- struct{}{}:
		case <-c.ctx.Done():
			return nil, false
		}
	}
	p = &publication{packet: packet, qos: qos, in: &c.session.in}
	if qos > 0 {
		c.mu.Lock()
		c.pubs = append(c.pubs, p)
		c.mu.Unlock()
	}
	c.b.stats.publishes.Add(1)
	return p, true
}

// settle has p acknowledged as soon as all before it are: PUBACKs and PUBRECs go out
// in the order of the publishes [MQTT-4.6.0-2, -3]. It never blocks.
func (c *conn) settle(p *publication, code byte) {
	if p.qos == 0 {
		return
	}
	if p.qos == 2 {
		p.in.landed(p.packet, code)
	}
	c.mu.Lock()
	p.settled, p.code = true, code
	due := len(c.pubs) > 0 && c.pubs[0].settled
	c.mu.Unlock()
	if due {
		c.poke()
	}
}

// release gives p's place back.
func (c *conn) release() {
	<-c.slots
	if len(c.slots) == 0 {
		select {
		case c.idle <- struct{}{}:
		default:
		}
	}
}

// quiesceTime is how long PINGREQ and SUBSCRIBE wait for the publishes before them:
// while the store is full they would wait in vain, and the client would think us dead.
const quiesceTime = time.Second

// quiesce waits until all that the client has published is through: kept, and on its
// way to others. So a client that asks, or subscribes, after it has published finds
// what it published, at quality 0 too.
func (c *conn) quiesce() {
	if len(c.slots) == 0 {
		return
	}
	enough := time.NewTimer(quiesceTime)
	defer enough.Stop()
	for len(c.slots) > 0 {
		select {
		case <-c.idle:
		case <-enough.C:
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// refuse is the answer to a publish that may not be: a reason on MQTT 5, where
// the client goes on, the end of the connection on 3.1.1, which has no other way
// to say that a message is not kept.
func (c *conn) refuse(p *publication, why cause) {
	if c.version != v5 {
		c.hangUp(why) // before release, so that nothing more is read
		c.lost(p)
		return
	}
	c.complain(why)
	c.settle(p, why.code)
	c.release()
}

// lost gives p's place back; it is not answered, and the client will send it again.
func (c *conn) lost(p *publication) {
	if p.qos == 2 {
		p.in.lost(p.packet)
	}
	c.release()
}

// reply queues a packet for this client alone.
func (c *conn) reply(packet []byte) {
	c.mu.Lock()
	c.ready = append(c.ready, packet...)
	c.mu.Unlock()
	c.poke()
}

// pump writes acknowledgements, replies and deliveries, many in one write, until
// the connection ends.
func (c *conn) pump() {
	defer close(c.pumped)
	defer func() { c.b.contain(recover(), c.who, c.fell) }()
	var buf bytes.Buffer
	for {
		changed := c.session.changed() // before the queue is read, or a change is missed
		for more := true; more; {
			buf.Reset()
			why := c.gather(&buf)
			if why == nil {
				more = c.session.next(c, &buf)
			} else if c.version == v5 {
				c.goodbye(&buf, *why)
			}
			select {
			case c.taken <- struct{}{}:
			default:
			}
			c.say()
			if buf.Len() > 0 && c.write(buf.Bytes()) != nil {
				return
			}
			if why != nil {
				c.Close()
				return
			}
		}
		if buf.Cap() > 2*batch {
			buf = bytes.Buffer{}
		}
		select {
		case <-c.wake:
		case <-changed:
		case <-c.ctx.Done():
			return
		}
	}
}

// gather takes what is due: the settled publications up to the first that is
// not, and replies.
func (c *conn) gather(buf *bytes.Buffer) *cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for n < len(c.pubs) && c.pubs[n].settled {
		p := c.pubs[n]
		kind := byte(packets.Puback)
		if p.qos == 2 {
			kind = packets.Pubrec
		}
		buf.Write(ack(c.version, kind, p.packet, p.code))
		if p.code < firstError {
			c.b.stats.acked.Add(1)
		}
		c.pubs[n] = nil
		n++
	}
	c.pubs = c.pubs[n:]
	buf.Write(c.ready)
	c.ready = c.ready[:0]
	return c.cause
}

func (c *conn) goodbye(buf *bytes.Buffer, why cause) {
	pk := packets.Packet{ProtocolVersion: v5, FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: why.code}
	pk.Mods.MaxSize = uint32(c.maxOut)
	if why.detail != nil && why.code != codeShutdown {
		pk.Properties.ReasonString = short(why.detail.Error())
	}
	var out bytes.Buffer
	if err := pk.DisconnectEncode(&out); err == nil && out.Len() <= c.maxOut {
		buf.Write(out.Bytes())
	}
}
