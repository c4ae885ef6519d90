package conform

import "slices"

// SUBSCRIBE and SUBACK: sections 3.8 and 3.9.

func subscribeRows311() []Row {
	return []Row{
		{"3.8.1-1", "SUBSCRIBE with other flags than 2 ends the connection", rowSubscribeFlags},
		{"3.8.3-1", "a filter that is not UTF-8 ends the connection", rowSubscribeIllFormed},
		{"3.8.3-2", "filters with wildcards work, or are rejected", rowWildcardsWork},
		{"3.8.3-3", "a SUBSCRIBE without a filter is a protocol violation", rowSubscribeEmpty},
		{"3.8.3-4", "reserved bits beside a QoS, or QoS 3, end the connection", rowSubscribeReserved},
		{"3.8.4-1", "SUBSCRIBE is answered with SUBACK", rowSuback},
		{"3.8.4-2", "SUBACK has the id of the SUBSCRIBE", rowSubackID},
		{"3.8.4-3", "the same filter again replaces: new QoS, retained sent again, one copy", rowResubscribe},
		{"3.8.4-4", "several filters are dealt with one by one, with one SUBACK", rowSubscribeMany},
		{"3.8.4-5", "SUBACK has a code for each filter, and QoS is as granted", rowSubackCodes},
		{"3.8.4-6", "QoS is the lower of the message's and the one granted", rowMinimumQoS},
		{"3.9.3-1", "codes of SUBACK are in the order of the filters", rowSubackOrder},
		{"3.9.3-2", "codes of SUBACK are 0, 1, 2 and 0x80 only", rowSubackKnown},
	}
}

func rowSubscribeFlags(t *Try) {
	for _, flags := range []byte{0, 1, 3, 10} {
		c := t.client()
		p := subscribePacket(c.version, 1, nil, filter{t.topic("a"), 0})
		p[0] = kindSubscribe<<4 | flags
		c.send(p)
		c.expectClosed()
	}
}

func rowSubscribeIllFormed(t *Try) {
	for _, f := range []string{"\xff", "\xc3", "\xed\xa0\x80", "a\x00"} {
		c := t.client()
		c.send(subscribePacket(c.version, 1, nil, filter{t.topic("a"), 0}, filter{t.topic(f), 0}))
		c.expectClosed()
	}
}

func rowWildcardsWork(t *Try) {
	for f, topic := range map[string]string{"+": "a", "a/#": "a/b/c", "+/b/+": "a/b/c"} {
		c := t.client()
		code := c.subscribe(filter{t.topic(f), 1})[0]
		switch code {
		case 0x80:
			continue
		case 1:
		default:
			t.failf("SUBACK %#x for %q", code, f)
		}
		t.client().publish(pub{topic: t.topic(topic), payload: "x", qos: 1})
		c.take(t.topic(topic), "x", 1)
	}
}

func rowSubscribeEmpty(t *Try) {
	c := t.client()
	c.send(subscribePacket(c.version, 1, nil))
	c.expectClosed()
}

func rowSubscribeReserved(t *Try) {
	for _, options := range []byte{3, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x81} {
		c := t.client()
		c.send(subscribePacket(c.version, 1, nil, filter{t.topic("a"), options}))
		c.expectClosed()
	}
}

func rowSuback(t *Try) {
	c := t.client()
	for _, f := range []string{"a", "a/#", "+", "a"} {
		c.send(subscribePacket(c.version, c.nextID(), nil, filter{t.topic(f), 1}))
		c.expect(kindSuback)
	}
}

func rowSubackID(t *Try) {
	c := t.client()
	for _, id := range []uint16{0x100, 0xffff, 1} {
		c.send(subscribePacket(c.version, id, nil, filter{t.topic("a"), 1}))
		c.expectID(kindSuback, id)
	}
}

func rowResubscribe(t *Try) {
	t.client().publish(pub{topic: t.topic("a"), payload: "kept", qos: 1, retain: true})
	t.settle()
	c := t.client()
	for _, qos := range []byte{1, 0} {
		c.listen(qos, t.topic("a"))
		if m := c.take(t.topic("a"), "kept", qos); !m.retain {
			t.failf("%v, want RETAIN", m)
		}
	}
	t.client().publish(pub{topic: t.topic("a"), payload: "live", qos: 1})
	c.expectPublish(t.topic("a"), "live", 0)
	c.expectNothing()
	c.unsubscribe(t.topic("a"))
	t.client().publish(pub{topic: t.topic("a"), payload: "late", qos: 1})
	c.expectNothing() // no second subscription was hidden by the first
	t.clear("a")
}

func rowSubscribeMany(t *Try) {
	c := t.client()
	c.subscribe(filter{t.topic("a"), 0}, filter{t.topic("b/+"), 1}, filter{t.topic("c/#"), 0})
	c.expectNothing() // one SUBACK
	for _, m := range []pub{{topic: "a", payload: "1"}, {topic: "b/x", payload: "2", qos: 1}, {topic: "c", payload: "3"}} {
		m.topic = t.topic(m.topic)
		t.client().publish(m)
		c.take(m.topic, m.payload, m.qos)
	}
}

// rowSubackCodes lets a server grant less than was asked for, but not more, and
// what it grants is what holds.
func rowSubackCodes(t *Try) {
	c := t.client()
	codes := c.subscribe(filter{t.topic("0"), 0}, filter{t.topic("1"), 1}, filter{t.topic("2"), 2})
	for i, code := range codes {
		if int(code) > i && code != 0x80 {
			t.failf("SUBACK % x for QoS 0, 1, 2", codes)
		}
		if code == 0x80 {
			continue
		}
		topic := t.topic(string(rune('0' + i)))
		t.client().publish(pub{topic: topic, payload: "x", qos: 2})
		c.take(topic, "x", code)
	}
}

func rowMinimumQoS(t *Try) {
	p := t.client()
	for granted := range byte(3) {
		c := t.client()
		c.listen(granted, t.topic("a"))
		for sent := range byte(3) {
			p.publish(pub{topic: t.topic("a"), payload: "x", qos: sent})
			c.take(t.topic("a"), "x", min(sent, granted))
		}
	}
}

func rowSubackOrder(t *Try) {
	c := t.client()
	up := c.subscribe(filter{t.topic("a"), 0}, filter{t.topic("b"), 1}, filter{t.topic("c"), 2}, filter{t.topic("d"), 2})
	down := c.subscribe(filter{t.topic("d"), 2}, filter{t.topic("c"), 2}, filter{t.topic("b"), 1}, filter{t.topic("a"), 0})
	slices.Reverse(down)
	if !slices.Equal(up, down) || up[0] != 0 {
		t.failf("SUBACK % x for QoS 0, 1, 2, 2 and, turned round, % x for 2, 2, 1, 0", up, down)
	}
}

// rowSubackKnown asks for what a server may refuse.
func rowSubackKnown(t *Try) {
	filters := []filter{{t.topic("a"), 2}, {"$SYS/#", 1}, {"$x/" + t.topic("a"), 1}, {"$share/group/" + t.topic("a"), 1}, {"#", 0}}
	if t.Target.Narrow != "" {
		c := t.connect(func(h *hello) { h.user = &t.Target.Narrow })
		t.known(c.subscribe(filters...))
	}
	c := t.client()
	t.known(c.subscribe(filters[:4]...))
	c.close()
}

func (t *Try) known(codes []byte) {
	for _, code := range codes {
		if code > 2 && code != 0x80 {
			t.failf("SUBACK % x", codes)
		}
	}
}
