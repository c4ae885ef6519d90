package conform

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// packet is what a server sent.
type packet struct {
	kind, flags byte
	body        []byte // all that follows the remaining length

	id             uint16
	present        bool   // CONNACK: session present
	code           byte   // CONNACK; MQTT 5: also acknowledgements, DISCONNECT, AUTH
	codes          []byte // SUBACK; MQTT 5: also UNSUBACK
	topic, payload string
	qos            byte
	dup, retain    bool
	props          properties
}

// errMalformed marks what a server must not send.
var errMalformed = errors.New("malformed packet")

// name is the name of a packet type.
func name(kind byte) string {
	names := strings.Fields("type-0 CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK PINGREQ PINGRESP DISCONNECT AUTH")
	return names[kind&15]
}

// String is for a verdict: short, with what tells packets apart.
func (p packet) String() string {
	switch p.kind {
	case kindPublish:
		return fmt.Sprintf("PUBLISH %.40q on %.60q (QoS %d, DUP %t, RETAIN %t, id %d)", p.payload, p.topic, p.qos, p.dup, p.retain, p.id)
	case kindConnack:
		return fmt.Sprintf("CONNACK %#x (session present %t)", p.code, p.present)
	case kindSuback, kindUnsuback:
		return fmt.Sprintf("%s % x (id %d)", name(p.kind), p.codes, p.id)
	case kindPuback, kindPubrec, kindPubrel, kindPubcomp:
		return fmt.Sprintf("%s %#x (id %d)", name(p.kind), p.code, p.id)
	case kindDisconnect:
		return fmt.Sprintf("DISCONNECT %#x", p.code)
	}
	return name(p.kind)
}

// readPacket reads one packet from a server, strictly: flags, lengths, text and
// what may come from a server at all.
func readPacket(r *bufio.Reader, version byte) (packet, error) {
	head, err := r.ReadByte()
	if err != nil {
		return packet{}, err
	}
	n, err := readLength(r)
	if err != nil {
		return packet{}, err
	}
	p := packet{kind: head >> 4, flags: head & 15, body: make([]byte, n)}
	if _, err := io.ReadFull(r, p.body); err != nil {
		return p, err
	}
	in := &reader{b: p.body}
	p.decode(in, version)
	if in.err == nil && len(in.b) > 0 {
		in.fail(fmt.Sprintf("%d surplus bytes", len(in.b)))
	}
	if in.err != nil {
		return p, fmt.Errorf("%w: %s %02x % x: %w", errMalformed, name(p.kind), head, p.body, in.err)
	}
	return p, nil
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
	return 0, fmt.Errorf("%w: remaining length of more than four bytes", errMalformed)
}

func (p *packet) decode(in *reader, version byte) {
	if want := p.flagsWanted(); p.kind != kindPublish && p.flags != want {
		in.fail(fmt.Sprintf("flags %#x, want %#x", p.flags, want))
	}
	switch p.kind {
	case kindConnack:
		p.decodeConnack(in, version)
	case kindPublish:
		p.decodePublish(in, version)
	case kindPuback, kindPubrec, kindPubrel, kindPubcomp:
		p.id = in.packetID()
		p.decodeReason(in, version)
	case kindSuback, kindUnsuback:
		p.id = in.packetID()
		if version == v5 {
			p.props = in.properties()
		}
		if p.kind == kindSuback || version == v5 {
			p.codes = in.take(len(in.b))
		}
	case kindPingresp:
	case kindDisconnect, kindAuth:
		if version != v5 {
			in.fail("a server of 3.1.1 has no such packet")
		}
		p.decodeReason(in, version)
	default:
		in.fail("not a packet for clients")
	}
}

func (p *packet) flagsWanted() byte {
	if p.kind == kindPubrel {
		return 2
	}
	return 0
}

func (p *packet) decodeConnack(in *reader, version byte) {
	flags := in.byte()
	if flags > 1 {
		in.fail(fmt.Sprintf("acknowledge flags %#x", flags))
	}
	p.present, p.code = flags == 1, in.byte()
	// A server that does not speak the client's version may answer in another's.
	if version == v5 && len(in.b) > 0 || len(p.body) > 2 && p.code == 0x84 {
		p.props = in.properties()
	}
}

func (p *packet) decodePublish(in *reader, version byte) {
	p.dup, p.qos, p.retain = p.flags&8 != 0, p.flags>>1&3, p.flags&1 != 0
	if p.qos == 3 {
		in.fail("quality of service 3")
	}
	p.topic = in.utf8()
	if p.qos > 0 {
		p.id = in.packetID()
	}
	if version == v5 {
		p.props = in.properties()
	}
	p.payload = string(in.take(len(in.b)))
}

// decodeReason reads reason code and properties, which MQTT 5 lets be left out.
func (p *packet) decodeReason(in *reader, version byte) {
	if version != v5 || len(in.b) == 0 {
		return
	}
	p.code = in.byte()
	if len(in.b) > 0 {
		p.props = in.properties()
	}
}

// reader takes fields off a body. After the first error all are empty.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = errors.New(what)
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("ends too early")
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if p := r.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) packetID() uint16 {
	id := r.u16()
	if r.err == nil && id == 0 {
		r.fail("packet identifier is 0")
	}
	return id
}

func (r *reader) text() string { return string(r.take(int(r.u16()))) }

func (r *reader) utf8() string {
	s := r.text()
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		r.fail(fmt.Sprintf("text %q is not allowed", s))
	}
	return s
}

// varint is a variable byte integer, which must be in its shortest form.
func (r *reader) varint() int {
	n := 0
	for shift := 0; shift < 28; shift += 7 {
		b := r.byte()
		n |= int(b&127) << shift
		if b < 128 {
			if b == 0 && shift > 0 {
				break
			}
			return n
		}
	}
	r.fail("variable byte integer is malformed")
	return 0
}
