package conform

// Strings, the fixed header and packet identifiers: chapters 1.5 and 2.

func textRows311() []Row {
	return []Row{
		{"1.5.3-1", "ill-formed UTF-8 in topic, filter or client id ends the connection", rowIllFormed},
		{"1.5.3-2", "U+0000 in topic, filter or client id ends the connection", rowNull},
		{"1.5.3-3", "a zero width no-break space in a topic is kept as it is", rowByteOrderMark},
		{"2.2.2-1", "reserved flags of all packets from the server are as listed", rowFlagsSent},
		{"2.2.2-2", "invalid flags end the connection", rowFlagsReceived},
		{"2.3.1-1", "packet id 0 is a protocol violation; the server's own are not 0", rowIDZero},
		{"2.3.1-4", "messages under way have different ids, kept when sent again", rowIDsOfServer},
		{"2.3.1-5", "a QoS 0 message from the server carries no packet id", rowNoID},
		{"2.3.1-6", "PUBACK, PUBREC, PUBREL and PUBCOMP carry the id of the PUBLISH", rowAckIDs},
		{"2.3.1-7", "SUBACK and UNSUBACK carry the id of the request", rowSubackIDs},
	}
}

// badTexts tries packets with a bad string in each place that a client has.
func badTexts(t *Try, bad string) {
	t.step("topic with %q", bad)
	c := t.client()
	c.send(pub{topic: t.topic(bad), payload: "x"}.bytes(c.version))
	c.expectClosed()
	t.step("filter with %q", bad)
	c = t.client()
	c.send(subscribePacket(c.version, 1, nil, filter{t.topic(bad), 0}))
	c.expectClosed()
	t.step("client id with %q", bad)
	h := t.hello()
	h.id += bad
	if ack := t.refused(h); ack != nil {
		t.failf("%v, want the connection closed without", ack)
	}
}

func rowIllFormed(t *Try) {
	for _, bad := range []string{
		"\xff",         // never in UTF-8
		"\xc3",         // half a character
		"\xc0\xaf",     // longer than need be
		"\xed\xa0\x80", // a surrogate, U+D800
		"\xf5\x80\x80\x80",
	} {
		badTexts(t, bad)
	}
}

func rowNull(t *Try) { badTexts(t, "a\x00b") }

func rowByteOrderMark(t *Try) {
	const mark = "\ufeff"
	with, without := t.client(), t.client()
	with.listen(0, t.topic(mark+"a"))
	without.listen(0, t.topic("a"))
	p := t.client()
	p.publish(pub{topic: t.topic(mark + "a"), payload: "with"})
	with.expectPublish(t.topic(mark+"a"), "with", 0)
	p.publish(pub{topic: t.topic("a"), payload: "without"})
	without.expectPublish(t.topic("a"), "without", 0)
	with.expectNothing()
}

// rowFlagsSent has every kind of packet that a server sends; the decoder looks at
// their flags.
func rowFlagsSent(t *Try) {
	c := t.client()
	c.listen(2, t.topic("a"))
	c.publish(pub{topic: t.topic("a"), payload: "0"})
	c.await("PUBLISH", isPublish("0"))
	c.publish(pub{topic: t.topic("a"), payload: "1", qos: 1})
	c.finish(c.await("PUBLISH", isPublish("1")))
	c.publish(pub{topic: t.topic("a"), payload: "2", qos: 2})
	c.finish(c.await("PUBLISH", isPublish("2")))
	c.unsubscribe(t.topic("a"))
	c.ping()
}

func isPublish(payload string) func(packet) bool {
	return func(p packet) bool { return p.kind == kindPublish && p.payload == payload }
}

func rowFlagsReceived(t *Try) {
	t.step("PINGREQ")
	bad := pingreq()
	bad[0] |= 1
	c := t.client()
	c.send(bad)
	c.expectClosed()
	sub := subscribePacket(v311, 1, nil, filter{t.topic("a"), 0})
	unsub := unsubscribePacket(v311, 1, nil, t.topic("a"))
	for _, p := range [][]byte{
		sub, unsub, goodbye(), ackPacket(kindPuback, 1), ackPacket(kindPubrec, 1),
		ackPacket(kindPubrel, 1), ackPacket(kindPubcomp, 1),
	} {
		p[0] ^= 1
		t.step("%s with flags %#x", name(p[0]>>4), p[0]&15)
		// The will tells a server that takes a bad DISCONNECT for a good one.
		watch := t.client()
		watch.listen(0, t.topic("will"))
		c := t.connect(func(h *hello) { h.will = &lastWill{topic: t.topic("will"), payload: "gone"} })
		c.send(p)
		if said := c.untilClosed(); len(said) > 0 {
			t.failf("%v, want the connection closed", said[0])
		}
		watch.expectPublish(t.topic("will"), "gone", 0)
	}
	t.step("CONNECT")
	h := t.hello().bytes()
	h[0] |= 1
	c = t.dial()
	c.send(h)
	c.expectClosed()
}

func rowIDZero(t *Try) {
	for _, p := range [][]byte{
		subscribePacket(v311, 0, nil, filter{t.topic("a"), 0}),
		unsubscribePacket(v311, 0, nil, t.topic("a")),
		pub{topic: t.topic("a"), payload: "x", qos: 1}.bytes(v311),
	} {
		t.step("%s with id 0", name(p[0]>>4))
		c := t.client()
		c.send(p)
		c.expectClosed()
	}
	t.step("PUBLISH from the server")
	c := t.client()
	c.listen(1, t.topic("b"))
	c.publish(pub{topic: t.topic("b"), payload: "x", qos: 1})
	c.take(t.topic("b"), "x", 1) // the decoder refuses id 0
}

func rowIDsOfServer(t *Try) {
	id := t.id()
	c := t.sleeper(id)
	c.listen(1, t.topic("a"))
	p := t.client()
	first := map[string]uint16{}
	seen := map[uint16]bool{}
	for _, body := range []string{"1", "2", "3"} {
		p.publish(pub{topic: t.topic("a"), payload: body, qos: 1})
		got := c.expectPublish(t.topic("a"), body, 1)
		if seen[got.id] {
			t.failf("%v: another unacknowledged message has that id", got)
		}
		first[body], seen[got.id] = got.id, true
	}
	c.close()
	c = t.sleeper(id)
	for range first { // in which order is 4.6.0-1's
		got := c.expect(kindPublish)
		c.finish(got)
		if got.id != first[got.payload] {
			t.failf("%v: it had id %d before", got, first[got.payload])
		}
	}
	c.close()
	t.forget(id)
}

func rowNoID(t *Try) {
	c := t.client()
	c.listen(1, t.topic("a"))
	c.publish(pub{topic: t.topic("a"), payload: "body"})
	c.expectPublish(t.topic("a"), "body", 0) // two more bytes would be in the payload
}

func rowAckIDs(t *Try) {
	c := t.client()
	c.send(pub{topic: t.topic("a"), payload: "x", qos: 1, id: 0x1234}.bytes(c.version))
	c.expectID(kindPuback, 0x1234)
	c.send(pub{topic: t.topic("a"), payload: "x", qos: 2, id: 0xfedc}.bytes(c.version))
	c.expectID(kindPubrec, 0xfedc)
	c.send(ackPacket(kindPubrel, 0xfedc))
	c.expectID(kindPubcomp, 0xfedc)
	c.listen(2, t.topic("b"))
	t.client().publish(pub{topic: t.topic("b"), payload: "y", qos: 2})
	p := c.expectPublish(t.topic("b"), "y", 2)
	c.send(ackPacket(kindPubrec, p.id))
	c.expectID(kindPubrel, p.id)
	c.send(ackPacket(kindPubcomp, p.id))
}

func rowSubackIDs(t *Try) {
	c := t.client()
	for _, id := range []uint16{1, 0x1234, 65535} {
		c.send(subscribePacket(c.version, id, nil, filter{t.topic("a"), 0}))
		c.expectID(kindSuback, id)
		c.send(unsubscribePacket(c.version, id, nil, t.topic("a")))
		c.expectID(kindUnsuback, id)
	}
}
