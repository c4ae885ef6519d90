package mqtt

import (
	"fmt"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

// form is how a property's value stands on the wire.
type form byte

const (
	flag   form = iota + 1 // one byte, 0 or 1
	two                    // two bytes
	four                   // four bytes
	number                 // variable byte integer
	text                   // UTF-8
	blob                   // length and bytes
	pair                   // two texts, any number of times
)

// property is one that a client may send (MQTT 5, table 2-4).
func property(id byte) (f form, nonzero bool, in string) {
	const (
		publish  = "\x03\x63" // PUBLISH and the will
		connect  = "\x01"
		acks     = "\x04\x05\x06\x07\x0e"
		everyone = "\x01\x03\x04\x05\x06\x07\x08\x0a\x0e\x63"
	)
	switch id {
	case packets.PropPayloadFormat:
		return flag, false, publish
	case packets.PropMessageExpiryInterval:
		return four, false, publish
	case packets.PropContentType, packets.PropResponseTopic:
		return text, false, publish
	case packets.PropCorrelationData:
		return blob, false, publish
	case packets.PropSubscriptionIdentifier:
		return number, true, "\x08"
	case packets.PropSessionExpiryInterval:
		return four, false, "\x01\x0e"
	case packets.PropAuthenticationMethod:
		return text, false, connect
	case packets.PropAuthenticationData:
		return blob, false, connect
	case packets.PropRequestProblemInfo, packets.PropRequestResponseInfo:
		return flag, false, connect
	case packets.PropWillDelayInterval:
		return four, false, "\x63"
	case packets.PropReasonString:
		return text, false, acks
	case packets.PropReceiveMaximum:
		return two, true, connect
	case packets.PropTopicAliasMaximum:
		return two, false, connect
	case packets.PropTopicAlias:
		return two, true, "\x03"
	case packets.PropUser:
		return pair, false, everyone
	case packets.PropMaximumPacketSize:
		return four, true, connect
	}
	return 0, false, ""
}

// properties checks the property part of a packet and takes it off. It says
// whether a topic alias is among them.
func (r *reader) properties(kind byte) (alias bool) {
	n := r.varint()
	p := &reader{b: r.take(n), err: r.err}
	var seen [64]bool
	for p.err == nil && len(p.b) > 0 {
		id := p.byte()
		f, nonzero, in := property(id)
		if f == 0 || !strings.Contains(in, string([]byte{kind})) {
			p.fail(protocol(fmt.Sprintf("property %d does not belong here", id)))
			break
		}
		if seen[id] && f != pair {
			p.fail(protocol(fmt.Sprintf("property %d is there twice", id)))
		}
		seen[id] = true
		p.value(id, f, nonzero)
	}
	if p.err == nil && seen[packets.PropAuthenticationData] && !seen[packets.PropAuthenticationMethod] {
		p.fail(protocol("authentication data without a method"))
	}
	if p.err != nil {
		r.fail(p.err)
	}
	return seen[packets.PropTopicAlias]
}

func (r *reader) value(id byte, f form, nonzero bool) {
	v := 1
	switch f {
	case flag:
		if v = int(r.byte()); v > 1 {
			r.fail(protocol(fmt.Sprintf("property %d is %d, want 0 or 1", id, v)))
		}
	case two:
		v = int(r.uint16())
		if id == packets.PropTopicAlias && (v == 0 || v > maxAlias) {
			r.fail(&malformed{codeAliasInvalid, fmt.Sprintf("topic alias %d: want 1 to %d", v, maxAlias)})
		}
	case four:
		v = int(r.uint16())<<16 | int(r.uint16())
	case number:
		v = r.varint()
	case text:
		if s := r.text(); id == packets.PropResponseTopic && strings.ContainsAny(s, "+#") {
			r.fail(protocol("response topic has wildcards"))
		}
	case blob:
		r.bytes()
	case pair:
		r.text()
		r.text()
	}
	if nonzero && v == 0 {
		r.fail(protocol(fmt.Sprintf("property %d is 0", id)))
	}
}
