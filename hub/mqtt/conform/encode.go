package conform

import "encoding/binary"

// Packet types, as in table 2.1 of both standards.
const (
	kindConnect byte = iota + 1
	kindConnack
	kindPublish
	kindPuback
	kindPubrec
	kindPubrel
	kindPubcomp
	kindSubscribe
	kindSuback
	kindUnsubscribe
	kindUnsuback
	kindPingreq
	kindPingresp
	kindDisconnect
	kindAuth
)

// Protocol levels of CONNECT.
const (
	v311 byte = 4
	v5   byte = 5
)

// frame is a control packet: its first byte, the remaining length in its shortest
// form, and the body.
func frame(head byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := append([]byte{head}, varint(n)...)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// varint is a variable byte integer in its shortest form.
func varint(n int) []byte {
	var b []byte
	for n >= 128 {
		b = append(b, byte(n)|128)
		n >>= 7
	}
	return append(b, byte(n))
}

func u16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// text is a string or binary data with its length before it.
func text(s string) []byte { return append(u16(uint16(len(s))), s...) }

// hello is a CONNECT packet. Try.hello gives one that is in order; rows change it.
type hello struct {
	name     string
	level    byte
	clean    bool // Clean Session, Clean Start
	keep     uint16
	props    []byte // of MQTT 5, without their length
	id       string
	will     *lastWill
	user     *string
	password *string

	flip  byte   // bits of the connect flags to turn over
	extra []byte // behind the payload
	cut   int    // bytes to leave out at the end
}

// lastWill is what a CONNECT packet says about a will.
type lastWill struct {
	topic, payload string
	qos            byte
	retain         bool
	props          []byte // of MQTT 5, without their length
}

func (h hello) bytes() []byte {
	var flags byte
	set := func(bit byte, on bool) {
		if on {
			flags |= bit
		}
	}
	set(2, h.clean)
	set(128, h.user != nil)
	set(64, h.password != nil)
	if h.will != nil {
		flags |= 4 | h.will.qos<<3
		set(32, h.will.retain)
	}
	body := append(text(h.name), h.level, flags^h.flip)
	body = append(body, u16(h.keep)...)
	if h.level == v5 {
		body = append(body, block(h.props)...)
	}
	body = append(body, text(h.id)...)
	if w := h.will; w != nil {
		if h.level == v5 {
			body = append(body, block(w.props)...)
		}
		body = append(append(body, text(w.topic)...), text(w.payload)...)
	}
	for _, s := range []*string{h.user, h.password} {
		if s != nil {
			body = append(body, text(*s)...)
		}
	}
	body = append(body, h.extra...)
	return frame(kindConnect<<4, body[:len(body)-h.cut])
}

// pub is a PUBLISH packet.
type pub struct {
	topic, payload string
	qos            byte
	id             uint16 // conn.publish finds one where it is 0
	dup, retain    bool
	props          []byte // of MQTT 5, without their length
}

func (p pub) bytes(version byte) []byte {
	head := kindPublish<<4 | p.qos<<1
	if p.dup {
		head |= 8
	}
	if p.retain {
		head |= 1
	}
	body := text(p.topic)
	if p.qos > 0 {
		body = append(body, u16(p.id)...)
	}
	if version == v5 {
		body = append(body, block(p.props)...)
	}
	return frame(head, body, []byte(p.payload))
}

// filter is one entry of SUBSCRIBE: the topic filter and the byte after it, which
// is the quality of service and, in MQTT 5, options.
type filter struct {
	name    string
	options byte
}

func subscribePacket(version byte, id uint16, props []byte, filters ...filter) []byte {
	body := u16(id)
	if version == v5 {
		body = append(body, block(props)...)
	}
	for _, f := range filters {
		body = append(append(body, text(f.name)...), f.options)
	}
	return frame(kindSubscribe<<4|2, body)
}

func unsubscribePacket(version byte, id uint16, props []byte, filters ...string) []byte {
	body := u16(id)
	if version == v5 {
		body = append(body, block(props)...)
	}
	for _, f := range filters {
		body = append(body, text(f)...)
	}
	return frame(kindUnsubscribe<<4|2, body)
}

// ackPacket is PUBACK, PUBREC, PUBREL or PUBCOMP in the short form, which both
// standards share.
func ackPacket(kind byte, id uint16) []byte {
	head := kind << 4
	if kind == kindPubrel {
		head |= 2
	}
	return frame(head, u16(id))
}

func pingreq() []byte { return frame(kindPingreq << 4) }

// goodbye is DISCONNECT in the short form, which both standards share.
func goodbye() []byte { return frame(kindDisconnect << 4) }
