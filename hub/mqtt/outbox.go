package mqtt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/storage"
)

// Quotas of what waits in memory for clients: for those whose session ends with the
// connection, and of quality 0.
const (
	maxWaiting      = 10_000   // messages of one session
	maxWaitingBytes = 8 << 20  // bytes of one session
	maxWaitingQoS0  = 1_000    // messages ahead of one of QoS 0, which may be lost
	maxQueued       = 64 << 20 // bytes of all sessions together

	// maxGreetings bounds the retained messages that wait for one session, beside
	// the above: all there are, twice.
	maxGreetings = 2 * maxRetained
)

// usualWindow is how many unacknowledged deliveries a 3.1.1 client is trusted to
// take, and maxWindow the same for an MQTT 5 client that asks for more.
const (
	usualWindow = 64
	maxWindow   = 1024
)

// message is one that clients are to get. It does not change.
type message struct {
	id       string // the hub's, where it was kept or is retained
	topic    string
	body     []byte
	qos      byte
	retain   bool
	from     string              // key of the session it comes from
	props    *packets.Properties // of MQTT 5, or nil
	lifetime uint32              // seconds, as it came; 0: for ever
	expires  time.Time           // zero: never
	acked    func()              // called when the one client has acknowledged it; must not block
}

// size is what m takes in memory, about.
func (m *message) size() int {
	n := len(m.topic) + len(m.body) + 64
	if p := m.props; p != nil {
		n += len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData)
		for _, u := range p.User {
			n += len(u.Key) + len(u.Val) + 32
		}
	}
	return n
}

// over says whether m has expired.
func (m *message) over(now time.Time) bool { return !m.expires.IsZero() && !now.Before(m.expires) }

// delivery is a message on its way to one client.
type delivery struct {
	m        *message
	qos      byte
	retain   bool
	ids      []int  // subscription identifiers
	packet   uint16 // 0: none yet
	dup      bool
	greets   bool         // a retained message for a new subscription
	received bool         // PUBREC has come
	group    *group       // whose it is, if it is a share
	item     storage.Item // of a share
}

// outbox is what waits in memory for one client and what of it was not acknowledged:
// own packet ids, which have nothing to do with the ids that the client publishes
// under, nor with those of the session's feed. The session's mu guards it. It ends
// with the connection, but for what is of quality 0.
type outbox struct {
	queued *atomic.Int64 // bytes of all outboxes
	queue  []*delivery
	bytes  int // of all but greetings
	greets int // greetings among them, and their bytes
	gbytes int
	ids    map[uint16]*delivery // all that have a packet id: sent, and not done with
	last   uint16
}

// Greetings do not count for crowded and full: they come all at once, however fast
// the client is, and their bodies are in memory anyway.

func (o *outbox) crowded() bool { return len(o.queue) >= maxWaitingQoS0+o.greets }

func (o *outbox) full() bool {
	return len(o.queue) >= maxWaiting+o.greets || o.bytes >= maxWaitingBytes
}

func (o *outbox) put(d *delivery) {
	o.queue = append(o.queue, d)
	o.weigh(d, 1)
}

// weigh adds d to what is in the box (n is 1) or takes it off (n is -1).
func (o *outbox) weigh(d *delivery, n int) {
	size := n * d.m.size()
	if d.greets {
		o.greets += n
		o.gbytes += size
	} else {
		o.bytes += size
	}
	o.queued.Add(int64(size))
}

// evict removes the oldest that was never sent, and gives it, or nil. What is a share
// of a group is not the session's to lose.
func (o *outbox) evict() *delivery {
	for i, d := range o.queue {
		if !d.greets && d.group == nil {
			o.queue = slices.Delete(o.queue, i, i+1)
			o.weigh(d, -1)
			return d
		}
	}
	return nil
}

// clear empties the box. It says how many of quality 1 and 2 were in it, and gives the
// shares among them back.
func (o *outbox) clear() (lost int, shares []*delivery) {
	all := o.queue
	for _, d := range o.ids {
		all = append(all, d)
	}
	for _, d := range all {
		switch {
		case d.group != nil:
			shares = append(shares, d)
		case d.qos > 0 && !d.received:
			lost++
		}
	}
	o.queued.Add(int64(-o.bytes - o.gbytes))
	o.bytes, o.greets, o.gbytes = 0, 0, 0
	o.queue, o.ids = nil, nil
	return lost, shares
}

// acked takes the delivery out that the client acknowledges with PUBACK, or gives nil.
func (o *outbox) acked(id uint16) (*delivery, error) {
	d := o.ids[id]
	if d == nil {
		return nil, nil
	}
	if d.qos != 1 {
		return nil, protocol("PUBACK: the message has quality of service 2")
	}
	delete(o.ids, id)
	o.weigh(d, -1)
	return d, nil
}

// received is PUBREC: the message is the client's, or refused by it for good.
func (o *outbox) received(id uint16, code byte) (known bool, err error) {
	d := o.ids[id]
	switch {
	case d == nil:
		return false, nil
	case d.qos != 2:
		return false, protocol("PUBREC: the message has quality of service 1")
	}
	if !d.received {
		d.received = true
		o.weigh(d, -1)
		d.m = nil
	}
	if code >= firstError {
		delete(o.ids, id)
	}
	return true, nil
}

// completed is PUBCOMP.
func (o *outbox) completed(id uint16) (known bool) {
	d := o.ids[id]
	if d == nil || !d.received {
		return false
	}
	delete(o.ids, id)
	return true
}

// boxNext writes what is in the box into buf, as much as window and batch allow, and
// says whether there is more that could go. s.mu is held.
func (s *session) boxNext(c *conn, buf *bytes.Buffer) (more bool) {
	o, start := &s.box, buf.Len()
	for len(o.queue) > 0 {
		d := o.queue[0]
		if d.qos > 0 && s.room(c) <= 0 {
			return false
		}
		if buf.Len()-start >= batch {
			return true
		}
		o.queue[0] = nil
		o.queue = o.queue[1:]
		s.boxOne(c, d, buf)
	}
	o.queue = nil
	return false
}

func (s *session) boxOne(c *conn, d *delivery, buf *bytes.Buffer) {
	o := &s.box
	if d.m.over(time.Now()) && d.group == nil {
		o.weigh(d, -1)
		s.b.stats.expired.Add(1)
		return
	}
	if d.qos > 0 {
		o.number(d)
	}
	at := buf.Len()
	err := d.encode(c.version, buf)
	tooLarge := err != nil || buf.Len()-at > c.maxOut
	if tooLarge { // as if it had been sent [MQTT-3.1.2-25]
		buf.Truncate(at)
		s.b.stats.dropped.Add(1)
	}
	if d.qos > 0 && !tooLarge {
		return
	}
	delete(o.ids, d.packet)
	o.weigh(d, -1)
	if !tooLarge {
		s.b.stats.delivered.Add(1)
	}
	if d.group != nil {
		d.group.ended(d.item.Position, tooLarge)
	}
}

// number gives d a packet id that is free; the window is far smaller than there
// are ids, so there always is one.
func (o *outbox) number(d *delivery) {
	if o.ids == nil {
		o.ids = map[uint16]*delivery{}
	}
	for {
		if o.last++; o.last <= maxFed {
			o.last = maxFed + 1
		}
		if o.ids[o.last] == nil {
			break
		}
	}
	d.packet = o.last
	o.ids[d.packet] = d
}

// encode writes PUBLISH (MQTT 5, section 3.3). It is our own, for it is the most
// frequent thing that the broker does; the properties are mochi's.
func (d *delivery) encode(version byte, buf *bytes.Buffer) error {
	if len(d.m.topic) > 0xffff {
		return fmt.Errorf("write message: topic has %d bytes", len(d.m.topic))
	}
	var props []byte
	if version == v5 {
		props = d.properties()
	}
	n := 2 + len(d.m.topic) + len(props) + len(d.m.body)
	head := byte(packets.Publish<<4) | d.qos<<1
	if d.qos > 0 {
		n += 2
	}
	if d.dup {
		head |= 8
	}
	if d.retain {
		head |= 1
	}
	b := appendHeader(buf.AvailableBuffer(), head, n)
	b = binary.BigEndian.AppendUint16(b, uint16(len(d.m.topic)))
	b = append(b, d.m.topic...)
	if d.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, d.packet)
	}
	b = append(b, props...)
	buf.Write(append(b, d.m.body...))
	return nil
}

var noProperties = []byte{0}

// properties of MQTT 5, length first.
func (d *delivery) properties() []byte {
	if d.m.props == nil && d.m.expires.IsZero() && len(d.ids) == 0 {
		return noProperties
	}
	var p packets.Properties
	if d.m.props != nil {
		p = *d.m.props
	}
	if !d.m.expires.IsZero() {
		p.MessageExpiryInterval = left(d.m.expires)
	}
	p.SubscriptionIdentifier = d.ids
	var b bytes.Buffer
	p.Encode(packets.Publish, packets.Mods{AllowResponseInfo: true}, &b, 0) // mochi's word for response topic and correlation data
	return b.Bytes()
}
