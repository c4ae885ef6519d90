package mqtt

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Protocol levels of CONNECT.
const (
	v311 byte = 4
	v5   byte = 5
)

// Reason codes of MQTT 5 that the broker sends. 3.1.1 has none but in CONNACK.
const (
	codeMalformed      byte = 0x81
	codeProtocol       byte = 0x82
	codeSpecific       byte = 0x83
	codeVersion        byte = 0x84
	codeClientID       byte = 0x85
	codeBadPassword    byte = 0x86
	codeNotAuthorized  byte = 0x87
	codeUnavailable    byte = 0x88
	codeBusy           byte = 0x89
	codeShutdown       byte = 0x8b
	codeBadMethod      byte = 0x8c
	codeTakenOver      byte = 0x8e
	codeFilterInvalid  byte = 0x8f
	codeTopicInvalid   byte = 0x90
	codeNoSuchID       byte = 0x92
	codeReceiveMaximum byte = 0x93
	codeAliasInvalid   byte = 0x94
	codeTooLarge       byte = 0x95
	codeQuota          byte = 0x97
	codeAdministrative byte = 0x98
	codeQoS            byte = 0x9b
)

// maxAlias is the most topic aliases that an MQTT 5 client may set.
const maxAlias = 32

// malformed is what is wrong with a packet. code is the MQTT 5 reason.
type malformed struct {
	code byte
	what string
}

func (m *malformed) Error() string { return m.what }

func bad(what string) error      { return &malformed{codeMalformed, what} }
func protocol(what string) error { return &malformed{codeProtocol, what} }

// check says whether a packet from a client is well formed for the protocol
// version, to the last byte. head is the first byte of the fixed header, body
// what follows the remaining length. It is stricter than the decoder behind it,
// which must never see what it does not expect.
func check(version, head byte, body []byte) error {
	kind, flags := head>>4, head&15
	if want, fixed := fixedFlags(kind); fixed && flags != want {
		return bad(fmt.Sprintf("%s: flags are %#x", packets.PacketNames[kind], flags))
	}
	r := &reader{b: body}
	switch kind {
	case packets.Connect:
		checkConnect(r)
	case packets.Publish:
		checkPublish(r, version, flags)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		checkAck(r, version, kind)
	case packets.Subscribe, packets.Unsubscribe:
		checkFilters(r, version, kind)
	case packets.Pingreq:
	case packets.Disconnect:
		checkDisconnect(r, version)
	default:
		return protocol(fmt.Sprintf("packet of type %d: not for a server", kind))
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail(bad(fmt.Sprintf("%d surplus bytes", len(r.b))))
	}
	if m, ok := r.err.(*malformed); ok {
		return &malformed{m.code, packets.PacketNames[kind] + ": " + m.what}
	}
	return r.err
}

func fixedFlags(kind byte) (flags byte, fixed bool) {
	switch kind {
	case packets.Publish:
		return 0, false
	case packets.Pubrel, packets.Subscribe, packets.Unsubscribe:
		return 2, true
	}
	return 0, true
}

func checkConnect(r *reader) {
	name, version := r.text(), r.byte()
	if r.err == nil && (name != "MQTT" || version != v311 && version != v5) {
		r.fail(&malformed{codeVersion, fmt.Sprintf("protocol %q level %d: want 3.1.1 or 5", name, version)})
	}
	flags := r.byte()
	r.uint16() // keep alive
	will, qos, retain := flags&4 != 0, flags>>3&3, flags&32 != 0
	user, password := flags&128 != 0, flags&64 != 0
	switch {
	case flags&1 != 0, qos == 3, !will && (qos != 0 || retain):
		r.fail(bad("connect flags contradict each other"))
	case version == v311 && password && !user:
		r.fail(bad("password without user name"))
	}
	if version == v5 {
		r.properties(packets.Connect)
	}
	r.name("client id")
	if will {
		if version == v5 {
			r.properties(packets.WillProperties)
		}
		r.topic()
		r.bytes()
	}
	if user {
		r.name("user name")
	}
	if password {
		r.bytes()
	}
}

func checkPublish(r *reader, version, flags byte) {
	qos := flags >> 1 & 3
	if qos == 3 || qos == 0 && flags&8 != 0 {
		r.fail(bad("flags contradict each other"))
	}
	topic := r.text()
	if qos > 0 {
		r.id()
	}
	alias := false
	if version == v5 {
		alias = r.properties(packets.Publish)
	}
	if r.err == nil && !(topic == "" && alias) {
		if err := checkTopic(topic); err != nil {
			r.fail(&malformed{codeTopicInvalid, err.Error()})
		}
	}
	r.b = nil // the rest is the payload
}

func checkAck(r *reader, version, kind byte) {
	r.id()
	if version != v5 || len(r.b) == 0 {
		return
	}
	r.byte() // the reason
	if len(r.b) > 0 {
		r.properties(kind)
	}
}

func checkFilters(r *reader, version, kind byte) {
	r.id()
	if version == v5 {
		r.properties(kind)
	}
	if r.err == nil && len(r.b) == 0 {
		r.fail(protocol("no filter"))
	}
	for r.err == nil && len(r.b) > 0 {
		f := r.text()
		if f == "" {
			r.fail(bad("filter is empty"))
		}
		if kind != packets.Subscribe {
			continue
		}
		o := r.byte()
		switch {
		case o&3 == 3:
			r.fail(bad("quality of service is 3"))
		case version == v5 && (o&0xc0 != 0 || o>>4&3 == 3), version != v5 && o > 2:
			r.fail(bad("reserved option bits are set"))
		case version == v5 && o&4 != 0 && strings.HasPrefix(f, "$share/"):
			r.fail(protocol("no local on a shared subscription")) // [MQTT-3.8.3-4]
		}
	}
}

func checkDisconnect(r *reader, version byte) {
	if version != v5 || len(r.b) == 0 {
		return
	}
	r.byte()
	if len(r.b) > 0 {
		r.properties(packets.Disconnect)
	}
}

// reader takes the fields off a packet. After the first error all are empty.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err, r.b = err, nil
	}
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.fail(bad("ends too early"))
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

func (r *reader) uint16() uint16 {
	if p := r.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (r *reader) id() {
	if r.uint16() == 0 {
		r.fail(bad("packet id is 0"))
	}
}

func (r *reader) bytes() []byte { return r.take(int(r.uint16())) }

// text is a UTF-8 string as sections 1.5.3 (3.1.1) and 1.5.4 (5) have it.
func (r *reader) text() string {
	p := r.bytes()
	if !utf8.Valid(p) {
		r.fail(bad("text is not UTF-8"))
	}
	for _, c := range p {
		if c == 0 {
			r.fail(bad("text has a zero byte"))
			break
		}
	}
	return string(p)
}

func (r *reader) name(what string) {
	if s := r.text(); !plain(s) {
		r.fail(bad(what + " has control characters"))
	}
}

func (r *reader) topic() {
	t := r.text()
	if r.err != nil {
		return
	}
	if err := checkTopic(t); err != nil {
		r.fail(&malformed{codeTopicInvalid, err.Error()})
	}
}

// varint is a variable byte integer, in its shortest form.
func (r *reader) varint() int {
	n := 0
	for shift := 0; shift < 28; shift += 7 {
		c := r.byte()
		n |= int(c&127) << shift
		if c < 128 {
			if c == 0 && shift > 0 {
				break
			}
			return n
		}
	}
	r.fail(bad("variable byte integer is malformed"))
	return 0
}
