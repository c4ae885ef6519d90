package iothub

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// MQTT control packet types, MQTT 3.1.1 §2.2.1.
const (
	pktConnack     = 2
	pktPublish     = 3
	pktPuback      = 4
	pktSubscribe   = 8
	pktSuback      = 9
	pktUnsubscribe = 10
	pktUnsuback    = 11
	pktPingreq     = 12
	pktPingresp    = 13
)

const (
	maxPacket    = 512 << 10 // bytes; IoT Hub sends at most 128 KiB of a method and some topic
	writeTimeout = 10 * time.Second
)

var (
	errGivenUp = errors.New("connection was given up")
	errClosed  = errors.New("hub closed the connection")
)

// observer is told what passes on the wire.
type observer interface {
	// published: a QoS 1 publish with this id is about to be written.
	published(id uint16) error
	// acked: a PUBACK was read. False if nothing of that id is open; the library
	// is then not shown it.
	acked(id uint16) bool
	// stray: another answer came that nobody had asked for.
	stray()
	// lost: the connection is over, for this reason. May come more than once.
	lost(err error)
}

// tap is a connection that reads along. It frames what comes and lets only well
// formed packets of the expected kinds through to the MQTT library, which
// believes too much (an acknowledgement of any type ends the wait for any id; a
// SUBACK with too many codes panics; a CONNACK with an unknown code is taken for
// success). On the way out it notes the ids.
//
// It owns the write deadline: the library sets none for its pings, and after a
// write has failed half way it would go on with the next packet.
type tap struct {
	net.Conn
	in      *bufio.Reader
	obs     observer
	pending []byte // of a packet that the library is reading
	buf     []byte
	connack int          // code that was read; -1 before. The reader's
	shook   atomic.Int64 // 1 + connack, for others
	pinged  atomic.Int64 // when the last PINGREQ was written, in Unix nanoseconds
	closed  atomic.Bool

	mu     sync.Mutex // one writer at a time
	broken error
	asked  map[uint16]int // filters of each open SUBSCRIBE; -1: UNSUBSCRIBE
}

func newTap(conn net.Conn, obs observer) *tap {
	return &tap{Conn: conn, in: bufio.NewReaderSize(conn, 4<<10), obs: obs, connack: -1, asked: map[uint16]int{}}
}

// Read gives the library the next bytes of packets that it may see.
func (t *tap) Read(p []byte) (int, error) {
	for len(t.pending) == 0 {
		pkt, body, err := t.next()
		pass := false
		if err == nil {
			pass, err = t.inspect(pkt, body)
		}
		if err == io.EOF {
			err = errClosed
		}
		if err != nil {
			t.obs.lost(err)
			// Not the error itself: the library keeps silent, and never ends, on
			// one that says "use of closed network connection".
			return 0, errGivenUp
		}
		if pass {
			t.pending = pkt
		}
	}
	n := copy(p, t.pending)
	t.pending = t.pending[n:]
	return n, nil
}

// next reads one whole packet; body is the part after the fixed header.
func (t *tap) next() (pkt, body []byte, err error) {
	first, err := t.in.ReadByte()
	if err != nil {
		return nil, nil, err
	}
	t.buf = append(t.buf[:0], first)
	size := 0
	for shift := 0; ; shift += 7 {
		b, err := t.in.ReadByte()
		if err != nil {
			return nil, nil, err
		}
		t.buf = append(t.buf, b)
		size |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift == 21 {
			return nil, nil, errors.New("hub sent a malformed packet length")
		}
	}
	if size > maxPacket {
		return nil, nil, fmt.Errorf("hub sent a packet of %d bytes, at most %d are taken", size, maxPacket)
	}
	head := len(t.buf)
	t.buf = append(t.buf, make([]byte, size)...)
	if _, err := io.ReadFull(t.in, t.buf[head:]); err != nil {
		return nil, nil, err
	}
	return t.buf, t.buf[head:], nil
}

// inspect says whether the library may see a packet; an error ends the connection.
func (t *tap) inspect(pkt, body []byte) (pass bool, err error) {
	kind, flags := pkt[0]>>4, pkt[0]&0x0f
	if (kind == pktConnack) != (t.connack < 0) {
		return false, fmt.Errorf("hub sent a packet of type %d out of turn", kind)
	}
	if kind == pktPublish {
		return true, checkPublish(flags, body)
	}
	if flags != 0 {
		return false, fmt.Errorf("hub sent a packet of type %d with flags %#x", kind, flags)
	}
	switch {
	case kind == pktConnack && len(body) == 2:
		t.connack = int(body[1])
		t.shook.Store(int64(t.connack) + 1)
		if t.connack > 5 {
			return false, fmt.Errorf("hub refused with code %#x, which MQTT 3.1.1 does not know", t.connack)
		}
		return true, nil
	case kind == pktPuback && len(body) == 2:
		return t.obs.acked(binary.BigEndian.Uint16(body)), nil
	case kind == pktSuback && len(body) > 2:
		return t.answers(binary.BigEndian.Uint16(body), len(body)-2), nil
	case kind == pktUnsuback && len(body) == 2:
		return t.answers(binary.BigEndian.Uint16(body), -1), nil
	case kind == pktPingresp && len(body) == 0:
		return true, nil
	}
	return false, fmt.Errorf("hub sent a packet of type %d and %d bytes that does not belong here", kind, len(body))
}

func checkPublish(flags byte, body []byte) error {
	qos := flags >> 1 & 3
	if len(body) < 2 {
		return errors.New("hub sent a publish without a topic")
	}
	need := 2 + int(binary.BigEndian.Uint16(body))
	if qos > 0 {
		need += 2
	}
	if qos > 1 || len(body) < need {
		return fmt.Errorf("hub sent a malformed publish (QoS %d)", qos)
	}
	return nil
}

// answers says whether a SUBACK or UNSUBACK was asked for.
func (t *tap) answers(id uint16, n int) bool {
	t.mu.Lock()
	want, ok := t.asked[id]
	if ok && want == n {
		delete(t.asked, id)
	}
	t.mu.Unlock()
	if !ok || want != n {
		t.obs.stray()
		return false
	}
	return true
}

// Write writes one packet; the library hands over whole ones.
func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return 0, t.broken
	}
	err := t.note(p)
	if err == nil {
		err = t.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	if err == nil {
		_, err = t.Conn.Write(p)
	}
	if err != nil {
		t.broken = errGivenUp // a packet may have gone out in half: nothing may follow it
		t.obs.lost(fmt.Errorf("write: %w", err))
		return 0, errGivenUp
	}
	return len(p), nil
}

// note keeps the id of a packet that will be answered.
func (t *tap) note(p []byte) error {
	kind := p[0] >> 4
	if kind == pktPingreq {
		t.pinged.Store(time.Now().UnixNano())
	}
	if kind != pktPublish && kind != pktSubscribe && kind != pktUnsubscribe {
		return nil
	}
	body := p[1:]
	for body[0] >= 0x80 {
		body = body[1:]
	}
	body = body[1:]
	switch kind {
	case pktPublish:
		if p[0]>>1&3 == 0 {
			return nil
		}
		return t.obs.published(binary.BigEndian.Uint16(body[2+binary.BigEndian.Uint16(body):]))
	case pktUnsubscribe:
		t.asked[binary.BigEndian.Uint16(body)] = -1
	case pktSubscribe:
		n := 0
		for rest := body[2:]; len(rest) > 2; n++ {
			rest = rest[2+int(binary.BigEndian.Uint16(rest))+1:]
		}
		t.asked[binary.BigEndian.Uint16(body)] = n
	}
	return nil
}

// code is what CONNACK said, -1 before it came.
func (t *tap) code() int { return int(t.shook.Load()) - 1 }

// ping asks the far side to say something.
func (t *tap) ping() { _, _ = t.Write([]byte{pktPingreq << 4, 0}) } // an error has been told to the observer

// Close ends the connection, whoever wants it. The library closes too when no
// ping comes back.
func (t *tap) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.obs.lost(errors.New("no answer to a ping")) // unless somebody gave another reason before
	return t.Conn.Close()
}

// SetDeadline does nothing: what the library would set is the time until CONNACK, and
// open has a clock for that, which says why the connection ends.
func (t *tap) SetDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: see tap.
func (t *tap) SetWriteDeadline(time.Time) error { return nil }
