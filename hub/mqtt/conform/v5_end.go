package conform

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// rowsEnd5 are the statements about how a connection ends, DISCONNECT and errors,
// about authentication that is not offered, the shape of packets, and WebSocket.
func rowsEnd5() []Row {
	return []Row{
		{"1.5.5-1", "variable byte integers of the server have no more bytes than needed", fiveShortLengths},
		{"2.1.3-1", "reserved flags that are set cost the connection", turnsOut(reservedFlags)},
		{"2.2.1-3", "packet identifier 0 costs the connection", turnsOut(zeroIDs)},
		{"2.2.2-1", "packets without properties have a property length of 0", fivePropertyLength},
		{"3.14.0-1", "no DISCONNECT before a CONNACK that lets in", fiveNoEarlyDisconnect},
		{"3.14.1-1", "DISCONNECT with reserved bits is malformed, and no farewell", fiveMalformedDisconnect},
		{"3.14.2-1", "reason codes of DISCONNECT are those of the table", fiveDisconnectCodes},
		{"3.14.2-2", "no Session Expiry Interval in the server's DISCONNECT", fiveDisconnectExpiry},
		{"3.14.2-3", "no reason string that makes DISCONNECT too large for the client", fiveDisconnectSize},
		{"3.14.2-4", "no user property that makes DISCONNECT too large for the client", fiveDisconnectSize},
		{"3.14.4-1", "nothing comes after the server's DISCONNECT", fiveNothingAfter},
		{"3.14.4-2", "the connection is closed after the server's DISCONNECT", fiveNothingAfter},
		{"3.15.1-1", "AUTH with flags costs the connection", turnsOut(func(*Try) []badPacket {
			return otherFlags(frame(kindAuth<<4, []byte{0x18}, block(nil)))
		})},
		{"4.2.0-1", "packets may come in pieces, and many at once", fivePieces},
		{"4.12.0-1", "an authentication method that is not offered is turned away", fiveBadMethod},
		{"4.12.0-6", "no AUTH and no method for a client that named none", fiveNoAuth},
		{"4.12.0-7", "AUTH of a client that named no method costs the connection", turnsOut(func(*Try) []badPacket {
			return []badPacket{
				{"continue", frame(kindAuth<<4, []byte{0x18}, block(words(propAuthMethod, "x")))},
				{"re-authenticate", frame(kindAuth<<4, []byte{0x19}, block(words(propAuthMethod, "x")))},
				{"success", frame(kindAuth << 4)},
			}
		})},
		{"4.13.1-1", "malformed packets and protocol errors cost the connection", turnsOut(malformedPackets)},
		{"4.13.2-1", "a reason of 0x80 and more is the end of the connection", fiveErrorsEnd},
		{"6.0.0-1", "WebSocket: packets in binary frames; another frame ends the connection", rowBinaryFrames},
		{"6.0.0-2", "WebSocket: packets and frames need not be aligned", rowFramesUnaligned},
		{"6.0.0-4", "WebSocket: the subprotocol that the server selects is mqtt", rowSubprotocol},
	}
}

// fiveShortLengths makes the server send packets on both sides of each length
// where one more byte is needed.
func fiveShortLengths(t *Try) {
	c, from := five(t), five(t)
	c.listen(0, t.topic("a"))
	rest := len(pub{topic: t.topic("a")}.bytes(v5)) - 2
	for _, n := range []int{127, 128, 16383, 16384} {
		from.publish(pub{topic: t.topic("a"), payload: strings.Repeat("x", n-rest), qos: 1})
		c.shortLength()
	}
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1, props: pair("k", strings.Repeat("v", 200))})
	c.message() // reading is strict about the length of properties
}

// shortLength reads a packet whose remaining length has no more bytes than needed.
func (c *conn) shortLength() {
	c.nc.SetReadDeadline(time.Now().Add(c.t.Target.Patience))
	head, err := c.br.Peek(5)
	if err != nil {
		c.t.failf("%v, want PUBLISH", err)
	}
	n, err := readLength(bytes.NewReader(head[1:]))
	if err != nil || !bytes.HasPrefix(head[1:], varint(n)) {
		c.t.failf("remaining length is % x, want % x", head[1:], varint(n))
	}
	c.message()
}

func reservedFlags(t *Try) []badPacket {
	var all []badPacket
	for _, p := range [][]byte{
		pingreq(), goodbye(), ackPacket(kindPuback, 1), ackPacket(kindPubrec, 1), ackPacket(kindPubrel, 1), ackPacket(kindPubcomp, 1),
		subscribePacket(v5, 1, nil, filter{t.topic("a"), 0}), unsubscribePacket(v5, 1, nil, t.topic("a")),
	} {
		for _, w := range otherFlags(p)[:3] {
			all = append(all, badPacket{name(p[0]>>4) + " with " + w.what, w.packet})
		}
	}
	return all
}

func zeroIDs(t *Try) []badPacket {
	all := []badPacket{
		{"PUBLISH with QoS 1", pub{topic: t.topic("a"), qos: 1}.bytes(v5)},
		{"PUBLISH with QoS 2", pub{topic: t.topic("a"), qos: 2}.bytes(v5)},
		{"SUBSCRIBE", subscribePacket(v5, 0, nil, filter{t.topic("a"), 0})},
		{"UNSUBSCRIBE", unsubscribePacket(v5, 0, nil, t.topic("a"))},
	}
	return all
}

// fivePropertyLength has packets of the server that have no properties, which
// reading is strict about, and packets that leave the length out.
func fivePropertyLength(t *Try) {
	c, from := five(t), five(t)
	c.listen(1, t.topic("a"))
	c.unsubscribe(t.topic("b"))
	from.publish(pub{topic: t.topic("a"), payload: "\x05payload", qos: 1})
	c.take(t.topic("a"), "\x05payload", 1)
	for _, w := range []badPacket{
		{"PUBLISH", frame(kindPublish<<4, text(t.topic("a")))},
		{"SUBSCRIBE", frame(kindSubscribe<<4|2, u16(1))},
		{"UNSUBSCRIBE", frame(kindUnsubscribe<<4|2, u16(1))},
	} {
		within(w.what+" without a property length", func() {
			c := five(t)
			c.send(w.packet)
			c.turnedOut()
		})
	}
}

func fiveNoEarlyDisconnect(t *Try) {
	wrong := t.hello()
	wrong.flip = flagReserved
	method := t.hello()
	method.props = words(propAuthMethod, "no such method")
	for _, p := range [][]byte{pingreq(), wrong.bytes(), method.bytes(), goodbye(), frame(kindConnect<<4|1, []byte{0})} {
		c := t.dial()
		c.send(p)
		if p, err := c.read("CONNACK or the end"); err == nil && p.kind == kindDisconnect {
			t.failf("%v before CONNACK", p)
		}
	}
}

func fiveMalformedDisconnect(t *Try) {
	w, will := heir(t)
	c := mortal(t, t.id(), will)
	c.send([]byte{kindDisconnect<<4 | 1, 0})
	if p := c.turnedOut(); p != nil && p.code != 0x81 {
		t.failf("%v, want DISCONNECT 0x81", p)
	}
	w.take(will.topic, will.payload, 1)
}

// farewells are the DISCONNECT packets of a server that has reasons for them, to
// clients that said props.
func farewells(t *Try, props ...[]byte) []packet {
	var all []packet
	note := func(said []packet) {
		for _, p := range said {
			if p.kind == kindDisconnect {
				all = append(all, p)
			}
		}
	}
	for _, w := range malformedPackets(t)[1:] { // after the first PINGREQ would not be one
		c := five(t, props...)
		c.send(w.packet, pingreq())
		note(c.untilPong())
	}
	id := t.id()
	old := t.connect(func(h *hello) { h.id, h.props = id, slices.Concat(props...) })
	five5(t, id)
	note(old.untilClosed())
	if len(all) == 0 {
		t.notApplicable("closes without DISCONNECT, as it may")
	}
	return all
}

func fiveDisconnectCodes(t *Try) {
	for _, p := range farewells(t) {
		if !known(p) {
			t.failf("%v has a reason that is not in the table", p)
		}
	}
}

func fiveDisconnectExpiry(t *Try) {
	for _, p := range farewells(t, number(propSessionExpiry, 60)) {
		if n, ok := p.props.number(propSessionExpiry); ok {
			t.failf("%v has Session Expiry Interval %d", p, n)
		}
	}
}

func fiveDisconnectSize(t *Try) {
	limit := five(t).connack.size()
	for _, p := range farewells(t, number(propMaximumPacket, uint32(limit))) {
		if p.size() > limit {
			t.failf("%v has %d bytes, the client takes %d", p, p.size(), limit)
		}
	}
}

// fiveNothingAfter holds that DISCONNECT is the last packet, though messages wait.
func fiveNothingAfter(t *Try) {
	id, from := t.id(), five(t)
	old := t.connect(func(h *hello) { h.id = id })
	old.listen(1, t.topic("a"))
	five5(t, id)
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 1})
	said := old.untilClosed()
	for i, p := range said {
		if p.kind == kindDisconnect && i < len(said)-1 {
			t.failf("%v after %v", said[i+1:], p)
		}
	}
	if !slices.ContainsFunc(said, func(p packet) bool { return p.kind == kindDisconnect }) {
		t.notApplicable("closes without DISCONNECT")
	}
}

// fivePieces sends a CONNECT byte by byte, and then many packets in one.
func fivePieces(t *Try) {
	w, c := five(t), t.dial()
	w.listen(1, t.topic("a"))
	for _, b := range t.hello().bytes() {
		c.send([]byte{b})
	}
	if p := c.expect(kindConnack); p.code != 0 {
		t.failf("%v to a CONNECT that came in pieces", p)
	}
	var many []byte
	for range 20 {
		many = append(many, pub{topic: t.topic("a"), payload: "x"}.bytes(v5)...)
		many = append(many, pingreq()...)
	}
	c.send(many[:101])
	pause(moment / 5)
	c.send(many[101:])
	for range 20 {
		w.take(t.topic("a"), "x", 0)
	}
}

func fiveBadMethod(t *Try) {
	h := t.hello()
	h.props = slices.Concat(words(propAuthMethod, "no such method"), words(propAuthData, "data"))
	if p := turnedAway(t, h); p != nil && p.code != 0x8c && p.code != 0x87 {
		t.failf("%v, want 0x8c or 0x87", p)
	}
}

func fiveNoAuth(t *Try) {
	c := five(t)
	if s, ok := c.connack.props.text(propAuthMethod); ok {
		t.failf("CONNACK has the authentication method %q", s)
	}
	c.expectNothing()
}

// malformedPackets are one or two of each kind of error that the standard has a
// reason code for, beside those that have rows.
func malformedPackets(t *Try) []badPacket {
	return []badPacket{
		{"a remaining length of five bytes", []byte{kindPingreq << 4, 0x80, 0x80, 0x80, 0x80, 0x01}},
		{"a packet type that is reserved", frame(0)},
		{"CONNACK from a client", frame(kindConnack<<4, []byte{0, 0, 0})},
		{"SUBACK from a client", frame(kindSuback<<4, u16(1), block(nil), []byte{0})},
		{"PINGRESP from a client", frame(kindPingresp << 4)},
		{"PINGREQ with a body", frame(kindPingreq<<4, []byte{0})},
		{"PUBACK without an id", frame(kindPuback<<4, []byte{0})},
		{"SUBSCRIBE that ends early", frame(kindSubscribe<<4|2, u16(1), block(nil), u16(9), []byte("a"))},
		{"SUBSCRIBE with QoS 3", subscribePacket(v5, 1, nil, filter{t.topic("a"), 3})},
		{"SUBSCRIBE with Retain Handling 3", subscribePacket(v5, 1, nil, filter{t.topic("a"), 0x30})},
		{"subscription identifier 0", subscribePacket(v5, 1, number(propSubscriptionID, 0), filter{t.topic("a"), 0})},
		{"two subscription identifiers", subscribePacket(v5, 1, slices.Concat(number(propSubscriptionID, 1), number(propSubscriptionID, 2)), filter{t.topic("a"), 0})},
		{"a property of CONNECT in PUBLISH", publishPacket(t.topic("a"), number(propReceiveMaximum, 1))},
		{"a property that does not exist", publishPacket(t.topic("a"), []byte{99, 1})},
		{"a property twice", publishPacket(t.topic("a"), words(propContentType, "a"), words(propContentType, "a"))},
		{"properties longer than the packet", frame(kindPublish<<4, text(t.topic("a")), []byte{100, propPayloadFormat, 0})},
		{"a property that ends early", publishPacket(t.topic("a"), []byte{propMessageExpiry, 0, 0})},
		{"an alias that was never set", publishPacket("", number(propAlias, 1))},
		{"session expiry that was 0 and no longer is", frame(kindDisconnect<<4, []byte{0}, block(number(propSessionExpiry, 10)))},
		{"a property of PUBLISH in DISCONNECT", frame(kindDisconnect<<4, []byte{0}, block(number(propAlias, 1)))},
	}
}

func fiveErrorsEnd(t *Try) {
	refusedWith(t, nil)
	five(t).bye(0x80)
	for _, p := range farewells(t) { // each of which came before the end
		if p.code < 0x80 {
			t.failf("%v for an error", p)
		}
	}
}
