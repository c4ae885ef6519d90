package mqtt

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast.dev/holdfast/hub"
	"holdfast.dev/holdfast/hub/identity"
	"holdfast.dev/holdfast/hub/wire"
	"holdfast.dev/holdfast/storage"
)

const (
	connectTimeout = 10 * time.Second // for TLS handshake and CONNECT
	writeTimeout   = 10 * time.Second // a client that takes nothing for so long is hung up
	maxConnect     = 128 << 10        // bytes of a CONNECT: a will of 64 KiB fits
	// maxPacket leaves room for a topic of the greatest length beside a body of
	// the greatest size; what the whole may weigh is judged after decoding.
	maxPacket = wire.MaxMessage + 64<<10 + 1<<10
)

// conn is the gatehouse in front of mochi: a net.Conn that hands it whole and
// well-formed packets only, and of those only what mochi is there for: CONNECT,
// PUBLISH and PINGREQ. All else is dealt with here, on the same goroutine and so
// in the client's order: acknowledgements of our deliveries, SUBSCRIBE,
// UNSUBSCRIBE and DISCONNECT. CONNECT is judged here too and mochi gets one of
// ours, under a name that is never used twice, so that it has no session to
// inherit and nobody's connection to take over.
//
// The read side belongs to the goroutine of serve, the write side to whoever has
// wmu; most is written by pump.
type conn struct {
	net.Conn
	b  *Broker
	id string // mochi's name for the connection
	br *bufio.Reader

	rest []byte // what mochi has yet to read
	buf  []byte // under rest, used again

	// Known after CONNECT, then unchanged.
	version   byte
	keepAlive time.Duration // silence after which the connection ends; 0: never
	connack   []byte        // ours, in place of mochi's
	who       string        // client id, for the log
	hub       hub.Hub
	session   *session
	kept      chan error       // of a new session that outlives the connection: when it is on disk
	account   identity.Account // ordinary clients
	device    hub.Identity     // IoT Hub clients
	will      *will
	maxOut    int // most bytes of a packet that the client takes
	window    int // deliveries it is trusted to have unacknowledged

	place   *place        // among the strangers; nil: it came by another way than a listener
	penalty time.Duration // before a wrong credential is told

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	once   sync.Once
	pumped chan struct{} // closed when pump has ended
	wake   chan struct{} // something for pump to do
	taken  chan struct{} // pump has taken answers to be written
	slots  chan struct{} // one for each publish that is not done with
	idle   chan struct{} // there is none
	order  storage.Order // of what it publishes

	wmu sync.Mutex // one write at a time

	mu      sync.Mutex
	pubs    []*publication // in the order they came, QoS 1 only
	ready   []byte         // replies for this client alone
	cause   *cause         // why it is to be hung up
	held    hold           // what the hub has no room for
	unsaid  []cause        // for the log
	pumping bool
	polite  bool // the client said DISCONNECT
}

func newConn(b *Broker, nc net.Conn, id string) *conn {
	c := &conn{
		Conn: nc, b: b, id: id,
		br:     bufio.NewReaderSize(nc, 4<<10),
		pumped: make(chan struct{}),
		wake:   make(chan struct{}, 1),
		taken:  make(chan struct{}, 1),
		slots:  make(chan struct{}, b.window),
		idle:   make(chan struct{}, 1),
		maxOut: 256 << 20, // what the protocol allows
		window: usualWindow,
	}
	c.ctx, c.cancel = context.WithCancel(context.Background()) // Close cancels it, whatever ends first
	return c
}

// Read hands mochi the next bytes that it may see.
func (c *conn) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if err := c.step(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// step reads one packet and does with it what must be done.
func (c *conn) step() error {
	if c.doomed() {
		return c.farewell()
	}
	if c.version == 0 {
		return c.connect()
	}
	for c.owesMuch() {
		select {
		case <-c.taken:
		case <-c.ctx.Done():
			return io.EOF
		}
	}
	if c.keepAlive > 0 {
		c.Conn.SetReadDeadline(time.Now().Add(c.keepAlive))
	}
	head, body, err := c.packet(maxPacket)
	if err == nil {
		err = check(c.version, head, body)
	}
	if err == nil {
		err = c.take(head, body)
	}
	if m, ok := errors.AsType[*malformed](err); ok {
		c.hangUp(cause{reasonOf(m), m.code, m})
		return c.farewell()
	}
	return err
}

func reasonOf(m *malformed) string {
	switch m.code {
	case codeTooLarge:
		return "too large"
	case codeQoS:
		return "qos 2"
	case codeTopicInvalid:
		return "bad topic"
	case codeNotAuthorized:
		return "not authorized"
	}
	return "malformed"
}

// packet reads one packet. body and c.buf are the same memory.
func (c *conn) packet(limit int) (head byte, body []byte, err error) {
	if head, err = c.br.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := readLength(c.br)
	if err != nil {
		return 0, nil, err
	}
	if whole := len(appendHeader(nil, head, n)) + n; whole > limit { // MQTT 5, 2.1.4: of the whole packet
		return 0, nil, &malformed{codeTooLarge, "packet is too large"}
	}
	// The header is written again before the body, shortest form, for mochi.
	c.buf = appendHeader(c.buf[:0], head, n)
	at := len(c.buf)
	c.buf = slices.Grow(c.buf, n)[:at+n]
	if _, err := io.ReadFull(c.br, c.buf[at:]); err != nil {
		return 0, nil, err
	}
	c.b.stats.in.one(head, len(c.buf))
	return head, c.buf[at:], nil
}

func readLength(r io.ByteReader) (int, error) {
	n := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= int(b&127) << shift
		if b < 128 {
			return n, nil
		}
	}
	return 0, bad("remaining length is malformed")
}

func appendHeader(p []byte, head byte, n int) []byte {
	p = append(p, head)
	for n >= 128 {
		p = append(p, byte(n)|128)
		n >>= 7
	}
	return append(p, byte(n))
}

// take deals with a well-formed packet. What is left in rest goes to mochi.
func (c *conn) take(head byte, body []byte) error {
	if cap(c.buf) > 16<<10 {
		defer func() { c.buf = nil }() // a rare large one must not stay for an idle client's life
	}
	switch kind := head >> 4; kind {
	case packets.Connect:
		return protocol("CONNECT: a second one")
	case packets.Publish:
		return c.admitPublish(head, body)
	case packets.Puback:
		return c.session.acked(c, idOf(body))
	case packets.Pubrec:
		return c.session.received(c, idOf(body), reasonIn(body))
	case packets.Pubrel:
		c.session.released(c, idOf(body))
		return nil
	case packets.Pubcomp:
		c.session.completed(c, idOf(body))
		return nil
	case packets.Subscribe, packets.Unsubscribe:
		c.quiesce()
		return c.filters(kind, body)
	case packets.Disconnect:
		return c.leave(body)
	}
	c.quiesce() // PINGREQ
	c.rest = c.buf
	return nil
}

func idOf(body []byte) uint16 { return uint16(body[0])<<8 | uint16(body[1]) }

// reasonIn is the reason code of an acknowledgement; 3.1.1 has none.
func reasonIn(body []byte) byte {
	if len(body) > 2 {
		return body[2]
	}
	return 0
}

// admitPublish keeps from mochi what it would drop without an answer or take for
// something else: a quality of service it lowers by itself, and topics that it
// holds to be its own.
func (c *conn) admitPublish(head byte, body []byte) error {
	qos := head >> 1 & 3
	if qos == 2 && c.device != "" {
		return &malformed{codeQoS, "PUBLISH: IoT Hub has no quality of service 2"}
	}
	n := int(body[0])<<8 | int(body[1])
	topic := string(body[2 : 2+n])
	if c.device != "" && strings.HasPrefix(topic, "$") && !strings.HasPrefix(topic, "$iothub/") {
		return &malformed{codeTopicInvalid, "topic " + topic + " is not one of IoT Hub's"}
	}
	if c.device == "" && reserved(topic) {
		return c.refuseReserved(head, body, topic)
	}
	c.rest = c.buf
	return nil
}

// refuseReserved answers a publish on a topic that is not for ordinary clients.
// One that would also set an alias ends the connection: mochi does not see it, so
// the alias would go on meaning what it meant before.
func (c *conn) refuseReserved(head byte, body []byte, topic string) error {
	pk := packets.Packet{ProtocolVersion: c.version, FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: head >> 1 & 3}}
	if err := pk.PublishDecode(slices.Clone(body)); err != nil {
		return bad("PUBLISH: " + err.Error())
	}
	what := "topic " + topic + " is not for ordinary clients"
	if pk.Properties.TopicAliasFlag {
		return &malformed{codeNotAuthorized, what}
	}
	if p, ok := c.expect(pk.PacketID, pk.FixedHeader.Qos); ok && (p.qos < 2 || c.session.in.begin(c, p)) {
		c.refuse(p, cause{"not authorized", codeNotAuthorized, errors.New(what)})
	}
	return nil
}

// Write is mochi's: CONNACK is replaced by ours, DISCONNECT to 3.1.1 clients, who
// do not know it from a server, is dropped.
func (c *conn) Write(p []byte) (int, error) {
	out := p
	switch p[0] >> 4 {
	case packets.Connack:
		out = c.connack
	case packets.Disconnect:
		if c.version != v5 {
			return len(p), nil
		}
	}
	if err := c.write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *conn) write(p []byte) error {
	c.b.stats.out.all(p)
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.Conn.Write(p)
	if err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			c.b.stats.slow.Add(1)
			c.b.warn(c.who, "slow", errors.New("client takes nothing: write timed out"))
		}
		c.Close()
	}
	return err
}

// SetDeadline is mochi's, which knows only of the packets that it sees: the
// gatehouse has its own deadlines for each side.
func (c *conn) SetDeadline(time.Time) error { return nil }

// maxReady is how many bytes of replies may wait before the client is read no more.
const maxReady = 64 << 10

// owesMuch says whether so many answers wait to be written that the client must
// take some before it may ask for more: they are memory.
func (c *conn) owesMuch() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ready) > maxReady || len(c.pubs) > 2*cap(c.slots)
}

func (c *conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
