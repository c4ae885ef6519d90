package mqtt

import (
	"bytes"
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Quotas of what waits for clients. All of it is in memory.
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
	topic   string
	body    []byte
	qos     byte
	retain  bool
	from    string              // key of the session it comes from
	props   *packets.Properties // of MQTT 5, or nil
	expires time.Time           // zero: never
	acked   func()              // called when the one client has acknowledged it; must not block
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
	m      *message
	qos    byte
	retain bool
	ids    []int  // subscription identifiers
	packet uint16 // 0: none yet
	greets bool   // a retained message for a new subscription
	seq    uint64 // order of the first sending
	sent   bool   // once at least, so DUP from now on
	out    bool   // on this connection
}

// outbox is what waits for one client and what it has not acknowledged: own
// packet ids, which have nothing to do with the ids that the client publishes
// under. The session's mu guards it.
type outbox struct {
	queued *atomic.Int64 // bytes of all outboxes
	queue  []*delivery
	bytes  int // of all but greetings
	greets int // greetings among them, and their bytes
	gbytes int
	ids    map[uint16]*delivery // all that have a packet id
	flight int                  // of them: sent on this connection, not acknowledged
	window int
	last   uint16
	seq    uint64
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

// evict removes the oldest that was never sent, and gives it, or nil.
func (o *outbox) evict() *delivery {
	for i, d := range o.queue {
		if d.packet == 0 && !d.greets {
			o.queue = slices.Delete(o.queue, i, i+1)
			o.weigh(d, -1)
			return d
		}
	}
	return nil
}

// clear empties the box and says how many of QoS 1 were in it.
func (o *outbox) clear() int {
	n := o.flight
	for _, d := range o.queue {
		n += int(d.qos)
	}
	o.queued.Add(int64(-o.bytes - o.gbytes))
	o.bytes, o.greets, o.gbytes = 0, 0, 0
	o.queue, o.ids, o.flight = nil, nil, 0
	return n
}

// rewind is for a new connection: what the old one did not acknowledge comes
// first again, in the order in which it was sent, under the same ids.
func (o *outbox) rewind(window int) {
	o.window, o.flight = window, 0
	var again []*delivery
	for _, d := range o.ids {
		if d.out {
			d.out = false
			again = append(again, d)
		}
	}
	slices.SortFunc(again, func(a, b *delivery) int { return cmp.Compare(a.seq, b.seq) })
	o.queue = append(again, o.queue...)
}

// acked takes the delivery out that the client acknowledges, or gives nil.
func (o *outbox) acked(id uint16) *delivery {
	d := o.ids[id]
	if d == nil || !d.out {
		return nil
	}
	delete(o.ids, id)
	o.flight--
	o.weigh(d, -1)
	return d
}

func (o *outbox) next(c *conn, buf *bytes.Buffer) (more bool) {
	start := buf.Len()
	for len(o.queue) > 0 {
		d := o.queue[0]
		if d.qos > 0 && o.flight >= o.window {
			return false
		}
		if buf.Len()-start >= batch {
			return true
		}
		o.queue[0] = nil
		o.queue = o.queue[1:]
		o.send(c, d, buf)
	}
	o.queue = nil
	return false
}

func (o *outbox) send(c *conn, d *delivery, buf *bytes.Buffer) {
	if d.packet == 0 && d.m.over(time.Now()) {
		o.weigh(d, -1)
		c.b.stats.expired.Add(1)
		return
	}
	if d.qos > 0 && d.packet == 0 {
		o.number(d)
	}
	at := buf.Len()
	if err := d.encode(c.version, buf); err != nil || buf.Len()-at > c.maxOut {
		// Too large for this client: as if it had been sent [MQTT-3.1.2-25].
		buf.Truncate(at)
		delete(o.ids, d.packet)
		o.weigh(d, -1)
		c.b.stats.dropped.Add(1)
		return
	}
	if d.qos == 0 {
		o.weigh(d, -1)
		c.b.stats.delivered.Add(1)
		return
	}
	d.sent, d.out = true, true
	o.flight++
}

// number gives d a packet id that is free; the window is far smaller than there
// are ids, so there always is one.
func (o *outbox) number(d *delivery) {
	if o.ids == nil {
		o.ids = map[uint16]*delivery{}
	}
	for {
		o.last++
		if o.last != 0 && o.ids[o.last] == nil {
			break
		}
	}
	o.seq++
	d.packet, d.seq = o.last, o.seq
	o.ids[d.packet] = d
}

func (d *delivery) encode(version byte, buf *bytes.Buffer) error {
	pk := packets.Packet{
		ProtocolVersion: version,
		FixedHeader:     packets.FixedHeader{Type: packets.Publish, Qos: d.qos, Dup: d.sent, Retain: d.retain},
		TopicName:       d.m.topic,
		Payload:         d.m.body,
		PacketID:        d.packet,
	}
	if version == v5 {
		pk.Mods.AllowResponseInfo = true // mochi's word for response topic and correlation data
		if d.m.props != nil {
			pk.Properties = *d.m.props
		}
		if !d.m.expires.IsZero() {
			left := time.Until(d.m.expires) + time.Second - 1 // a second counts until it is over
			pk.Properties.MessageExpiryInterval = uint32(max(1, left/time.Second))
		}
		pk.Properties.SubscriptionIdentifier = d.ids
	}
	return pk.PublishEncode(buf)
}
