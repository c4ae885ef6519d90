package conform

import "fmt"

// Identifiers of properties, MQTT 5 table 2-4.
const (
	propPayloadFormat   byte = 1
	propMessageExpiry   byte = 2
	propContentType     byte = 3
	propResponseTopic   byte = 8
	propCorrelation     byte = 9
	propSubscriptionID  byte = 11
	propSessionExpiry   byte = 17
	propAssignedID      byte = 18
	propServerKeepAlive byte = 19
	propAuthMethod      byte = 21
	propAuthData        byte = 22
	propRequestProblem  byte = 23
	propWillDelay       byte = 24
	propRequestResponse byte = 25
	propResponseInfo    byte = 26
	propServerReference byte = 28
	propReasonString    byte = 31
	propReceiveMaximum  byte = 33
	propAliasMaximum    byte = 34
	propAlias           byte = 35
	propMaximumQoS      byte = 36
	propRetainAvailable byte = 37
	propUser            byte = 38
	propMaximumPacket   byte = 39
	propWildcards       byte = 40
	propSubscriptionIDs byte = 41
	propSharedAvailable byte = 42
)

// The forms that a property's value has on the wire.
type form byte

const (
	formNone form = iota
	formByte
	formU16
	formU32
	formVarint
	formText
	formBinary
	formPair
)

// formOf is the column "Type" of table 2-4; formNone for what is not in it.
func formOf(id byte) form {
	switch id {
	case propPayloadFormat, propRequestProblem, propRequestResponse, propMaximumQoS, propRetainAvailable,
		propWildcards, propSubscriptionIDs, propSharedAvailable:
		return formByte
	case propServerKeepAlive, propReceiveMaximum, propAliasMaximum, propAlias:
		return formU16
	case propMessageExpiry, propSessionExpiry, propWillDelay, propMaximumPacket:
		return formU32
	case propSubscriptionID:
		return formVarint
	case propContentType, propResponseTopic, propAssignedID, propAuthMethod, propResponseInfo,
		propServerReference, propReasonString:
		return formText
	case propCorrelation, propAuthData:
		return formBinary
	case propUser:
		return formPair
	}
	return formNone
}

// block is a property block: the length, then the properties. The packets of
// encode.go put it round what they are given.
func block(props []byte) []byte { return append(varint(len(props)), props...) }

// number is a property with a number, in the form that belongs to its identifier.
func number(id byte, n uint32) []byte {
	switch formOf(id) {
	case formByte:
		return []byte{id, byte(n)}
	case formU16:
		return append([]byte{id}, u16(uint16(n))...)
	case formU32:
		return append([]byte{id}, u32(n)...)
	}
	return append([]byte{id}, varint(int(n))...)
}

// words is a property with text or binary data.
func words(id byte, s string) []byte { return append([]byte{id}, text(s)...) }

// pair is a user property.
func pair(key, value string) []byte {
	return append(append([]byte{propUser}, text(key)...), text(value)...)
}

// property is one that a server sent. Of num, text and value, which is for the
// second half of a pair, those are set that its form has.
type property struct {
	id          byte
	num         uint32
	text, value string
}

type properties []property

// number gives the number of the property id, and whether it is there.
func (ps properties) number(id byte) (uint32, bool) {
	for _, p := range ps {
		if p.id == id {
			return p.num, true
		}
	}
	return 0, false
}

// text gives the text of the property id, and whether it is there.
func (ps properties) text(id byte) (string, bool) {
	for _, p := range ps {
		if p.id == id {
			return p.text, true
		}
	}
	return "", false
}

// all gives the properties id, of which there may be more than one, in order.
func (ps properties) all(id byte) []property {
	var found []property
	for _, p := range ps {
		if p.id == id {
			found = append(found, p)
		}
	}
	return found
}

// properties reads a block. A property that is unknown, or there twice where once
// is allowed, is an error. Subscription identifiers and user properties may repeat.
func (r *reader) properties() properties {
	n := r.varint()
	in := &reader{b: r.take(n), err: r.err}
	var ps properties
	seen := map[byte]bool{}
	for in.err == nil && len(in.b) > 0 {
		p := property{id: in.byte()}
		if seen[p.id] && p.id != propUser && p.id != propSubscriptionID {
			in.fail(fmt.Sprintf("property %d twice", p.id))
		}
		seen[p.id] = true
		switch formOf(p.id) {
		case formByte:
			p.num = uint32(in.byte())
		case formU16:
			p.num = uint32(in.u16())
		case formU32:
			p.num = in.u32()
		case formVarint:
			p.num = uint32(in.varint())
		case formText:
			p.text = in.utf8()
		case formBinary:
			p.text = in.text()
		case formPair:
			p.text, p.value = in.utf8(), in.utf8()
		default:
			in.fail(fmt.Sprintf("property %d is unknown", p.id))
		}
		ps = append(ps, p)
	}
	if in.err != nil && r.err == nil {
		r.err = in.err
	}
	return ps
}
