package conform

import (
	"fmt"
	"strings"
	"time"
)

// rowsQoS5 are the statements of sections 4.3, 4.4 and 4.6 about the two ways of a
// message: to the server, and from it.
func rowsQoS5() []Row {
	return []Row{
		{"4.3.1-1", "QoS 0 is sent with QoS 0 and DUP 0", fiveNoID},
		{"4.3.2-1", "QoS 1: each new message has an id that is not in use", fiveServerIDs},
		{"4.3.2-2", "QoS 1 is sent with its id, QoS 1 and DUP 0", fiveSent(1)},
		{"4.3.2-3", "QoS 1 is sent again until PUBACK has come", fiveUnacknowledged(1)},
		{"4.3.2-4", "QoS 1 is answered with PUBACK, when the message is the server's", fiveOwned(1)},
		{"4.3.2-5", "QoS 1: after PUBACK the same id is a new message", fiveSameID(1)},
		{"4.3.3-1", "QoS 2: each new message has an id that is not in use", needQoS2(fiveServerIDs)},
		{"4.3.3-2", "QoS 2 is sent with its id, QoS 2 and DUP 0", needQoS2(fiveSent(2))},
		{"4.3.3-3", "QoS 2 is sent again until PUBREC has come", needQoS2(fiveUnacknowledged(2))},
		{"4.3.3-4", "PUBREC is answered with PUBREL of the same id", needQoS2(fivePubrel)},
		{"4.3.3-5", "PUBREL is sent again until PUBCOMP has come", needQoS2(fivePubrelAgain)},
		{"4.3.3-6", "PUBLISH is not sent again after PUBREL", needQoS2(fivePubrelAgain)},
		{"4.3.3-7", "a message that was sent does not expire", needQoS2(fiveSentStays)},
		{"4.3.3-8", "QoS 2 is answered with PUBREC, when the message is the server's", needQoS2(fiveOwned(2))},
		{"4.3.3-9", "after a PUBREC that refuses the same id is a new message", needQoS2(fiveAfterRefusedID)},
		{"4.3.3-10", "until PUBREL the same id is the same message", needQoS2(fiveOnce)},
		{"4.3.3-11", "PUBREL is answered with PUBCOMP of the same id", needQoS2(fivePubcomp)},
		{"4.3.3-12", "after PUBCOMP the same id is a new message", needQoS2(fiveSameID(2))},
		{"4.3.3-13", "QoS 2 is acknowledged to the end, though the message has expired", needQoS2(fiveExpiredToTheEnd)},
		{"4.4.0-1", "what is not acknowledged is sent again when the client is back, and only then", fiveResent},
		{"4.4.0-2", "what was refused with PUBACK or PUBREC is not sent again", fiveRefusedNotResent},
		{"4.6.0-5", "messages of a client come in its order, for each topic and QoS", fiveOrder},
		{"4.6.0-6", "they do so on every topic, to a session that waited, too", fiveOrderWaited},
	}
}

func needQoS2(run func(*Try)) func(*Try) {
	return func(t *Try) {
		five(t).needsQoS2()
		run(t)
	}
}

func fiveSent(qos byte) func(*Try) {
	return func(t *Try) {
		c, from := five(t), five(t)
		c.listen(qos, t.topic("a"))
		from.publish(pub{topic: t.topic("a"), payload: "x", qos: qos})
		if p := c.take(t.topic("a"), "x", qos); p.dup || p.id == 0 {
			t.failf("%v, want DUP 0 and an id", p)
		}
	}
}

// fiveUnacknowledged is a row: a message comes with each connection until its
// acknowledgement has come.
func fiveUnacknowledged(qos byte) func(*Try) {
	return func(t *Try) {
		id, from := t.id(), five(t)
		c := begin(t, id)
		c.listen(qos, t.topic("a"))
		from.publish(pub{topic: t.topic("a"), payload: "x", qos: qos})
		first := c.expectPublish(t.topic("a"), "x", qos)
		for range 2 {
			c.close()
			c = back(t, id)
			if p := c.expectPublish(t.topic("a"), "x", qos); p.id != first.id {
				t.failf("%v, want id %d again", p, first.id)
			}
		}
		c.finish(first)
		c.ping()
		c.leave()
		c = back(t, id)
		c.expectNothing()
		gone(c)
	}
}

// fiveOwned is a row: what the server has acknowledged comes to who subscribes,
// though the publisher goes without a word more.
func fiveOwned(qos byte) func(*Try) {
	return func(t *Try) {
		c, id := five(t), t.id()
		from := begin(t, id)
		c.listen(qos, t.topic("a"))
		if p := from.offer(pub{topic: t.topic("a"), payload: "x", qos: qos, id: 77}); p.code >= 0x80 {
			t.failf("%v, want it accepted", p)
		}
		from.close()
		if qos == 2 { // the server may deliver now or at PUBREL
			from = back(t, id)
			from.send(ackPacket(kindPubrel, 77))
			from.awaitID(kindPubcomp, 77)
		}
		c.take(t.topic("a"), "x", qos)
		c.expectNothing()
	}
}

func fiveSameID(qos byte) func(*Try) {
	return func(t *Try) {
		c, from := five(t), five(t)
		c.listen(qos, t.topic("a"))
		from.publish(pub{topic: t.topic("a"), payload: "1", qos: qos, id: 9})
		from.publish(pub{topic: t.topic("a"), payload: "2", qos: qos, id: 9})
		from.publish(pub{topic: t.topic("a"), payload: "2", qos: qos, id: 9, dup: true})
		for _, s := range []string{"1", "2", "2"} {
			c.take(t.topic("a"), s, qos)
		}
		c.expectNothing()
	}
}

func fivePubrel(t *Try) {
	c, from := five(t), five(t)
	c.listen(2, t.topic("a"))
	from.publish(pub{topic: t.topic("a"), payload: "1", qos: 2})
	from.publish(pub{topic: t.topic("a"), payload: "2", qos: 2})
	one, two := c.expectPublish(t.topic("a"), "1", 2), c.expectPublish(t.topic("a"), "2", 2)
	c.send(ackPacket(kindPubrec, one.id))
	c.expectID(kindPubrel, one.id)
	c.answer(kindPubrec, two.id, 0x10) // less than 0x80
	c.expectID(kindPubrel, two.id)
}

func fivePubrelAgain(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	c.listen(2, t.topic("a"))
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 2})
	p := c.expectPublish(t.topic("a"), "x", 2)
	c.send(ackPacket(kindPubrec, p.id))
	c.expectID(kindPubrel, p.id)
	for range 2 {
		c.close()
		c = back(t, id)
		c.expectID(kindPubrel, p.id)
		c.expectNothing()
	}
	c.send(ackPacket(kindPubcomp, p.id))
	c.ping()
	c.leave()
	c = back(t, id)
	c.expectNothing()
	gone(c)
}

func fiveSentStays(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	c.listen(2, t.topic("a"))
	from.publish(pub{topic: t.topic("a"), payload: "x", qos: 2, props: number(propMessageExpiry, 1)})
	c.expectPublish(t.topic("a"), "x", 2)
	c.close()
	pause(2500 * time.Millisecond)
	c = back(t, id)
	c.take(t.topic("a"), "x", 2)
	gone(c)
}

func fiveAfterRefusedID(t *Try) {
	if t.Target.Narrow == "" {
		t.notApplicable("refuses no message as it is set up here")
	}
	w := five(t)
	topic := strings.TrimSuffix(narrowFilter, "#") + t.name
	w.listen(2, topic)
	c := t.connect(func(h *hello) { h.user = &t.Target.Narrow })
	if p := c.offer(pub{topic: t.topic("a"), payload: "refused", qos: 2, id: 5}); p.code < 0x80 {
		t.notApplicable("refuses no message with PUBREC")
	}
	c.publish(pub{topic: topic, payload: "new", qos: 2, id: 5})
	w.take(topic, "new", 2)
	w.expectNothing()
}

func fiveOnce(t *Try) {
	c, id := five(t), t.id()
	c.listen(2, t.topic("a"))
	from := begin(t, id)
	p := pub{topic: t.topic("a"), payload: "once", qos: 2, id: 5}
	for range 2 {
		from.succeeded(from.offer(p))
		p.dup = true
	}
	from.close()
	from = back(t, id)
	from.succeeded(from.offer(p))
	from.send(ackPacket(kindPubrel, 5))
	from.awaitID(kindPubcomp, 5)
	c.take(t.topic("a"), "once", 2)
	c.expectNothing()
	gone(from)
}

func fivePubcomp(t *Try) {
	c := five(t)
	for _, id := range []uint16{1, 2, 65535} {
		c.succeeded(c.offer(pub{topic: t.topic("a"), payload: "x", qos: 2, id: id}))
	}
	for _, id := range []uint16{1, 2, 65535, 2} { // the last was released before
		c.send(ackPacket(kindPubrel, id))
		c.expectID(kindPubcomp, id)
	}
}

func fiveExpiredToTheEnd(t *Try) {
	c := five(t)
	p := c.offer(pub{topic: t.topic("a"), payload: "x", qos: 2, props: number(propMessageExpiry, 1)})
	c.succeeded(p)
	c.silence(2500 * time.Millisecond)
	c.send(ackPacket(kindPubrel, p.id))
	c.succeeded(c.expectID(kindPubcomp, p.id))
}

func fiveResent(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	most := byte(min(from.maximum(propMaximumQoS, 2), 2))
	c.listen(most, t.topic("a"))
	ids := map[string]uint16{}
	for q := byte(1); q <= most; q++ {
		from.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(q), qos: q})
		ids[fmt.Sprint(q)] = c.expectPublish(t.topic("a"), fmt.Sprint(q), q).id
	}
	if most == 2 { // a third one, of which PUBREL is under way
		from.publish(pub{topic: t.topic("a"), payload: "3", qos: 2})
		p := c.expectPublish(t.topic("a"), "3", 2)
		c.send(ackPacket(kindPubrec, p.id))
		ids["rel"] = c.expectID(kindPubrel, p.id).id
	}
	c.silence(1500 * time.Millisecond) // at no other time
	c.close()
	c = back(t, id)
	for range len(ids) {
		p := c.await("PUBLISH or PUBREL", func(packet) bool { return true })
		key := p.payload
		if p.kind == kindPubrel {
			key = "rel"
		}
		if p.id != ids[key] {
			t.failf("%v, want the id of before, %d", p, ids[key])
		}
		delete(ids, key)
	}
	c.silence(1500 * time.Millisecond)
	gone(c)
}

func fiveRefusedNotResent(t *Try) {
	id, from := t.id(), five(t)
	c := begin(t, id)
	most := byte(min(from.maximum(propMaximumQoS, 2), 2))
	c.listen(most, t.topic("a"))
	for q := byte(1); q <= most; q++ {
		from.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(q), qos: q})
		p := c.expectPublish(t.topic("a"), fmt.Sprint(q), q)
		c.answer(kindPuback+q-1, p.id, 0x83)
	}
	c.expectNothing() // no PUBREL
	c.close()
	c = back(t, id)
	c.expectNothing()
	gone(c)
}

const ordered = 30 // messages, of each QoS in turn

func say30(t *Try, from *conn, qos ...byte) {
	for i := range ordered {
		from.publish(pub{topic: t.topic("a"), payload: fmt.Sprint(i), qos: qos[i%len(qos)]})
	}
}

// hear30 holds that those of one quality of service come in their order.
func hear30(t *Try, c *conn, qos ...byte) {
	next := map[byte]int{}
	for i, q := range qos {
		next[q] = i
	}
	for range ordered {
		p := c.message()
		if p.payload != fmt.Sprint(next[p.qos]) {
			t.failf("%v, want %d, the next with its QoS", p, next[p.qos])
		}
		next[p.qos] += len(qos)
		c.finish(p)
	}
}

func fiveOrder(t *Try) {
	c, from := five(t, number(propReceiveMaximum, 4)), five(t)
	qos := []byte{0, 1, 2}[:min(from.maximum(propMaximumQoS, 2), 2)+1]
	c.listen(qos[len(qos)-1], t.topic("a"))
	say30(t, from, qos...)
	hear30(t, c, qos...)
}

func fiveOrderWaited(t *Try) {
	id, from := t.id(), five(t)
	qos := []byte{1, 2}[:min(from.maximum(propMaximumQoS, 2), 2)]
	c := begin(t, id)
	c.listen(qos[len(qos)-1], t.topic("+"))
	c.leave()
	say30(t, from, qos...)
	c = back(t, id)
	hear30(t, c, qos...)
	gone(c)
}
